// SPDX-License-Identifier: MIT
#ifndef SINGLEFLIGHT_DETAIL_LEAD_HPP
#define SINGLEFLIGHT_DETAIL_LEAD_HPP

#include <exception>
#include <system_error>
#include <thread>
#include <utility>

#include "../call_error.hpp"
#include "../stats.hpp"
#include "call.hpp"
#include "call_map.hpp"
#include "mutex.hpp"
#include "stop.hpp"
#include "wait_graph.hpp"

// What the leader of a call does, on whatever thread, always in this order: run the loader, unlist
// the call under the lock, publish outside it. Publishing first would hand an ended call to callers
// that enter in between; publishing under the lock would wake the followers into it.
namespace singleflight::inline v1::detail {

/// Returns: why a call has no result, where no exception says it.
[[nodiscard]] inline std::exception_ptr make_failure(std::errc code, const char* reason) noexcept {
  try {
    throw call_error(code, reason);
  } catch (...) {  // a bad_alloc if there is no memory for the text
    return std::current_exception();
  }
}

/// Returns: what the followers of a call are told that is left by an exception. Forced unwinding
/// (pthread_exit, cancellation) is no exception and has no exception_ptr.
[[nodiscard]] inline std::exception_ptr current_failure() noexcept {
  if (std::exception_ptr thrown = std::current_exception()) return thrown;
  return make_failure(std::errc::owner_dead,
                      "singleflight: the leader's thread ended before its call did");
}

/// Ends the call. Tell those who wait for it by `publish` or `publish_failure`.
template <class Key, class Value>
void end(call_map<Key, Value>& home, call<Key, Value>& own) noexcept {
  const lock guard(home.mutex);
  home.end(own);
}

/// Tells those who do not wait in the future that it is ready: stoppable followers and the wait
/// graph.
template <class Key, class Value>
void announce(call<Key, Value>& own) noexcept {
  call_handle<Key, Value>* const handle = own.shared->handle.get();
  if (handle == nullptr) return;
  if (handle->leader != std::thread::id()) the_wait_graph().set_leader(handle->leader, {});
  if (handle->stoppable) handle->stoppable->publish();
}

template <class Key, class Value>
void publish_failure(call<Key, Value>& own, std::exception_ptr why) {
  if (!own.shared) return;
  own.shared->promise.set_exception(std::move(why));
  detail::announce(own);
}

/// Ends the call without a value.
template <class Key, class Value>
void fail(call_map<Key, Value>& home, call<Key, Value>& own, std::exception_ptr why) {
  {
    const lock guard(home.mutex);
    home.count(&group_stats::failed);
    home.end(own);
  }
  detail::publish_failure(own, std::move(why));
}

/// Hands the value, if the call has one, to those who wait for an ended call.
/// Throws: what moving the value throws, and then so does everybody else's wait.
template <class Key, class Value, class... Result>
void publish(call_map<Key, Value>& home, call<Key, Value>& own, Result&&... value) {
  try {
    const leading here;  // the move is user code, and may wait
    own.shared->promise.set_value(std::forward<Result>(value)...);
  } catch (...) {
    {
      const lock guard(home.mutex);
      home.count(&group_stats::failed);
    }
    detail::publish_failure(own, current_failure());
    throw;
  }
  detail::announce(own);
}

/// Runs the loader. If it does not return, ends the call and tells those who wait for it why.
template <class Key, class Value, class Fn>
Value run(call_map<Key, Value>& home, call<Key, Value>& own, Fn&& fn) {
  try {
    const leading here;
    return static_cast<Value>(detail::run_loader(std::forward<Fn>(fn), own.stop));
  } catch (...) {
    detail::fail(home, own, current_failure());
    throw;  // in place: the forced unwinding of a thread that exits must go on
  }
}

}  // namespace singleflight::inline v1::detail

#endif  // SINGLEFLIGHT_DETAIL_LEAD_HPP
