// SPDX-License-Identifier: MIT
#ifndef SINGLEFLIGHT_DETAIL_LEAD_HPP
#define SINGLEFLIGHT_DETAIL_LEAD_HPP

#include <exception>
#include <thread>
#include <type_traits>
#include <utility>

#include "../call_error.hpp"
#include "../options.hpp"
#include "../result.hpp"
#include "../stats.hpp"
#include "call.hpp"
#include "call_map.hpp"
#include "config.hpp"
#include "context.hpp"
#include "loader.hpp"
#include "mutex.hpp"
#include "stop.hpp"
#include "wait_graph.hpp"

// What the leader of a call does, on whatever thread: run the loader, unlist the call under the
// lock, publish the result outside it. Publishing first would hand an ended call to callers that
// enter in between; publishing under the lock would wake the followers into it. Here this is done
// by `lead`, `end_with` and, where there is no value, `fail`; for the keys of a batch by
// led_batch.hpp and executor_batch.hpp.
namespace singleflight::inline SINGLEFLIGHT_ABI::detail {

template <class Key, class Value>
void count_failure(call_map<Key, Value>& home) noexcept {
  const lock guard(home.mutex);
  home.count(&group_stats::failed);
}

/// Tells those who do not wait in the future that the result is there: the wait graph and, if there
/// can be any, other waiters.
template <class Key, class Value>
void announce(call<Key, Value>& own, bool to_waiters = true) noexcept {
  const std::shared_ptr<call_handle<Key, Value>>& handle = own.shared->handle;
  if (handle == nullptr) return;
  if (handle->watched) the_wait_graph().end(handle->node);
  if (to_waiters && handle->waiters) handle->waiters->publish(handle);
}

template <class Key, class Value>
void publish_failure(call<Key, Value>& own, std::exception_ptr why) {
  if (!own.shared) return;
  if (own.handed_out()) own.shared->channel->promise.set_exception(std::move(why));
  detail::announce(own);
}

/// Ends the call without a value, then tells those who wait for it why.
template <class Key, class Value>
void fail(call_map<Key, Value>& home, call<Key, Value>& own, std::exception_ptr why) {
  {
    const lock guard(home.mutex);
    home.count(&group_stats::failed);
    home.end(own);
  }
  detail::publish_failure(own, std::move(why));
}

/// Runs the loader. If it does not return, fails the call.
template <class Key, class Value, class Fn>
[[nodiscard]] loaded<Value> run(call_map<Key, Value>& home, call<Key, Value>& own, Fn&& fn) {
  try {
    const leading here;
    const auto token = [&] { return detail::token_of(own.stop); };
    const auto context = [&] { return context_of<Key, Value>(home, own); };
    return detail::load<Value>(std::forward<Fn>(fn), own.key, token, context);
  } catch (...) {
    detail::fail(home, own, current_failure());
    throw;  // in place: the forced unwinding of a thread that exits must go on
  }
}

/// Hands the value of an ended call to those who wait for it.
/// Throws: what moving the value throws, and then so does everybody else's wait.
template <class Key, class Value>
void publish(call_map<Key, Value>& home, call<Key, Value>& own,
             [[maybe_unused]] loaded<Value>& value) {
  try {
    const leading here;  // the move is user code, and may wait
    if constexpr (std::is_void_v<Value>) {
      own.shared->channel->promise.set_value();
    } else {
      own.shared->channel->promise.set_value(std::move(value));
    }
  } catch (...) {
    detail::count_failure(home);
    detail::publish_failure(own, current_failure());
    throw;
  }
  detail::announce(own);
}

/// Returns: the value of an ended call that no other caller waits for.
template <class Key, class Value>
[[nodiscard]] result<Value> keep(call_map<Key, Value>& home, loaded<Value>& value) {
  try {
    return result_maker::unshared<Value>(value);
  } catch (...) {  // the move threw
    detail::count_failure(home);
    throw;
  }
}

/// Ends a call that lives on the heap. If no other caller waits for the value, `keep` is given it,
/// and announces it.
/// Returns: whether the value was moved to who gets it.
template <class Key, class Value, class Keep>
bool end_with(call_map<Key, Value>& home, call<Key, Value>& own, loaded<Value>& value,
              const Keep& keep) noexcept {
  {
    const lock guard(home.mutex);
    home.end(own);
  }
  if (own.handed_out()) {
    try {
      detail::publish(home, own, value);
      return true;
    } catch (...) {  // the move threw, which those who wait have been told
      return false;
    }
  }
  return keep(value);
}

/// Leads a call from its loader to its published result.
/// Returns: the leader's result. Throws: what the loader, or moving its value, throws, after all
/// who wait have been told.
template <class Key, class Value, class Fn>
result<Value> lead(call_map<Key, Value>& home, call<Key, Value>& own, Fn&& fn) {
  loaded<Value> value = detail::run(home, own, std::forward<Fn>(fn));
  {
    const lock guard(home.mutex);
    home.end(own);
  }
  if (!own.handed_out()) {
    if (own.shared) detail::announce(own);  // callers inside this one show it to the wait graph
    return detail::keep<Key, Value>(home, value);
  }
  detail::publish(home, own, value);
  return result_maker::of<Value>(std::move(own.shared->channel->future), own.joined(), true);
}

struct tell_nobody {
  void operator()() const noexcept {}
};

/// Takes back the leader's interest in a call that may be over already. If it is not, calls `tell`.
template <class Key, class Value, class Tell = tell_nobody>
struct withdrawal {
  call_map<Key, Value>& home;
  call<Key, Value>& own;
  SINGLEFLIGHT_DETAIL_NO_UNIQUE_ADDRESS Tell tell = {};

  void operator()() const noexcept {
    lock guard(home.mutex);
    if (own.ended) return;
    home.count(&group_stats::cancelled);
    stop_source loader = home.remove_interest(own);
    guard.unlock();
    tell();
    loader.request_stop();
  }
};

/// As above, for a leader with options: its stop request withdraws its interest.
template <class Key, class Value, class Fn, class Tell = tell_nobody>
result<Value> lead(call_map<Key, Value>& home, call<Key, Value>& own, const call_options& options,
                   Fn&& fn, const Tell& tell = {}) {
  const on_stop<withdrawal<Key, Value, Tell>> withdraw(options, {home, own, tell});
  return detail::lead(home, own, std::forward<Fn>(fn));
}

}  // namespace singleflight::inline SINGLEFLIGHT_ABI::detail

#endif  // SINGLEFLIGHT_DETAIL_LEAD_HPP
