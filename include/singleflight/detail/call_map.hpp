// SPDX-License-Identifier: MIT
#ifndef SINGLEFLIGHT_DETAIL_CALL_MAP_HPP
#define SINGLEFLIGHT_DETAIL_CALL_MAP_HPP

#include <cstddef>
#include <cstdint>
#include <future>
#include <memory>
#include <new>

#include "../stats.hpp"
#include "call.hpp"
#include "mutex.hpp"

namespace singleflight::inline v1::detail {

/// Spreads a hash over all 64 bits: `std::hash<int>` is the identity, and shard and bucket are
/// picked by different bits. (Multiplicative hashing: Knuth, The Art of Computer Programming, 6.4.)
[[nodiscard]] constexpr std::uint64_t mix(std::size_t hash) noexcept {
  const std::uint64_t product = hash * std::uint64_t{0x9E37'79B9'7F4A'7C15};
  return product ^ (product >> 32);
}

/// One shard of a group: the listed calls of some of its keys, its counters, and the mutex that
/// guards both. Also the one place that says what a call's beginning, joining and end do to them.
///
/// A hash map with chained buckets whose nodes are the calls themselves, in their leaders' frames.
/// The alignment keeps shards off each other's cache lines.
template <class Key, class Value>
class alignas(64) call_map {
 public:
  using call_type = call<Key, Value>;

  mutable detail::mutex mutex;

  call_map() = default;
  call_map(const call_map&) = delete;  // calls point into it
  call_map& operator=(const call_map&) = delete;
  ~call_map() = default;

  /// Returns: the listed call for this key, or null. Throws: what the equality throws.
  template <class K, class KeyEqual>
  [[nodiscard]] call_type* find(std::uint64_t hash, const K& key, const KeyEqual& equal) const
      SINGLEFLIGHT_REQUIRES(mutex) {
    for (call_type* c = buckets_[hash & mask_]; c != nullptr; c = c->next) {
      if (c->hash == hash && equal(c->key, key)) return c;
    }
    return nullptr;
  }

  /// Lists a call that its caller is going to run. No call for its key may be listed.
  void begin(call_type& c) noexcept SINGLEFLIGHT_REQUIRES(mutex) {
    if (listed_ > mask_) grow();
    link(c, buckets_[c.hash & mask_]);
    ++listed_;
    ++stats_.led;
    ++stats_.in_flight;
  }

  /// Makes the caller a follower. Returns: what to wait on. Throws: `std::bad_alloc` for the first
  /// follower, and then nothing has changed.
  [[nodiscard]] std::shared_future<Value> join(call_type& c) SINGLEFLIGHT_REQUIRES(mutex) {
    if (!c.shared) c.shared.emplace();
    ++c.shared->followers;
    ++stats_.joined;
    ++stats_.waiting;
    return c.shared->future;
  }

  /// Counts an entry that may neither lead nor join.
  void reject() noexcept SINGLEFLIGHT_REQUIRES(mutex) { ++stats_.rejected; }

  /// Takes a listed call out of the map while it goes on; its followers stay with it.
  void unlist(call_type& c) noexcept SINGLEFLIGHT_REQUIRES(mutex) {
    *c.link = c.next;
    if (c.next != nullptr) c.next->link = c.link;
    c.link = nullptr;
    --listed_;
  }

  /// Takes a call out of the books, by identity: a call that was forgotten leaves the newer call
  /// for its key alone. From here on nobody but the leader touches it.
  void end(call_type& c) noexcept SINGLEFLIGHT_REQUIRES(mutex) {
    if (c.listed()) unlist(c);
    if (c.shared) stats_.waiting -= c.shared->followers;
    --stats_.in_flight;
  }

  /// Counts a call that ended, or is about to end, without a value.
  void fail() noexcept SINGLEFLIGHT_REQUIRES(mutex) { ++stats_.failed; }

  [[nodiscard]] const group_stats& stats() const SINGLEFLIGHT_REQUIRES(mutex) { return stats_; }
  [[nodiscard]] std::size_t listed() const SINGLEFLIGHT_REQUIRES(mutex) { return listed_; }

  /// Calls `visit` with every listed call.
  template <class Visit>
  void for_each(const Visit& visit) const SINGLEFLIGHT_REQUIRES(mutex) {
    for (std::size_t i = 0; i <= mask_; ++i) {
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
    const std::size_t count = 2 * (mask_ + 1);
    std::unique_ptr<call_type*[]> buckets(new (std::nothrow) call_type* [count] {});
    if (buckets == nullptr) return;
    for (std::size_t i = 0; i <= mask_; ++i) {
      for (call_type* c = buckets_[i]; c != nullptr;) {
        call_type* const next = c->next;
        link(*c, buckets[c->hash & (count - 1)]);
        c = next;
      }
    }
    buckets_ = std::move(buckets);
    mask_ = count - 1;
  }

  std::unique_ptr<call_type* []> buckets_ SINGLEFLIGHT_GUARDED_BY(mutex) {
    new call_type* [first_buckets] {}
  };
  std::size_t mask_ SINGLEFLIGHT_GUARDED_BY(mutex) = first_buckets - 1;  // buckets, less one
  std::size_t listed_ SINGLEFLIGHT_GUARDED_BY(mutex) = 0;
  group_stats stats_ SINGLEFLIGHT_GUARDED_BY(mutex);
};

}  // namespace singleflight::inline v1::detail

#endif  // SINGLEFLIGHT_DETAIL_CALL_MAP_HPP
