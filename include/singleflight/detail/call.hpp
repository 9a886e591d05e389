// SPDX-License-Identifier: MIT
#ifndef SINGLEFLIGHT_DETAIL_CALL_HPP
#define SINGLEFLIGHT_DETAIL_CALL_HPP

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <future>
#include <optional>
#include <thread>
#include <utility>

namespace singleflight::inline v1::detail {

/// What the followers of a call wait on. The first of them makes it, so that a call that nobody
/// joins costs no allocation: most calls end alone, and a promise takes two.
template <class Value>
struct shared_state {
  std::promise<Value> promise;  // used by the leader alone, after the call has left the map
  std::shared_future<Value> future = promise.get_future().share();
  std::chrono::steady_clock::time_point first_joined = std::chrono::steady_clock::now();
  std::size_t followers = 0;
};

/// One in-flight call. It lives in its leader's frame from before it is listed until after it has
/// ended; others find it through the map and touch it only under the shard's mutex. When the end of
/// the call has released that mutex, the call is the leader's alone.
template <class Key, class Value>
struct call {
  template <class K>
  call(std::uint64_t key_hash, K&& k)
      : hash(key_hash), key(std::forward<K>(k)), leader(std::this_thread::get_id()) {}
  call(const call&) = delete;  // linked by address
  call& operator=(const call&) = delete;
  ~call() = default;

  /// Whether new callers can join: in the map, that is.
  [[nodiscard]] bool listed() const noexcept { return link != nullptr; }

  const std::uint64_t hash;      // of the key, mixed
  const Key key;                 // the call's own: a loader may destroy its caller's
  const std::thread::id leader;  // to refuse a caller that would wait for itself

  // Guarded by the shard's mutex.
  call* next = nullptr;   // in the bucket's chain
  call** link = nullptr;  // what points at this call in that chain; null: not listed
  std::optional<shared_state<Value>> shared;  // empty until somebody joins
};

}  // namespace singleflight::inline v1::detail

#endif  // SINGLEFLIGHT_DETAIL_CALL_HPP
