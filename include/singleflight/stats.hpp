// SPDX-License-Identifier: MIT
#ifndef SINGLEFLIGHT_STATS_HPP
#define SINGLEFLIGHT_STATS_HPP

#include <chrono>
#include <cstddef>
#include <cstdint>

#include "detail/config.hpp"

namespace singleflight::inline SINGLEFLIGHT_ABI {

/// What a group has done since it was made, and what it is doing now.
///
/// Every entry to the group is counted exactly once, as `led`, `joined` or `rejected`, whatever
/// becomes of it then: one that goes on to another call, by `attempts` or `max_age`, is not counted
/// again. An entry that threw before it became any of them (the hash, the equality, the copy of the
/// key, an allocation) did not happen and is not counted.
struct group_stats {
  std::uint64_t led = 0;        ///< Entries that began a call.
  std::uint64_t joined = 0;     ///< Entries that joined a call of somebody else.
  std::uint64_t failed = 0;     ///< Calls that ended without a value.
  std::uint64_t timed_out = 0;  ///< Callers that left, or came, after their deadline.
  std::uint64_t cancelled = 0;  ///< Callers that left, came or withdrew after their stop request.
  /// Entries that could neither lead nor join: too late already, in a circle, or past
  /// `max_waiters`, refused or run alone.
  std::uint64_t rejected = 0;
  std::uint64_t superseded = 0;  ///< Calls that left the map because of their age.
  std::uint64_t batches = 0;     ///< Invocations of bulk loaders, each for one call or more.

  std::size_t in_flight = 0;  ///< Calls begun and not ended, listed or not.
  /// Callers that wait for those calls: followers, those of `do_async` included, and the callers
  /// that began one by `do_call_on`.
  std::size_t waiting = 0;

  /// Adds up the figures of two shards.
  group_stats& operator+=(const group_stats& other) noexcept {
    led += other.led;
    joined += other.joined;
    failed += other.failed;
    timed_out += other.timed_out;
    cancelled += other.cancelled;
    rejected += other.rejected;
    superseded += other.superseded;
    batches += other.batches;
    in_flight += other.in_flight;
    waiting += other.waiting;
    return *this;
  }
};

/// One call that new callers can join.
template <class Key>
struct call_info {
  /// For `emplace_back`: a temporary would be a key that is destroyed under a lock.
  call_info(const Key& k, std::size_t n, std::chrono::steady_clock::duration time)
      : key(k), waiters(n), waited(time) {}

  Key key;  ///< A copy of the call's key.
  /// Callers that wait for it, as in `group_stats::waiting`.
  std::size_t waiters;
  /// How long somebody has been waiting for it without a break: the first of them, unless it left.
  std::chrono::steady_clock::duration waited;
};

}  // namespace singleflight::inline SINGLEFLIGHT_ABI

#endif  // SINGLEFLIGHT_STATS_HPP
