// SPDX-License-Identifier: MIT
#ifndef SINGLEFLIGHT_DETAIL_SATURATING_TIME_HPP
#define SINGLEFLIGHT_DETAIL_SATURATING_TIME_HPP

#include <chrono>
#include <concepts>
#include <type_traits>

#include "config.hpp"
#include "traits.hpp"

// The types of the options that are times. They convert what the steady clock cannot hold to its
// limits, where the conversions of <chrono> overflow, and refuse likely mistakes with a sentence.
namespace singleflight::inline SINGLEFLIGHT_ABI::detail {

/// Returns: the duration in the clock's unit, or the limit of the clock that it exceeds. A duration
/// that is not a number is without limit.
template <class Rep, class Period>
[[nodiscard]] constexpr std::chrono::steady_clock::duration saturate(
    const std::chrono::duration<Rep, Period>& time) noexcept {
  using target = std::chrono::steady_clock::duration;
  using exact = std::chrono::duration<long double, Period>;
  if constexpr (!std::same_as<std::chrono::duration<Rep, Period>, target>) {
    if (!(exact(time) < exact((target::max)()))) return (target::max)();
    if (exact(time) <= exact((target::min)())) return (target::min)();
  }
  return std::chrono::duration_cast<target>(time);
}

/// A duration of the steady clock.
struct saturating_duration : std::chrono::steady_clock::duration {
  template <class Rep, class Period>
  constexpr saturating_duration(const std::chrono::duration<Rep, Period>& time) noexcept
      : std::chrono::steady_clock::duration(saturate(time)) {}
  template <std::convertible_to<std::chrono::steady_clock::duration> T>
  constexpr saturating_duration(const T& time) : std::chrono::steady_clock::duration(time) {}

  template <class Number>
  requires std::is_arithmetic_v<Number>
  constexpr saturating_duration(Number) noexcept {
    static_assert(always_false<Number>,
                  "singleflight: a duration has a unit: write 50ms or std::chrono::seconds(2)");
  }
};

/// A time of the steady clock.
struct saturating_time_point : std::chrono::steady_clock::time_point {
  template <class Duration>
  constexpr saturating_time_point(
      const std::chrono::time_point<std::chrono::steady_clock, Duration>& time) noexcept
      : std::chrono::steady_clock::time_point(saturate(time.time_since_epoch())) {}
  template <std::convertible_to<std::chrono::steady_clock::time_point> T>
  constexpr saturating_time_point(const T& time) : std::chrono::steady_clock::time_point(time) {}

  template <class Clock, class Duration>
  requires(!std::same_as<Clock, std::chrono::steady_clock>) constexpr saturating_time_point(
      const std::chrono::time_point<Clock, Duration>&) noexcept {
    static_assert(always_false<Clock>,
                  "singleflight: a deadline is a time of std::chrono::steady_clock, which no "
                  "change of the date moves; for a time from now write .timeout = 50ms");
  }

  template <class Rep, class Period>
  constexpr saturating_time_point(const std::chrono::duration<Rep, Period>&) noexcept {
    static_assert(always_false<Rep>,
                  "singleflight: a deadline is a point in time; for a time from now write "
                  ".timeout = 50ms");
  }
};

/// Returns: the time after that duration; the end of time if the clock cannot hold it.
[[nodiscard]] constexpr std::chrono::steady_clock::time_point later(
    std::chrono::steady_clock::time_point time,
    std::chrono::steady_clock::duration duration) noexcept {
  constexpr auto end = (std::chrono::steady_clock::time_point::max)();
  return duration > std::chrono::steady_clock::duration::zero() && time > end - duration
             ? end
             : time + duration;
}

}  // namespace singleflight::inline SINGLEFLIGHT_ABI::detail

#endif  // SINGLEFLIGHT_DETAIL_SATURATING_TIME_HPP
