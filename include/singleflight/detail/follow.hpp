// SPDX-License-Identifier: MIT
#ifndef SINGLEFLIGHT_DETAIL_FOLLOW_HPP
#define SINGLEFLIGHT_DETAIL_FOLLOW_HPP

#include <algorithm>
#include <chrono>
#include <cstddef>
#include <future>
#include <optional>
#include <thread>
#include <utility>

#include "../call_error.hpp"
#include "../options.hpp"
#include "../result.hpp"
#include "../stats.hpp"
#include "call.hpp"
#include "call_map.hpp"
#include "config.hpp"
#include "mutex.hpp"
#include "owned_call.hpp"
#include "saturating_time.hpp"
#include "stop.hpp"
#include "stoppable_wait.hpp"
#include "wait_graph.hpp"

// What a caller does that waits for a call: join it, wait, and leave it or take its result.
namespace singleflight::inline SINGLEFLIGHT_ABI::detail {

/// What one caller allows: its options, with the timeout counted from here.
class wait_limits {
 public:
  using clock = std::chrono::steady_clock;

  explicit wait_limits(const call_options& options) noexcept
      : options_(options), deadline_(options.deadline) {
    if (options.timeout != (clock::duration::max)()) {
      deadline_ = (std::min)(deadline_, later(clock::now(), options.timeout));
    }
  }

  [[nodiscard]] clock::time_point deadline() const noexcept { return deadline_; }
  [[nodiscard]] bool has_deadline() const noexcept {
    return deadline_ != (clock::time_point::max)();
  }
  [[nodiscard]] bool can_be_stopped() const noexcept { return detail::can_be_stopped(options_); }
  [[nodiscard]] bool was_stopped() const noexcept { return detail::was_stopped(options_); }
  [[nodiscard]] const call_options& options() const noexcept { return options_; }

 private:
  const call_options& options_;
  clock::time_point deadline_;
};

/// One entry in the counters.
struct account {
  bool counted = false;  // as led, joined or rejected, which happens once

  template <class Shard>
  void count(Shard& home, typename Shard::counter which) SINGLEFLIGHT_REQUIRES(home.mutex) {
    if (!std::exchange(counted, true)) home.count(which);
  }
};

/// What has become of one entry so far.
struct entry : account {
  std::size_t failures = 0;  // of calls that it followed
};

/// Whether a call waits for another one, through others or not.
template <class Key, class Value>
[[nodiscard]] bool waits_for(const call<Key, Value>& running, const wait_node& other) noexcept {
  if (running.shared && running.shared->handle != nullptr && running.shared->handle->watched) {
    return the_wait_graph().waits_for(running.shared->handle->node, other);
  }
  wait_node unwatched;
  unwatched.leader = running.leader;
  return the_wait_graph().waits_for(unwatched, other);
}

/// Turns away a caller that comes too late already, without a trace but in the counters. `tell` is
/// called with the reason first.
template <class Key, class Value, class Tell>
void refuse_if_late(call_map<Key, Value>& home, const wait_limits& limits, entry& me,
                    const Tell& tell) {
  const bool stopped = limits.was_stopped();
  if (!stopped &&
      !(limits.has_deadline() && std::chrono::steady_clock::now() >= limits.deadline())) {
    return;
  }
  {
    const lock guard(home.mutex);
    me.count(home, &group_stats::rejected);
    home.count(stopped ? &group_stats::cancelled : &group_stats::timed_out);
  }
  const reason why = stopped ? reason::stop : reason::deadline;
  tell(why);
  throw_call_error(why);
}

/// What is noted of a caller for the group's observer: nothing.
struct no_note {
  static void leaves(reason) noexcept {}
  template <class Call>
  static void supersedes(const Call&) noexcept {}
  template <class Call>
  static void joins(const Call&) noexcept {}
};

/// Takes a caller out of the accounts of its call, which has ended or not. `began`: the caller has
/// begun the call. Returns: what to stop the loader with, outside the lock, if it is the last
/// caller to leave.
template <class Key, class Value, class Note = no_note>
[[nodiscard]] stop_source account_leave(call_map<Key, Value>& home,
                                        const call_handle<Key, Value>& handle, bool began,
                                        reason why, Note&& note = {}) noexcept
    SINGLEFLIGHT_REQUIRES(home.mutex) {
  if (why == reason::deadline) home.count(&group_stats::timed_out);
  if (why == reason::stop) home.count(&group_stats::cancelled);
  call<Key, Value>* const running = handle.running;
  if (running == nullptr) return no_stop_source();
  if (why == reason::newer_call && running->listed()) {
    home.supersede(*running);
    note.supersedes(*running);
  }
  if (began) running->shared->leader_waits = false;
  return home.remove_waiter(*running);
}

/// Makes a caller leave. If the call has ended, its end has settled the accounts already, and only
/// the move of the value is left: a caller that wanted a newer call waits for it; one whose
/// deadline or stop request has come leaves at once. Runs the loader's stop callbacks if it is the
/// last caller to leave.
/// Returns: false if the caller is to stay for the result.
template <class Key, class Value, class Note = no_note>
bool take_leave(call_map<Key, Value>& home, call_handle<Key, Value>& handle, bool began, reason why,
                Note&& note = {}) {
  lock guard(home.mutex);
  if (handle.running == nullptr && why == reason::newer_call) return false;
  stop_source loader = detail::account_leave(home, handle, began, why, note);
  guard.unlock();
  loader.request_stop();
  return true;
}

/// One caller's wait for one call, in that caller's frame. `Note`: what is told of how it leaves.
template <class Key, class Value, class Note = no_note>
class waiter {
 public:
  using shard = call_map<Key, Value>;
  using call_type = call<Key, Value>;
  using clock = std::chrono::steady_clock;

  explicit waiter(const wait_limits& limits) noexcept : limits_(limits) {}

  /// Makes the caller a follower, which leaves for a newer call at `expiry`.
  /// Returns: why it cannot be one, or nothing. Throws: `std::bad_alloc`, only to this caller.
  [[nodiscard]] std::optional<reason> join(shard& home, call_type& running, std::size_t max_waiters,
                                           clock::time_point expiry)
      SINGLEFLIGHT_REQUIRES(home.mutex) {
    if (running.leader == std::this_thread::get_id()) return reason::circle;
    if (running.followers() >= max_waiters) return reason::full;
    expiry_ = expiry;
    ticket_ = home.make_ticket(running, needs());
    if (!connect()) return reason::circle;
    home.add_follower(running);
    return std::nullopt;
  }

  /// Lets the caller that has joined a call run user code before it waits.
  void not_yet() noexcept { edge_.disconnect(); }

  /// Takes the caller out of the accounts of a call that it will not wait for, its thread being
  /// ended.
  void abandon(shard& home) {
    if (ticket_.handle != nullptr) take_leave(home, reason::caller_gone);
  }

  /// Has the caller wait for a call that it is about to begin on an executor.
  /// Throws: `std::bad_alloc`, and then the call must not begin.
  void attend(shard& home, const std::shared_ptr<owned_call<Key, Value>>& own)
      SINGLEFLIGHT_REQUIRES(home.mutex) {
    began_ = true;
    ticket_ = own->prepare_future(own, needs());
    home.add_beginner(own->get());
    home.begin_to_wait(own->get());
  }

  /// Waits for the call to end, or for this caller to leave it.
  /// Returns: the call's result; nothing if this caller is to try again with another call.
  [[nodiscard]] std::optional<result<Value>> wait(shard& home, entry& me) {
    while (const std::optional<reason> why = block(home)) {
      if (leave(home, *why)) return std::nullopt;
      expiry_ = (clock::time_point::max)();  // it has ended: no newer call is wanted any more
    }
    try {
      static_cast<void>(ticket_.future.get());
    } catch (...) {
      if (began_ || ++me.failures >= limits_.options().attempts) throw;
      return std::nullopt;
    }
    const bool shared = !began_ || ticket_.handle->joined;
    return result_maker::of<Value>(std::move(ticket_.future), shared, began_);
  }

  [[nodiscard]] const Note& note() const noexcept { return note_; }

 private:
  /// Whether this wait could close a circle of waits.
  [[nodiscard]] static bool is_nested() noexcept { return calls_led_by_this_thread > 0; }

  [[nodiscard]] wait_needs needs() const noexcept {
    return {.to_leave = limits_.has_deadline() || expiry_ != (clock::time_point::max)(),
            .to_be_woken = limits_.can_be_stopped(),
            .an_edge = is_nested()};
  }

  /// Returns: false if to wait now would close a circle.
  [[nodiscard]] bool connect() noexcept {
    return edge_.connected || !is_nested() || edge_.connect(ticket_.handle->node);
  }

  /// Blocks until the result is there or this caller does not want to wait any longer. From here on
  /// its thread does not wait, and so has no edge in the wait graph: whatever comes next may run
  /// user code.
  /// Returns: why it wants to leave; nothing if the result is there.
  [[nodiscard]] std::optional<reason> block(shard& home) {
    if (!connect()) return reason::circle;
    const bool published = block_until(home, (std::min)(limits_.deadline(), expiry_));
    edge_.disconnect();
    if (published) return std::nullopt;
    if (limits_.was_stopped()) return reason::stop;
    return limits_.deadline() <= expiry_ ? reason::deadline : reason::newer_call;
  }

  [[nodiscard]] bool block_until(shard& home, clock::time_point until) {
    try {
      if (limits_.can_be_stopped()) {
        return wait_stoppably(*ticket_.handle->waiters, limits_.options(), until);
      }
      if (until != (clock::time_point::max)()) {
        return ticket_.future.wait_until(until) == std::future_status::ready;
      }
      ticket_.future.wait();
      return true;
    } catch (...) {  // forced unwinding: this thread is cancelled while it waits
      edge_.disconnect();
      abandon(home);
      throw;
    }
  }

  /// Leaves a call that has no result yet.
  /// Returns: whether this caller has left for a newer call; if not, its result is there or about
  /// to be. Throws: `call_error` if it has left for another reason.
  bool leave(shard& home, reason why) {
    if (!take_leave(home, why)) return false;
    if (why != reason::newer_call) throw_call_error(why);
    return true;
  }

  /// Returns: as `detail::take_leave`.
  bool take_leave(shard& home, reason why) {
    if (!detail::take_leave(home, *ticket_.handle, began_, why, note_)) return false;
    note_.leaves(why);
    return true;
  }

  const wait_limits& limits_;
  wait_ticket<Key, Value> ticket_;
  wait_edge edge_;
  clock::time_point expiry_ = (clock::time_point::max)();  // when to leave for a newer call
  bool began_ = false;                                     // the call, rather than joined it
  SINGLEFLIGHT_DETAIL_NO_UNIQUE_ADDRESS Note note_;
};

}  // namespace singleflight::inline SINGLEFLIGHT_ABI::detail

#endif  // SINGLEFLIGHT_DETAIL_FOLLOW_HPP
