// SPDX-License-Identifier: MIT
#ifndef SINGLEFLIGHT_DETAIL_STOP_HPP
#define SINGLEFLIGHT_DETAIL_STOP_HPP

#include <utility>

#include "../options.hpp"
#include "config.hpp"

#if defined(__cpp_lib_jthread)
#include <stop_token>
#endif

// Stop tokens, and the same names with nothing behind them for standard libraries that have none
// (libc++ before 20).
namespace singleflight::inline SINGLEFLIGHT_ABI::detail {

#if defined(__cpp_lib_jthread)

/// What a call tells its loader to stop with. Empty, and free, for a loader that takes no token.
using stop_source = std::stop_source;

/// Returns: a source of its own. Throws: `std::bad_alloc`. A function, since g++ 12 for s390x warns
///   of a source that is made in the initialiser of a member.
[[nodiscard]] inline stop_source new_stop_source() { return stop_source(); }
[[nodiscard]] inline stop_source no_stop_source() noexcept { return stop_source(std::nostopstate); }

[[nodiscard]] inline std::stop_token token_of(const stop_source& source) noexcept {
  return source.get_token();
}

[[nodiscard]] inline bool can_be_stopped(const call_options& options) noexcept {
  return options.stop.stop_possible();
}

[[nodiscard]] inline bool was_stopped(const call_options& options) noexcept {
  return options.stop.stop_requested();
}

/// Runs `Callback` if the caller is told to stop while this lives; does nothing if it cannot be.
template <class Callback>
class on_stop {
 public:
  on_stop(const call_options& options, Callback callback)
      : callback_(options.stop, std::move(callback)) {}

 private:
  std::stop_callback<Callback> callback_;
};

#else

struct stop_source {
  void request_stop() const noexcept {}
};

[[nodiscard]] constexpr stop_source new_stop_source() noexcept { return {}; }
[[nodiscard]] constexpr stop_source no_stop_source() noexcept { return {}; }

[[nodiscard]] constexpr int token_of(const stop_source&) noexcept { return 0; }

[[nodiscard]] constexpr bool can_be_stopped(const call_options&) noexcept { return false; }
[[nodiscard]] constexpr bool was_stopped(const call_options&) noexcept { return false; }

template <class Callback>
class on_stop {
 public:
  on_stop(const call_options&, Callback) noexcept {}
};

#endif

}  // namespace singleflight::inline SINGLEFLIGHT_ABI::detail

#endif  // SINGLEFLIGHT_DETAIL_STOP_HPP
