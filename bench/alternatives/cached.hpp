// SPDX-License-Identifier: MIT
#ifndef SINGLEFLIGHT_BENCH_ALTERNATIVES_CACHED_HPP
#define SINGLEFLIGHT_BENCH_ALTERNATIVES_CACHED_HPP

#include <chrono>
#include <optional>
#include <utility>

namespace bench {

/// An entry of a cache that serves only callers that came before it was loaded. So alternatives
/// that coalesce by a cache and a second look-up give answers as fresh as the others.
template <class Value>
class cached {
 public:
  using clock = std::chrono::steady_clock;

  /// Returns: the value, or null if it was loaded before the caller came.
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
