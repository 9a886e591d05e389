// SPDX-License-Identifier: MIT
// Deduplication under contention, and the freshness of the answers. Callers ask for one key, or for
// keys of a Zipf distribution, each again as soon as it is answered. They are threads, or coroutines on
// two threads.

#include <benchmark/benchmark.h>

#include <atomic>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <latch>
#include <memory>
#include <singleflight/coroutine.hpp>
#include <singleflight/group.hpp>
#include <string>
#include <thread>
#include <vector>

#include "../tests/tasks.hpp"
#include "alternatives.hpp"
#include "answers.hpp"
#include "contest.hpp"
#include "harness.hpp"
#include "loaders.hpp"
#include "run_queue.hpp"
#include "zipf.hpp"

namespace {

/// The keys that each caller asks for, one after the other, in a loop.
using wish_lists = std::vector<std::vector<std::uint32_t>>;
using shared_wish_lists = std::shared_ptr<const wish_lists>;

using coroutine_group = singleflight::group<std::uint64_t, bench::answer>;

template <class A>
void hammer(benchmark::State& state, const bench::loader& load, std::size_t keys,
            const wish_lists& wishes) {
  for (auto _ : state) {
    A coalescer;
    bench::judge judge(keys);
    std::vector<bench::tally> tallies(wishes.size());
    const auto ask_until = [&](std::size_t caller, const std::atomic<bool>& stop) {
      const std::vector<std::uint32_t>& mine = wishes[caller];
      for (std::size_t i = 0; !stop.load(std::memory_order_relaxed); ++i) {
        judge.ask(coalescer, mine[i % mine.size()], std::chrono::steady_clock::now(), load,
                  tallies[caller]);
      }
    };
    const auto time = bench::contest(wishes.size(), bench::row_time(), ask_until);
    bench::report(state, tallies, time);
  }
}

/// A coroutine that asks until it is stopped.
support::detached ask_until(const std::atomic<bool>& stop, coroutine_group& flights,
                            bench::run_queue& queue, const bench::loader& load, bench::judge& judge,
                            const std::vector<std::uint32_t>& mine, bench::tally& tally,
                            std::latch& done) {
  const auto asleep = [&](std::uint64_t key) -> support::lazy_task<bench::answer> {
    co_await queue.sleep(load.time);
    co_return judge.loaded(key, tally);
  };
  const auto busy = [&](std::uint64_t key) {
    load();
    return judge.loaded(key, tally);
  };
  const bool sleeps = load.spends_it == bench::loader::way::asleep;
  for (std::size_t i = 0; !stop.load(std::memory_order_relaxed); ++i) {
    const std::uint64_t key = mine[i % mine.size()];
    const auto since = std::chrono::steady_clock::now();
    const std::uint64_t returned_before = judge.returned(key);
    const bench::answer got = sleeps ? *co_await flights.co_call(key, queue.executor(), asleep)
                                     : *co_await flights.co_call(key, queue.executor(), busy);
    judge.count(got, key, since, returned_before, tally);
  }
  done.count_down();
}

/// As `hammer`, with as many coroutines, on two threads.
void hammer_coroutines(benchmark::State& state, const bench::loader& load, std::size_t keys,
                       const wish_lists& wishes) {
  for (auto _ : state) {
    coroutine_group flights;
    bench::judge judge(keys);
    std::vector<bench::tally> tallies(wishes.size());
    std::atomic<bool> stop{false};
    std::latch done(static_cast<std::ptrdiff_t>(wishes.size()));
    bench::run_queue queue(2);
    const auto began = std::chrono::steady_clock::now();
    for (std::size_t i = 0; i < wishes.size(); ++i) {
      queue.post(
          [&, i] { ask_until(stop, flights, queue, load, judge, wishes[i], tallies[i], done); });
    }
    std::this_thread::sleep_for(bench::row_time());
    stop.store(true);
    done.wait();
    bench::report(state, tallies, std::chrono::steady_clock::now() - began);
  }
}

/// One row for each loader and alternative.
void add(const std::string& name, std::size_t keys, const shared_wish_lists& wishes) {
  const auto add_row = [&](const bench::loader& load, const char* who, auto* function) {
    benchmark::RegisterBenchmark(
        (name + "/loader:" + load.name + "/" + who).c_str(),
        [=](benchmark::State& state) { function(state, load, keys, *wishes); })
        ->Iterations(1)
        ->UseManualTime();
  };
  for (const bench::loader& load : bench::loaders) {
    bench::all_alternatives::for_each<std::uint64_t, bench::answer>(
        [&]<class A>() { add_row(load, A::name, hammer<A>); });
    add_row(load, "coroutines_executor", hammer_coroutines);
  }
}

void register_rows() {
  for (const std::size_t callers : {2U, 8U, 64U, 256U}) {
    if (bench::once() && callers > 8) break;
    add("dedup/one_key/callers:" + std::to_string(callers), 1,
        std::make_shared<wish_lists>(callers, std::vector<std::uint32_t>{0}));
  }
  constexpr std::size_t keys = 10'000;
  const auto zipf = std::make_shared<wish_lists>();
  for (std::uint64_t seed = 0; seed < 64; ++seed) {
    zipf->push_back(bench::zipf_requests(keys, 4096, seed));
  }
  add("dedup/zipf/callers:64", keys, zipf);
}

}  // namespace

int main(int argc, char** argv) {
  return bench::run(argc, argv, bench::process::with_threads, register_rows);
}
