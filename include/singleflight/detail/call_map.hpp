// SPDX-License-Identifier: MIT
#ifndef SINGLEFLIGHT_DETAIL_CALL_MAP_HPP
#define SINGLEFLIGHT_DETAIL_CALL_MAP_HPP

#include <bit>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <new>
#include <thread>
#include <utility>

#include "../stats.hpp"
#include "call.hpp"
#include "mutex.hpp"
#include "spare_key.hpp"
#include "stop.hpp"
#include "wait_graph.hpp"

namespace singleflight::inline v1::detail {

/// Spreads what a hash has to tell over its high bits, from which shard and bucket are picked:
/// `std::hash<int>` is the identity. (Multiplicative hashing: Knuth, The Art of Computer
/// Programming, 6.4.)
[[nodiscard]] constexpr std::uint64_t mix(std::size_t hash) noexcept {
  return hash * std::uint64_t{0x9E37'79B9'7F4A'7C15};
}

/// What a caller that is going to wait for a call needs of it.
struct wait_needs {
  bool to_leave;       // by a deadline or the group's max_age
  bool to_be_stopped;  // by a stop request
  bool an_edge;        // in the wait graph
};

/// One shard of a group: the listed calls of some of its keys, its counters, and the mutex that
/// guards both. Also the one place that says what the beginning of a call, joining, leaving and its
/// end do to them.
///
/// A hash map with chained buckets whose nodes are the calls themselves, in their leaders' frames.
/// The alignment keeps shards off each other's cache lines.
template <class Key, class Value>
class alignas(64) call_map {
 public:
  using call_type = call<Key, Value>;
  using handle_type = call_handle<Key, Value>;
  using counter = std::uint64_t group_stats::*;

  mutable detail::mutex mutex;

  call_map() = default;
  call_map(const call_map&) = delete;  // calls point into it
  call_map& operator=(const call_map&) = delete;
  ~call_map() = default;

  /// Returns: the listed call for this key, or null. Throws: what the equality throws.
  template <class K, class KeyEqual>
  [[nodiscard]] call_type* find(std::uint64_t hash, const K& key, const KeyEqual& equal) const
      SINGLEFLIGHT_REQUIRES(mutex) {
    for (call_type* c = buckets_[hash >> shift_]; c != nullptr; c = c->next) {
      if (c->hash == hash && equal(c->key, key)) return c;
    }
    return nullptr;
  }

  void count(counter which) noexcept SINGLEFLIGHT_REQUIRES(mutex) { ++(stats_.*which); }

  /// Returns: what a new call's key is made of. Throws: what copying a key throws.
  template <class K>
  [[nodiscard]] decltype(auto) make_key(K&& key) SINGLEFLIGHT_REQUIRES(mutex) {
    return spare_key_.make(std::forward<K>(key));
  }

  /// Begins a call. `interested` are the callers that want its result without waiting for it.
  void begin(call_type& c, std::size_t interested) noexcept SINGLEFLIGHT_REQUIRES(mutex) {
    c.interested = interested;
    ++stats_.in_flight;
  }

  /// Lets new callers join the call. No other call for its key may be listed.
  void list(call_type& c) noexcept SINGLEFLIGHT_REQUIRES(mutex) {
    if (listed_ >= bucket_count_) grow();
    link(c, buckets_[c.hash >> shift_]);
    ++listed_;
  }

  /// Takes a listed call out of the map while it goes on; who waits for it stays with it.
  void unlist(call_type& c) noexcept SINGLEFLIGHT_REQUIRES(mutex) {
    *c.link = c.next;
    if (c.next != nullptr) c.next->link = c.link;
    c.link = nullptr;
    --listed_;
  }

  /// Takes a listed call out of the map because of its age.
  void supersede(call_type& c) noexcept SINGLEFLIGHT_REQUIRES(mutex) {
    unlist(c);
    count(&group_stats::superseded);
  }

  /// Makes what a caller needs that is going to wait for the call, and returns it.
  /// Throws: `std::bad_alloc`, and then nobody else notices.
  follower<Key, Value> prepare_wait(call_type& c, wait_needs needs) SINGLEFLIGHT_REQUIRES(mutex) {
    if (!c.shared) c.shared.emplace();
    std::shared_ptr<handle_type>& handle = c.shared->handle;
    if (handle == nullptr && (needs.to_leave || needs.to_be_stopped || needs.an_edge)) {
      handle = std::make_shared<handle_type>();
      handle->running = &c;
    }
    if (needs.to_be_stopped && !handle->stoppable) handle->stoppable.emplace();
    if (needs.an_edge) show_leader(c);
    return {c.shared->future, handle};
  }

  /// Shows the wait graph who leads the call, if anybody does.
  void show_leader(call_type& c) noexcept SINGLEFLIGHT_REQUIRES(mutex) {
    std::thread::id& shown = c.shared->handle->leader;
    if (shown != c.leader) the_wait_graph().set_leader(shown, c.leader);
  }

  /// Makes a prepared caller one of those that wait for the call.
  void wait(call_type& c) noexcept SINGLEFLIGHT_REQUIRES(mutex) {
    if (c.shared->waiters == 0) c.shared->waiting_since = std::chrono::steady_clock::now();
    ++c.shared->waiters;
    ++c.interested;
    ++stats_.waiting;
  }

  /// Takes back one caller's interest in a call that runs. If it was the last, unlists the call.
  /// Returns: whom to tell, once the mutex is released, that nobody wants the result any more.
  [[nodiscard]] stop_source lose_interest(call_type& c) noexcept SINGLEFLIGHT_REQUIRES(mutex) {
    if (--c.interested > 0) return stop_source_for<void()>();
    if (c.listed()) unlist(c);
    return c.stop;
  }

  /// Takes back one caller's wait for a call that runs. Returns: as `lose_interest`.
  [[nodiscard]] stop_source leave(call_type& c) noexcept SINGLEFLIGHT_REQUIRES(mutex) {
    --c.shared->waiters;
    --stats_.waiting;
    return lose_interest(c);
  }

  /// Takes a call out of the books, by identity: one that was forgotten or superseded leaves the
  /// newer call for its key alone. From here on nobody but the leader touches it.
  void end(call_type& c) noexcept SINGLEFLIGHT_REQUIRES(mutex) {
    if (c.listed()) unlist(c);
    spare_key_.keep(c.key);
    c.ended = true;
    --stats_.in_flight;
    if (!c.shared) return;
    stats_.waiting -= c.shared->waiters;
    if (handle_type* handle = c.shared->handle.get()) {
      handle->running = nullptr;
      handle->joined = c.shared->joined;
    }
  }

  [[nodiscard]] const group_stats& stats() const SINGLEFLIGHT_REQUIRES(mutex) { return stats_; }
  [[nodiscard]] std::size_t listed() const SINGLEFLIGHT_REQUIRES(mutex) { return listed_; }

  /// Calls `visit` with every listed call.
  template <class Visit>
  void for_each(const Visit& visit) const SINGLEFLIGHT_REQUIRES(mutex) {
    for (std::size_t i = 0; i < bucket_count_; ++i) {
      for (const call_type* c = buckets_[i]; c != nullptr; c = c->next) visit(*c);
    }
  }

 private:
  static constexpr std::size_t first_buckets = 8;

  static void link(call_type& c, call_type*& bucket) noexcept {
    c.next = bucket;
    if (bucket != nullptr) bucket->link = &c.next;
    c.link = &bucket;
    bucket = &c;
  }

  /// Doubles the buckets. Where there is no memory for that, chains get longer instead: a caller
  /// must not fail because of how many others there are.
  void grow() noexcept SINGLEFLIGHT_REQUIRES(mutex) {
    std::unique_ptr<call_type*[]> bigger(new (std::nothrow) call_type* [2 * bucket_count_] {});
    if (bigger == nullptr) return;
    for (std::size_t i = 0; i < bucket_count_; ++i) {
      for (call_type* c = buckets_[i]; c != nullptr;) {
        call_type* const next = c->next;
        link(*c, bigger[c->hash >> (shift_ - 1)]);
        c = next;
      }
    }
    buckets_ = std::move(bigger);
    bucket_count_ *= 2;
    --shift_;
  }

  std::unique_ptr<call_type* []> buckets_ SINGLEFLIGHT_GUARDED_BY(mutex) {
    new call_type* [first_buckets] {}
  };
  std::size_t bucket_count_ SINGLEFLIGHT_GUARDED_BY(mutex) = first_buckets;  // a power of two
  int shift_ SINGLEFLIGHT_GUARDED_BY(mutex) = 64 - std::countr_zero(first_buckets);
  std::size_t listed_ SINGLEFLIGHT_GUARDED_BY(mutex) = 0;
  group_stats stats_ SINGLEFLIGHT_GUARDED_BY(mutex);
  [[no_unique_address]] spare_key<Key> spare_key_ SINGLEFLIGHT_GUARDED_BY(mutex);
};

}  // namespace singleflight::inline v1::detail

#endif  // SINGLEFLIGHT_DETAIL_CALL_MAP_HPP
