// SPDX-License-Identifier: MIT
#ifndef SINGLEFLIGHT_DETAIL_CALL_HPP
#define SINGLEFLIGHT_DETAIL_CALL_HPP

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <future>
#include <memory>
#include <optional>
#include <thread>
#include <utility>

#include "config.hpp"
#include "keep_alive.hpp"
#include "stop.hpp"
#include "wait_graph.hpp"
#include "waiter_list.hpp"

namespace singleflight::inline SINGLEFLIGHT_ABI::detail {

template <class Key, class Value>
struct call;
template <class Key, class Value>
class call_map;
template <class Key, class Value>
class owned_call;

/// A reference to a call that stays valid after the call has ended: for followers that can leave or
/// are no threads, for waits in the wait graph, and for the caller that began a call elsewhere.
/// Never by the call's address, which may be another call's by the time they look.
template <class Key, class Value>
struct call_handle {
  call_map<Key, Value>* home = nullptr;     // the shard of the call; fixed
  owned_call<Key, Value>* owned = nullptr;  // the call, if it lives on the heap; fixed
  call<Key, Value>* running =
      nullptr;          // null after the call has ended; guarded by the shard's mutex
  bool joined = false;  // the final `call::joined()`; fixed when the result is published
  std::optional<waiter_list> waiters;  // made under the shard's mutex, before the call ends
  bool watched = false;  // whether the wait graph is shown who leads; by the shard's mutex
  // For asynchronous waiters; none if nobody has joined it. Made under the shard's mutex, then
  // fixed.
  std::shared_future<Value> future;
  bool lost = false;  // in a forked child: whoever leads the call is not in it
  wait_node node;
  block_ptr alive;  // keeps the shard for asynchronous waiters that leave; by the shard's mutex
};

/// What a caller holds of the call that it waits for.
template <class Key, class Value>
struct wait_ticket {
  std::shared_future<Value> future;
  std::shared_ptr<call_handle<Key, Value>> handle;  // null if it can only wait to the end
};

/// What a call and its future share.
template <class Value>
struct channel {
  std::promise<Value> promise;  // used only by the thread that ends the call, after it is unlisted
  std::shared_future<Value> future = promise.get_future().share();
};

/// What callers wait on. The first of them makes it, and the first that joins the channel, so that
/// a call that nobody joins costs no allocation: most calls end alone, and a promise takes two.
template <class Key, class Value>
struct shared_state {
  std::optional<detail::channel<Value>> channel;  // empty until a caller waits in it
  std::size_t waiters = 0;                        // callers that wait now
  /// Without a break; the epoch: nobody waits yet.
  std::chrono::steady_clock::time_point waiting_since;
  bool leader_waits = false;                        // the caller that began it, elsewhere
  bool joined = false;                              // whether any caller has followed
  bool handed_out = false;                          // whether any caller was given the future
  std::shared_ptr<call_handle<Key, Value>> handle;  // null until a caller needs it
};

/// One in-flight call. It lives in its leader's frame (on an executor: on the heap) from before it
/// is listed until after it has ended; others find it through the map and touch it only under the
/// shard's mutex. When the end of the call has released that mutex, the call is its leader's alone.
template <class Key, class Value>
struct call {
  template <class K>
  call(std::uint64_t key_hash, K&& k, std::thread::id who, stop_source source)
      : hash(key_hash), key(std::forward<K>(k)), leader(who), stop(std::move(source)) {}
  call(const call&) = delete;  // linked by address
  call& operator=(const call&) = delete;
  ~call() = default;

  /// Whether new callers can join: whether it is in the map.
  [[nodiscard]] bool listed() const noexcept { return in_map; }

  /// How many callers wait for it.
  [[nodiscard]] std::size_t waiters() const noexcept { return shared ? shared->waiters : 0; }

  /// Returns: since when there has been one of them without a break; `now` if there is none.
  [[nodiscard]] auto waiting_since(std::chrono::steady_clock::time_point now) const noexcept {
    const bool waits = shared && shared->waiting_since != std::chrono::steady_clock::time_point();
    return waits ? shared->waiting_since : now;
  }

  /// How many of them have joined it.
  [[nodiscard]] std::size_t followers() const noexcept {
    return shared ? shared->waiters - (shared->leader_waits ? 1 : 0) : 0;
  }

  /// Whether any caller has followed.
  [[nodiscard]] bool joined() const noexcept { return shared && shared->joined; }

  /// Whether a caller may wait for the result to be published.
  [[nodiscard]] bool handed_out() const noexcept { return shared && shared->handed_out; }

  const std::uint64_t hash;  // of the key; its high bits pick the bucket

  // Guarded by the shard's mutex.
  Key key;                 // the call's own: a loader may destroy its caller's; fixed until the end
  std::thread::id leader;  // no thread while an executor has it queued
  stop_source stop;        // fixed; asked to stop outside the mutex, through a copy
  std::chrono::steady_clock::time_point began;  // only if the group has a max_age; fixed
  call* next = nullptr;        // in the chain of its bucket or, not listed, of its shard
  call** link = nullptr;       // what points at this call in that chain
  std::size_t interested = 1;  // callers that still want the result, the one that began it included
  bool ended = false;
  bool in_map = false;
  std::optional<shared_state<Key, Value>> shared;  // empty until a caller waits
  std::uint64_t forgets_before;  // `call_map::forgets` when it began; only for a context; fixed
  const void* captured;  // by the observer, for who began it; or null; only if it captures; fixed
};

}  // namespace singleflight::inline SINGLEFLIGHT_ABI::detail

#endif  // SINGLEFLIGHT_DETAIL_CALL_HPP
