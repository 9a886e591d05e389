// SPDX-License-Identifier: MIT
// Deduplication under contention, and the freshness of the answers. Callers ask for one key, or for
// keys of a Zipf distribution, each again as soon as it is answered.

#include <benchmark/benchmark.h>

#include <atomic>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "alternatives.hpp"
#include "answers.hpp"
#include "contest.hpp"
#include "harness.hpp"
#include "loaders.hpp"
#include "zipf.hpp"

namespace {

/// The keys that each caller asks for, one after the other, in a loop.
using wish_lists = std::vector<std::vector<std::uint32_t>>;
using shared_wish_lists = std::shared_ptr<const wish_lists>;

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

/// One row for each loader and alternative.
void add(const std::string& name, std::size_t keys, const shared_wish_lists& wishes) {
  for (const bench::loader& load : bench::loaders) {
    bench::all_alternatives::for_each<std::uint64_t, bench::answer>([&]<class A>() {
      benchmark::RegisterBenchmark(
          (name + "/loader:" + load.name + "/" + A::name).c_str(),
          [=](benchmark::State& state) { hammer<A>(state, load, keys, *wishes); })
          ->Iterations(1)
          ->UseManualTime();
    });
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
