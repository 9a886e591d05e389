// SPDX-License-Identifier: MIT
// The load that coalescing saves. Requests for keys of a Zipf distribution, each a cache miss, go
// to a resource of 8 slots and 2 ms a query: at most 4,000 queries a second. In the closed loop
// callers ask again when they are answered; in the open loop requests come at a rate that does not
// depend on the answers.

#include <benchmark/benchmark.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <mutex>
#include <random>
#include <string>
#include <thread>
#include <vector>

#include "alternatives.hpp"
#include "answers.hpp"
#include "contest.hpp"
#include "harness.hpp"
#include "resource.hpp"
#include "zipf.hpp"

namespace {

using clock = std::chrono::steady_clock;

using contestants =
    bench::alternatives<bench::none, bench::global_mutex, bench::mutex_per_key, bench::textbook,
                        bench::textbook_mended, bench::singleflight>;
/// Without the global mutex, which never has more than one query under way.
using open_contestants = bench::alternatives<bench::none, bench::mutex_per_key, bench::textbook,
                                             bench::textbook_mended, bench::singleflight>;

std::chrono::duration<double> run_time() { return 3 * bench::row_time(); }

template <class A>
void closed_loop(benchmark::State& state, std::size_t keys, std::size_t callers) {
  std::vector<std::vector<std::uint32_t>> wishes;
  for (std::size_t i = 0; i < callers; ++i) wishes.push_back(bench::zipf_requests(keys, 4096, i));
  for (auto _ : state) {
    A coalescer;
    bench::resource resource;
    bench::judge judge(keys);
    std::vector<bench::tally> tallies(callers);
    const auto ask_until = [&](std::size_t caller, const std::atomic<bool>& stop) {
      const std::vector<std::uint32_t>& mine = wishes[caller];
      for (std::size_t i = 0; !stop.load(std::memory_order_relaxed); ++i) {
        judge.ask(
            coalescer, mine[i % mine.size()], clock::now(), [&] { resource.query(); },
            tallies[caller]);
      }
    };
    const auto time = bench::contest(callers, run_time(), ask_until);
    bench::report(state, tallies, time);
  }
}

/// Returns: the times at which requests come, from the start: at random, at a given rate.
std::vector<clock::duration> arrivals(double rate, std::chrono::duration<double> time) {
  std::mt19937_64 random(1);
  std::exponential_distribution<double> gap(rate);
  std::vector<clock::duration> all;
  std::chrono::duration<double> at(gap(random));
  while (at < time) {
    all.push_back(std::chrono::duration_cast<clock::duration>(at));
    at += std::chrono::duration<double>(gap(random));
  }
  return all;
}

/// 256 threads serve the requests in the order of arrival. When all are busy a request waits for
/// one, and its wait counts from its arrival.
template <class A>
void open_loop(benchmark::State& state, std::size_t keys, int rate) {
  constexpr std::size_t servers = 256;
  const std::vector<clock::duration> arrival_times = arrivals(rate, run_time());
  const std::vector<std::uint32_t> wishes = bench::zipf_requests(keys, arrival_times.size(), 1);
  for (auto _ : state) {
    A coalescer;
    bench::resource resource;
    bench::judge judge(keys);
    std::vector<bench::tally> tallies(servers);
    std::atomic<std::size_t> next{0};
    std::once_flag first;
    clock::time_point began;
    const auto serve = [&](std::size_t server, const std::atomic<bool>& /*stop*/) {
      std::call_once(first, [&] { began = clock::now(); });
      for (std::size_t i = next++; i < arrival_times.size(); i = next++) {
        std::this_thread::sleep_until(began + arrival_times[i]);
        judge.ask(
            coalescer, wishes[i], began + arrival_times[i], [&] { resource.query(); },
            tallies[server]);
      }
    };
    bench::contest(servers, std::chrono::seconds(0), serve);
    bench::report(state, tallies, clock::now() - began);
  }
}

void register_rows() {
  const auto add = [](const std::string& name, const auto& function) {
    benchmark::RegisterBenchmark(name.c_str(), function)->Iterations(1)->UseManualTime();
  };
  for (const std::size_t keys : {100U, 10'000U}) {
    const std::string of_keys = "keys:" + std::to_string(keys);
    for (const std::size_t callers : {8U, 64U, 256U}) {
      if (bench::once() && callers > 8) break;
      const std::string name =
          "saving/closed/" + of_keys + "/callers:" + std::to_string(callers) + "/";
      contestants::for_each<std::uint64_t, bench::answer>([&]<class A>() {
        add(name + A::name, [=](benchmark::State& state) { closed_loop<A>(state, keys, callers); });
      });
    }
    for (const int rate : {2'000, 4'000, 8'000, 16'000}) {
      if (bench::once() && rate > 2'000) break;
      const std::string name = "saving/open/" + of_keys + "/rate:" + std::to_string(rate) + "/";
      open_contestants::for_each<std::uint64_t, bench::answer>([&]<class A>() {
        add(name + A::name, [=](benchmark::State& state) { open_loop<A>(state, keys, rate); });
      });
    }
  }
}

}  // namespace

int main(int argc, char** argv) {
  return bench::run(argc, argv, bench::process::with_threads, register_rows);
}
