// SPDX-License-Identifier: MIT
// How well does one hammered key dedup, and how fresh is what its callers get? 64 threads ask for
// it as fast as they are answered; the loader takes 100 µs, asleep as if it waited for a database.
//
// An answer is stale if a caller had already returned with it, or with a later one, before the
// caller that got it asked. Stale answers cost nothing to give, so only fresh ones are counted a
// second.

#include <benchmark/benchmark.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <numeric>
#include <singleflight/group.hpp>
#include <thread>

#include "alternatives.hpp"

namespace {

constexpr int threads = 64;

struct alignas(64) tally {
  std::uint64_t answers = 0, fresh = 0, loads = 0;
};

/// Raises `highest` to at least `value`.
void raise(std::atomic<std::uint64_t>& highest, std::uint64_t value) {
  std::uint64_t seen = highest.load();
  while (seen < value && !highest.compare_exchange_weak(seen, value)) {
  }
}

template <class Coalescer>
void hammered_key(benchmark::State& state) {
  static Coalescer coalescer;
  static std::atomic<std::uint64_t> loads{0};     // numbers the calls
  static std::atomic<std::uint64_t> returned{0};  // the highest number that a caller came back with
  static std::array<tally, threads> tallies;

  tally& mine = tallies[static_cast<std::size_t>(state.thread_index())];
  mine = {};
  for (auto _ : state) {
    const std::uint64_t returned_before = returned.load();
    const std::uint64_t number = coalescer.do_call(std::uint64_t{1}, [&] {
      ++mine.loads;
      std::this_thread::sleep_for(std::chrono::microseconds(100));
      return ++loads;
    });
    raise(returned, number);
    ++mine.answers;
    if (number > returned_before) ++mine.fresh;
  }

  // Every thread is through its loop before any gets here.
  if (state.thread_index() != 0) return;
  const tally sum =
      std::accumulate(tallies.begin(), tallies.end(), tally{}, [](tally a, const tally& b) {
        return tally{a.answers + b.answers, a.fresh + b.fresh, a.loads + b.loads};
      });
  const auto answers = static_cast<double>(sum.answers);
  const auto fresh = static_cast<double>(sum.fresh);
  state.counters["fresh/s"] = benchmark::Counter(fresh, benchmark::Counter::kIsRate);
  state.counters["stale%"] = 100 * (answers - fresh) / answers;
  state.counters["dedup"] = fresh / static_cast<double>(std::max(sum.loads, std::uint64_t{1}));
}

template <bench::ending Order>
using textbook = bench::textbook<std::uint64_t, std::uint64_t, Order>;

BENCHMARK(hammered_key<textbook<bench::ending::publish_first>>)->Threads(threads)->UseRealTime();
BENCHMARK(hammered_key<textbook<bench::ending::erase_first>>)->Threads(threads)->UseRealTime();
BENCHMARK(hammered_key<singleflight::group<std::uint64_t, std::uint64_t>>)
    ->Threads(threads)
    ->UseRealTime();

}  // namespace
