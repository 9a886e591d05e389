// SPDX-License-Identifier: MIT
#ifndef SINGLEFLIGHT_OPTIONS_HPP
#define SINGLEFLIGHT_OPTIONS_HPP

#include <chrono>
#include <cstddef>
#include <limits>
#include <version>

#if defined(__cpp_lib_jthread)
#include <stop_token>
#endif

namespace singleflight::inline v1 {

/// How a group works, fixed when it is made: `group<K, V> flights({.max_age = 2s});`
struct group_options {
  /// What the follower gets for whom a call has no room.
  enum full_policy {
    reject,    ///< `call_error` with `resource_unavailable_try_again`.
    run_alone  ///< Its own loader's result, by a call that nobody can join, nor find by its key.
  };

  /// Into how many separately locked parts the map of calls is split, rounded up to a power of two.
  /// 0: eight for each hardware thread. At most 65,536.
  std::size_t shards = 0;

  /// How old a call may get before callers stop queueing behind it: one of them, waiting or new,
  /// starts the next call, the others join that. The old call goes on for its leader. Must be more
  /// than zero. Setting it costs each call a look at the clock.
  std::chrono::steady_clock::duration max_age = std::chrono::steady_clock::duration::max();

  /// How many followers may wait for one call at a time.
  std::size_t max_waiters = std::numeric_limits<std::size_t>::max();

  /// What the follower past `max_waiters` gets.
  full_policy when_full = reject;
};

/// What one caller wants of its entry, whatever others want: `{.deadline = now + 50ms}`.
struct call_options {
  /// When this caller stops waiting. One that leads a `do_call` runs the loader on its own thread
  /// and cannot be interrupted; `do_call_on` can.
  std::chrono::steady_clock::time_point deadline = std::chrono::steady_clock::time_point::max();

#if defined(__cpp_lib_jthread)
  /// Makes this caller stop waiting. One that leads a `do_call` withdraws its interest by it: the
  /// loader is told to stop if nobody else wants the result, and else goes on for the others.
  std::stop_token stop = {};
#endif

  /// How many calls may fail before this caller fails: one whose call failed tries again, and of
  /// all that do, one leads and the others join it. At least 1.
  std::size_t attempts = 1;
};

}  // namespace singleflight::inline v1

#endif  // SINGLEFLIGHT_OPTIONS_HPP
