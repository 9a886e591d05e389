// SPDX-License-Identifier: MIT
// The alternatives that the library is measured against, as C++ programmers write them today.
#ifndef SINGLEFLIGHT_BENCH_ALTERNATIVES_HPP
#define SINGLEFLIGHT_BENCH_ALTERNATIVES_HPP

#include <concepts>

#include "alternatives/call_once.hpp"
#include "alternatives/global_mutex.hpp"
#include "alternatives/mutex_per_key.hpp"
#include "alternatives/none.hpp"
#include "alternatives/singleflight.hpp"
#include "alternatives/textbook.hpp"
#if defined(SINGLEFLIGHT_BENCH_HAS_TBB)
#include "alternatives/tbb_accessor.hpp"
#include "alternatives/tbb_future.hpp"
#endif

namespace bench {

/// Each alternative has a function `get`. It returns the result of a loader for `key`, this
/// caller's or that of a caller that asks at the same time. A result that was loaded before the
/// caller came is stale; the benchmarks check the key of each answer and count the stale ones.
template <class A, class Key, class Value>
concept alternative = requires(A a, const Key& key, Value (*load)()) {
  { a.get(key, load) } -> std::same_as<Value>;
  { A::name } -> std::convertible_to<const char*>;
};

/// A list of alternatives, for a benchmark to run over.
template <template <class, class> class... As>
struct alternatives {
  /// Calls `visit.operator()<A>()` for each alternative `A`, made for that key and value.
  template <class Key, class Value, class Visit>
  static void for_each(const Visit& visit) {
    static_assert((alternative<As<Key, Value>, Key, Value> && ...));
    (visit.template operator()<As<Key, Value>>(), ...);
  }
};

/// Every alternative, each by the name that report.py has for it.
using all_alternatives = alternatives<none, global_mutex, mutex_per_key, textbook, textbook_mended,
#if defined(SINGLEFLIGHT_BENCH_HAS_TBB)
                                      tbb_future, tbb_future_mended, tbb_accessor,
#endif
                                      call_once, singleflight>;

}  // namespace bench

#endif  // SINGLEFLIGHT_BENCH_ALTERNATIVES_HPP
