// SPDX-License-Identifier: MIT
#ifndef SINGLEFLIGHT_BENCH_ALTERNATIVES_SINGLEFLIGHT_HPP
#define SINGLEFLIGHT_BENCH_ALTERNATIVES_SINGLEFLIGHT_HPP

#include <singleflight/group.hpp>
#include <utility>

namespace bench {

/// This library.
template <class Key, class Value>
class singleflight {
 public:
  static constexpr const char* name = "singleflight";

  template <class Fn>
  Value get(const Key& key, Fn&& fn) {
    return group_.do_call(key, std::forward<Fn>(fn));
  }

 private:
  ::singleflight::group<Key, Value> group_;
};

}  // namespace bench

#endif  // SINGLEFLIGHT_BENCH_ALTERNATIVES_SINGLEFLIGHT_HPP
