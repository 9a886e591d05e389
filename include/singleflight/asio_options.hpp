// SPDX-License-Identifier: MIT
#ifndef SINGLEFLIGHT_ASIO_OPTIONS_HPP
#define SINGLEFLIGHT_ASIO_OPTIONS_HPP

#include <chrono>
#include <cstddef>
#include <limits>

#include "call_context.hpp"
#include "detail/config.hpp"
#include "detail/saturating_time.hpp"

#if defined(__cpp_lib_jthread)
#include <stop_token>
#endif

namespace singleflight::inline SINGLEFLIGHT_ABI {

/// What a caller by Asio wants of its entry, whatever others want.
/// The order of the members is part of the interface, by way of designated initialisers.
struct asio_options {
  /// When this caller leaves, a `std::chrono::steady_clock::time_point`. Kept by a timer of Asio.
  detail::saturating_time_point deadline = (std::chrono::steady_clock::time_point::max)();

#if defined(__cpp_lib_jthread)
  /// Makes this caller leave, as a request by its cancellation slot does.
  std::stop_token stop = {};
#endif

  /// As `async_options::attempts`.
  std::size_t attempts = 1;

  /// As `async_options::inside`. Looked at when the operation is initiated.
  const call_context* inside = nullptr;
};

/// What a caller by Asio wants that asks for many keys at once.
struct asio_bulk_options {
  /// Of each key. A key whose call failed and that is tried again is loaded by itself.
  asio_options call = {};

  /// As `async_bulk_options::max_batch`: the next keys are asked for when all before are answered.
  std::size_t max_batch = (std::numeric_limits<std::size_t>::max)();
};

}  // namespace singleflight::inline SINGLEFLIGHT_ABI

#endif  // SINGLEFLIGHT_ASIO_OPTIONS_HPP
