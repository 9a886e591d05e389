// SPDX-License-Identifier: MIT
#ifndef SINGLEFLIGHT_STATS_HPP
#define SINGLEFLIGHT_STATS_HPP

#include <chrono>
#include <cstddef>
#include <cstdint>

namespace singleflight::inline v1 {

/// What a group has done since it was made, and what it is doing now.
///
/// Every entry to the group is counted exactly once, as `led`, `joined` or `rejected`. An entry
/// that threw before it became any of them (the hash, the equality, the copy of the key, the first
/// follower's allocation) did not happen and is not counted.
struct group_stats {
  std::uint64_t led = 0;         ///< Entries that began a call.
  std::uint64_t joined = 0;      ///< Entries that joined a call of somebody else.
  std::uint64_t failed = 0;      ///< Calls that ended without a value.
  std::uint64_t timed_out = 0;   ///< Followers that left because of their deadline.
  std::uint64_t cancelled = 0;   ///< Callers that left because of their stop request.
  std::uint64_t rejected = 0;    ///< Entries that could neither lead nor join.
  std::uint64_t superseded = 0;  ///< Calls that another took the place of because of their age.

  std::size_t in_flight = 0;  ///< Calls begun and not ended, forgotten ones included.
  std::size_t waiting = 0;    ///< Followers of those calls.

  /// Adds up the figures of two shards.
  group_stats& operator+=(const group_stats& other) noexcept {
    led += other.led;
    joined += other.joined;
    failed += other.failed;
    timed_out += other.timed_out;
    cancelled += other.cancelled;
    rejected += other.rejected;
    superseded += other.superseded;
    in_flight += other.in_flight;
    waiting += other.waiting;
    return *this;
  }
};

/// One call that new callers can join.
template <class Key>
struct call_info {
  Key key;                                     ///< A copy of the call's key.
  std::size_t waiters;                         ///< Its followers, without its leader.
  std::chrono::steady_clock::duration waited;  ///< How long the first follower has waited so far.
};

}  // namespace singleflight::inline v1

#endif  // SINGLEFLIGHT_STATS_HPP
