// SPDX-License-Identifier: MIT
// The plan of one round, drawn from the seed and the number of the round.
#ifndef SINGLEFLIGHT_TESTS_STRESS_PLAN_HPP
#define SINGLEFLIGHT_TESTS_STRESS_PLAN_HPP

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <initializer_list>
#include <random>
#include <singleflight/options.hpp>

namespace stress {

/// A random number generator. The same seed gives the same plan; the interleaving may differ.
class dice {
 public:
  dice(std::uint64_t seed, std::uint64_t round, std::uint64_t thread)
      : state_(seed * 0x9E37'79B9'7F4A'7C15 + round * 0xBF58'476D'1CE4'E5B9 + thread + 1) {
    state_.discard(2);
  }

  /// Returns: a number from 0 to n - 1.
  std::uint32_t below(std::uint32_t n) { return static_cast<std::uint32_t>((state_() >> 16) % n); }
  bool one_in(std::uint32_t n) { return below(n) == 0; }
  int one_of(std::initializer_list<int> all) {
    return all.begin()[below(static_cast<std::uint32_t>(all.size()))];
  }

 private:
  // Small enough to make one for each loader.
  std::linear_congruential_engine<std::uint64_t, 6364136223846793005, 1442695040888963407, 0>
      state_;
};

struct plan {
  std::uint64_t seed = 0;
  std::uint64_t round = 0;
  int size = 0;  // operations, about
  int keys = 0;
  int threads = 0;
  int operations = 0;  // of each thread
  bool long_keys = false;
  bool leaves = false;          // by deadlines and stop requests
  bool forgets = false;         // and asks for a call inside its own loader
  bool executors = false;       // do_call_on and do_async
  bool asynchronous = false;    // coroutines, callbacks and leaders
  bool counts_loaders = false;  // takes a lock in each loader
  singleflight::group_options options{};

  static plan draw(std::uint64_t seed, std::uint64_t round, int size) {
    dice random(seed, round, 0);
    plan p;
    p.seed = seed;
    p.round = round;
    p.size = size;
    p.keys = random.one_of({1, 1, 2, 3, 8, 16, 64});
    p.threads = random.one_of({2, 2, 3, 4, 8, 16, 32});
    p.operations = size / p.threads;
    p.long_keys = random.one_in(2);
    p.leaves = random.one_in(2);
    p.forgets = random.one_in(2);
    p.executors = random.one_in(2);
    p.asynchronous = random.one_in(2);
    p.options.shards = static_cast<std::size_t>(random.one_of({0, 1, 1, 4}));
    if (random.one_in(4)) p.options.max_age = std::chrono::microseconds(1 + random.below(500));
    if (random.one_in(4)) {
      p.options.max_waiters = random.below(4);
      if (random.one_in(2)) p.options.when_full = singleflight::group_options::run_alone;
    }
    // max_age takes calls out of the map at any time, so the number that run has no limit.
    p.counts_loaders = !p.ages() && random.one_in(2);
    return p;
  }

  [[nodiscard]] bool ages() const noexcept { return options.max_age != options.max_age.max(); }
  [[nodiscard]] bool fills_up() const noexcept {
    return options.max_waiters != singleflight::group_options().max_waiters;
  }
  /// Returns: whether calls of one key come one after the other, so that their numbers say which is
  /// newer.
  [[nodiscard]] bool strict() const noexcept {
    return !leaves && !forgets && !executors && !ages() && !fills_up();
  }

  void print(std::FILE* to) const {
    std::fprintf(
        to,
        "seed %llu round %llu: %d threads, %d %s keys,%s%s%s%s shards %zu, max_age %lld us, "
        "max_waiters %lld%s\n",
        static_cast<unsigned long long>(seed), static_cast<unsigned long long>(round), threads,
        keys, long_keys ? "string" : "int", leaves ? " leaving," : "",
        forgets ? " forgetting," : "", executors ? " executors," : "",
        asynchronous ? " asynchronous," : "", options.shards,
        ages() ? static_cast<long long>(options.max_age / std::chrono::microseconds(1)) : -1,
        fills_up() ? static_cast<long long>(options.max_waiters) : -1,
        options.when_full == options.run_alone ? ", run alone" : "");
  }

  /// Ends the program: after a violation nothing else means anything.
  [[noreturn]] void violated(const char* what) const noexcept {
    std::fprintf(stderr, "stress: VIOLATED: %s\nstress: ", what);
    print(stderr);
    std::fprintf(
        stderr,
        "stress: to run this round again: stress --seed %llu --round %llu --round-size %d\n",
        static_cast<unsigned long long>(seed), static_cast<unsigned long long>(round), size);
    std::fflush(nullptr);
    std::_Exit(1);
  }
};

}  // namespace stress

#endif  // SINGLEFLIGHT_TESTS_STRESS_PLAN_HPP
