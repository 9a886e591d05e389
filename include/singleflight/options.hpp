// SPDX-License-Identifier: MIT
#ifndef SINGLEFLIGHT_OPTIONS_HPP
#define SINGLEFLIGHT_OPTIONS_HPP

#include <algorithm>
#include <chrono>
#include <cstddef>
#include <limits>
#include <thread>

#include "detail/config.hpp"
#include "detail/saturating_time.hpp"

#if defined(__cpp_lib_jthread)
#include <stop_token>
#endif

namespace singleflight::inline SINGLEFLIGHT_ABI {

/// How a group works, fixed when it is made: `group<K, V> flights({.max_age = 2s});`
struct group_options {
  /// What a follower gets for whom a call has no room.
  enum full_policy {
    reject,    ///< `call_error` with `resource_unavailable_try_again`.
    run_alone  ///< Its own loader's result, by a call that no other caller can join or find.
  };

  /// The number of shards where `shards` is 0.
  [[nodiscard]] static std::size_t default_shards() noexcept {
    return std::clamp<std::size_t>(8 * std::size_t{std::thread::hardware_concurrency()}, 8, 32);
  }

  /// Into how many separately locked shards the map of calls is split, rounded up to a power of
  /// two. 0: eight for each hardware thread, at most 32. At most 65,536. On 64-bit Linux a shard
  /// takes 256 bytes, and up to 1 KiB more for the kept buffer of a string key. Set it to 1 for
  /// groups that few threads share, such as one for each tenant.
  std::size_t shards = 0;

  /// How old a call may get before callers stop queueing behind it: one of them, waiting or new,
  /// starts the next call, the others join that. The old call goes on for its leader. Must be more
  /// than zero. Setting it costs each call a look at the clock. A duration that the clock cannot
  /// hold is no limit.
  detail::saturating_duration max_age = (std::chrono::steady_clock::duration::max)();

  /// How many followers may wait for one call at a time.
  std::size_t max_waiters = (std::numeric_limits<std::size_t>::max)();

  /// What the follower past `max_waiters` gets.
  full_policy when_full = reject;
};

/// What one caller wants of its entry, whatever others want: `{.timeout = 50ms}`.
/// The order of the members is part of the interface, by way of designated initialisers.
struct call_options {
  /// When this caller stops waiting, a `std::chrono::steady_clock::time_point`. A caller that leads
  /// a `do_call` runs the loader on its own thread and cannot be interrupted; `do_call_on` can.
  detail::saturating_time_point deadline = (std::chrono::steady_clock::time_point::max)();

  /// After how long this caller stops waiting, counted from its entry: the same as a deadline that
  /// far from now. If both are given, the earlier one holds. A duration that the clock cannot hold
  /// is no limit.
  detail::saturating_duration timeout = (std::chrono::steady_clock::duration::max)();

#if defined(__cpp_lib_jthread)
  /// Makes this caller stop waiting. A caller that leads a `do_call` withdraws its interest by it:
  /// the loader is told to stop if no other caller wants the result, and otherwise goes on.
  std::stop_token stop = {};
#endif

  /// How many calls may fail before this caller fails. A caller whose call failed tries again; of
  /// all that do, one leads and the others join it. At least 1.
  std::size_t attempts = 1;
};

/// What one caller wants that asks for many keys at once.
struct bulk_options {
  /// Of each key: the timeout is counted from the entry of the caller, the attempts for each key.
  call_options call = {};

  /// How many keys one invocation of the loader gets at most, which is what one query takes. Others
  /// can load the rest meanwhile. At least 1.
  std::size_t max_batch = (std::numeric_limits<std::size_t>::max)();
};

}  // namespace singleflight::inline SINGLEFLIGHT_ABI

#endif  // SINGLEFLIGHT_OPTIONS_HPP
