// SPDX-License-Identifier: MIT
// A call without followers, with a loader that does next to nothing, so that the alternative's own
// cost is measured.
#ifndef SINGLEFLIGHT_BENCH_UNSHARED_HPP
#define SINGLEFLIGHT_BENCH_UNSHARED_HPP

#include <benchmark/benchmark.h>

#include <cstdint>
#include <mutex>
#include <string>

#include "alternatives.hpp"
#include "keys.hpp"

namespace bench {

/// Two empty lock/unlock pairs, the floor of any design that guards a map by mutexes.
struct alignas(64) two_locks {
  void operator()() {
    for (int i = 0; i < 2; ++i) {
      mutex.lock();
      benchmark::ClobberMemory();
      mutex.unlock();
    }
  }

  std::mutex mutex;
};

/// Calls of one thread for one key.
template <class A, class Key>
class unshared_calls {
 public:
  unshared_calls(A& coalescer, int n) : coalescer_(coalescer), key_(keys<Key>::make(n)) {}

  /// Returns: whether the answer is right.
  bool operator()() {
    std::uint64_t value = coalescer_.get(key_, [&] { return ++loaded_; });
    benchmark::DoNotOptimize(value);
    return value == loaded_;
  }

 private:
  A& coalescer_;
  const Key key_;
  std::uint64_t loaded_ = 0;
};

/// Calls `visit.operator()<A, Key>(name)` for each alternative and each type of key.
template <class Visit>
void for_each_unshared(const Visit& visit) {
  const auto with_key = [&]<class Key>() {
    all_alternatives::for_each<Key, std::uint64_t>([&]<class A>() {
      visit.template operator()<A, Key>(std::string("key:") + keys<Key>::name + "/" + A::name);
    });
  };
  with_key.template operator()<std::uint64_t>();
  with_key.template operator()<std::string>();
}

}  // namespace bench

#endif  // SINGLEFLIGHT_BENCH_UNSHARED_HPP
