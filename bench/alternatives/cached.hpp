// SPDX-License-Identifier: MIT
#ifndef SINGLEFLIGHT_BENCH_ALTERNATIVES_CACHED_HPP
#define SINGLEFLIGHT_BENCH_ALTERNATIVES_CACHED_HPP

#include <chrono>
#include <optional>
#include <utility>

namespace bench {

/// An entry of a cache whose values live for no time: good only for who came before it was loaded,
/// so that alternatives which coalesce by a cache and a second look answer as fresh as the others.
template <class Value>
class cached {
 public:
  using clock = std::chrono::steady_clock;

  /// Returns: the value, or null if it is older than the caller's coming.
  [[nodiscard]] const Value* for_caller_of(clock::time_point came) const {
    return value_ && loaded_ > came ? &*value_ : nullptr;
  }

  const Value& put(Value value) {
    value_ = std::move(value);
    loaded_ = clock::now();
    return *value_;
  }

 private:
  std::optional<Value> value_;
  clock::time_point loaded_;
};

}  // namespace bench

#endif  // SINGLEFLIGHT_BENCH_ALTERNATIVES_CACHED_HPP
