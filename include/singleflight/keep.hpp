// SPDX-License-Identifier: MIT
#ifndef SINGLEFLIGHT_KEEP_HPP
#define SINGLEFLIGHT_KEEP_HPP

#include <chrono>

#include "detail/config.hpp"
#include "detail/saturating_time.hpp"

namespace singleflight::inline SINGLEFLIGHT_ABI {

/// What a loader may return in place of a bare value: `return keep{row, 5s};`
template <class Value>
struct keep {
  /// What the callers get.
  Value value;
  /// How long the cache may keep it. Zero or less: it is given to the callers that wait, and not
  /// kept.
  detail::saturating_duration lifetime = std::chrono::seconds(0);
};

/// `keep{row, 5s}` deduces the type of the value.
template <class Value>
keep(Value, detail::saturating_duration) -> keep<Value>;

}  // namespace singleflight::inline SINGLEFLIGHT_ABI

#endif  // SINGLEFLIGHT_KEEP_HPP
