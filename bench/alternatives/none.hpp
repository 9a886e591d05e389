// SPDX-License-Identifier: MIT
#ifndef SINGLEFLIGHT_BENCH_ALTERNATIVES_NONE_HPP
#define SINGLEFLIGHT_BENCH_ALTERNATIVES_NONE_HPP

#include <utility>

namespace bench {

/// No coalescing: every caller loads.
template <class Key, class Value>
class none {
 public:
  static constexpr const char* name = "none";

  template <class Fn>
  Value get(const Key& /*key*/, Fn&& fn) {
    return std::forward<Fn>(fn)();
  }
};

}  // namespace bench

#endif  // SINGLEFLIGHT_BENCH_ALTERNATIVES_NONE_HPP
