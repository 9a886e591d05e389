// SPDX-License-Identifier: MIT
#ifndef SINGLEFLIGHT_ASYNC_OPTIONS_HPP
#define SINGLEFLIGHT_ASYNC_OPTIONS_HPP

#include <cstddef>
#include <limits>

#include "call_context.hpp"
#include "detail/config.hpp"

#if defined(__cpp_lib_jthread)
#include <stop_token>
#endif

namespace singleflight::inline SINGLEFLIGHT_ABI {

/// In the place of an executor: the caller is resumed on the thread that ends its call, or that
/// makes it leave, inside the function that does so. Who is resumed so must not block that thread.
struct resume_inline_t {
  explicit resume_inline_t() = default;
};
/// The one object of its type, to be given where an executor could be.
inline constexpr resume_inline_t resume_inline{};

/// What an asynchronous caller wants of its entry, whatever others want. There is no deadline,
/// since the library has no timer: `asio.hpp` has one, and any timer can request a stop. The order
/// of the members is part of the interface, by way of designated initialisers.
struct async_options {
#if defined(__cpp_lib_jthread)
  /// Makes this caller leave: it is resumed with a `call_error`.
  std::stop_token stop = {};
#endif

  /// How many calls may fail before this caller fails. A caller whose call failed tries again; of
  /// all that do, one leads and the others join it. At least 1. While it may try again, the group
  /// must live: a caller whose group is gone gets the failure.
  std::size_t attempts = 1;

  /// The call inside whose loader this call is made, and which waits for it: lets a circle of waits
  /// be refused. Looked at when the caller enters; null if it is inside none.
  const call_context* inside = nullptr;
};

/// What an asynchronous caller wants that asks for many keys at once.
struct async_bulk_options {
  /// Of each key. A key whose call failed and that is tried again is loaded by itself.
  async_options call = {};

  /// As `bulk_options::max_batch`: the next keys are asked for when all before are answered.
  std::size_t max_batch = (std::numeric_limits<std::size_t>::max)();
};

}  // namespace singleflight::inline SINGLEFLIGHT_ABI

#endif  // SINGLEFLIGHT_ASYNC_OPTIONS_HPP
