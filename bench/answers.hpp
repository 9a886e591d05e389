// SPDX-License-Identifier: MIT
// Checks each answer: is it right, and is it fresh?
#ifndef SINGLEFLIGHT_BENCH_ANSWERS_HPP
#define SINGLEFLIGHT_BENCH_ANSWERS_HPP

#include <benchmark/benchmark.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <vector>

#include "waits.hpp"

namespace bench {

/// The result of a load: its key, and its number among the loads of that key.
struct answer {
  std::uint64_t key;
  std::uint64_t number;
};

/// Counts of requests and of their answers.
struct tally {
  std::uint64_t requests = 0, fresh = 0, wrong = 0, loads = 0;
  waits waited;

  tally& operator+=(const tally& other) {
    requests += other.requests;
    fresh += other.fresh;
    wrong += other.wrong;
    loads += other.loads;
    waited += other.waited;
    return *this;
  }
};

/// Asks for keys and judges the answers.
///
/// An answer is stale if a caller had already returned with it, or with a later one of its key,
/// before the caller that got it asked. Stale answers cost nothing to give, so what counts is how
/// many fresh ones there are.
class judge {
 public:
  explicit judge(std::size_t keys) : histories_(keys) {}

  /// One request for a key below the number of keys, whose wait counts from `since`; `load()` is
  /// what the loader does. Tallies are for one thread each.
  template <class A, class Load>
  void ask(A& coalescer, std::uint64_t key, std::chrono::steady_clock::time_point since,
           const Load& load, tally& mine) {
    const std::uint64_t returned_before = returned(key);
    const answer got = coalescer.get(key, [&] {
      load();
      return loaded(key, mine);
    });
    count(got, key, since, returned_before, mine);
  }

  // The parts of that, for callers that are not threads.

  /// Returns: the highest number that a caller has received. To be noted before a request.
  [[nodiscard]] std::uint64_t returned(std::uint64_t key) const { return past(key).returned; }

  /// Returns: the answer of a loader, at its end.
  answer loaded(std::uint64_t key, tally& mine) {
    ++mine.loads;
    return answer{key, ++past(key).loads};
  }

  /// Judges an answer.
  void count(const answer& got, std::uint64_t key, std::chrono::steady_clock::time_point since,
             std::uint64_t returned_before, tally& mine) {
    mine.waited.add(std::chrono::steady_clock::now() - since);
    raise(past(key).returned, got.number);
    ++mine.requests;
    if (got.key != key) ++mine.wrong;
    if (got.number > returned_before) ++mine.fresh;
  }

 private:
  struct alignas(64) history {
    std::atomic<std::uint64_t> loads{0};
    std::atomic<std::uint64_t> returned{0};  // the highest number that a caller has received
  };

  [[nodiscard]] history& past(std::uint64_t key) {
    return histories_[static_cast<std::size_t>(key)];
  }
  [[nodiscard]] const history& past(std::uint64_t key) const {
    return histories_[static_cast<std::size_t>(key)];
  }

  static void raise(std::atomic<std::uint64_t>& highest, std::uint64_t value) {
    std::uint64_t seen = highest.load();
    while (seen < value && !highest.compare_exchange_weak(seen, value)) {
    }
  }

  std::vector<history> histories_;
};

/// Reports the counts of all threads, as rates over `time`.
inline void report(benchmark::State& state, const std::vector<tally>& tallies,
                   std::chrono::duration<double> time) {
  tally sum;
  for (const tally& each : tallies) sum += each;
  if (sum.wrong > 0) state.SkipWithError("wrong answers");
  const auto requests = static_cast<double>(sum.requests);
  const auto fresh = static_cast<double>(sum.fresh);
  const auto loads = static_cast<double>(sum.loads);
  state.SetIterationTime(time.count());
  state.counters["requests/s"] = requests / time.count();
  state.counters["fresh/s"] = fresh / time.count();
  state.counters["stale%"] = 100 * (requests - fresh) / std::max(requests, 1.0);
  state.counters["loads/s"] = loads / time.count();
  state.counters["dedup"] = fresh / std::max(loads, 1.0);
  state.counters["p50_us"] = sum.waited.quantile(0.5);
  state.counters["p99_us"] = sum.waited.quantile(0.99);
}

}  // namespace bench

#endif  // SINGLEFLIGHT_BENCH_ANSWERS_HPP
