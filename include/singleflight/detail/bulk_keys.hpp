// SPDX-License-Identifier: MIT
#ifndef SINGLEFLIGHT_DETAIL_BULK_KEYS_HPP
#define SINGLEFLIGHT_DETAIL_BULK_KEYS_HPP

#include <algorithm>
#include <atomic>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <thread>
#include <utility>

#include "../call_error.hpp"
#include "call.hpp"
#include "call_map.hpp"
#include "config.hpp"
#include "fixed_block.hpp"
#include "follow.hpp"
#include "hash.hpp"
#include "mutex.hpp"
#include "stop.hpp"

namespace singleflight::inline SINGLEFLIGHT_ABI::detail {

template <class Key, class Value>
class batch_call;

/// One of the keys that a caller asks for at once.
template <class Key, class Value>
struct bulk_key {
  template <class K>
  bulk_key(call_map<Key, Value>& shard, std::uint64_t hash, std::uint64_t place, K&& key,
           std::size_t position, std::thread::id caller)
      : home(shard),
        order(place),
        first(position),
        own(hash, std::forward<K>(key), caller, no_stop_source()) {}

  /// Notes which call its batch loads it by, on the heap.
  void is_loaded_by(const call<Key, Value>& c) noexcept SINGLEFLIGHT_REQUIRES(home.mutex) {
    handle = c.shared->handle;
    own.forgets_before = c.forgets_before;
  }

  /// Returns: that call, or null if it has ended.
  [[nodiscard]] call<Key, Value>* running() const noexcept SINGLEFLIGHT_REQUIRES(home.mutex) {
    return home.running(*handle);
  }

  /// Takes it out of a batch, unless it is in another by now: a later one may get that address.
  void leave(const void* batch) noexcept {
    in.compare_exchange_strong(batch, nullptr, std::memory_order_relaxed);
  }

  // Fixed once all keys have been read.
  call_map<Key, Value>& home;
  const std::uint64_t order;  // by shard, then by hash
  const std::size_t first;    // the position of its first mention
  bulk_key* next_in_bucket = nullptr;
  bool again = false;  // whether it was mentioned again

  std::atomic<const void*> in = nullptr;  // the batch that its call belongs to
  reason why;                             // it was refused, if it was
  bulk_key* next = nullptr;               // in the list that it is in
  bulk_key* next_ended;                   // of those that were ended in one critical section
  entry me;                               // of the caller
  std::shared_ptr<batch_call<Key, Value>> elsewhere;  // what it has begun on an executor
  std::shared_ptr<call_handle<Key, Value>> handle;    // of that; by the shard's mutex
  call<Key, Value> own;  // what this caller begins if nobody loads the key; has it in any case
};

/// A list of keys. Each key is in one list at most.
template <class Key, class Value>
class key_list {
 public:
  using key_type = bulk_key<Key, Value>;

  key_list() = default;
  key_list(const key_list&) = delete;  // it points into itself
  key_list& operator=(const key_list&) = delete;

  void push_back(key_type& k) noexcept {
    k.next = nullptr;
    *last_ = &k;
    last_ = &k.next;
    ++size_;
  }

  /// Returns: the first key, or null. Empties the list; the keys stay linked to each other.
  key_type* take() noexcept {
    last_ = &first_;
    size_ = 0;
    return std::exchange(first_, nullptr);
  }

  [[nodiscard]] key_type* first() const noexcept { return first_; }
  [[nodiscard]] std::size_t size() const noexcept { return size_; }

 private:
  key_type* first_ = nullptr;
  key_type** last_ = &first_;
  std::size_t size_ = 0;
};

/// The keys that a caller asks for at once: each once, in the order of their first mention. A hash
/// table with chains that are sorted, so that a walk through all of it visits one shard after the
/// other.
template <class Key, class Value>
class bulk_keys {
 public:
  using key_type = bulk_key<Key, Value>;
  using shard = call_map<Key, Value>;

  /// `shard_bits`: how many of the lowest bits of a hash pick the shard. Throws: `std::bad_alloc`.
  bulk_keys(std::size_t most, int shard_bits)
      : shard_bits_(shard_bits),
        bucket_count_(std::bit_ceil((std::max)(most, std::size_t{2}))),
        bucket_shift_(64 - std::countr_zero(bucket_count_)),
        buckets_(std::make_unique<key_type*[]>(bucket_count_)),
        keys_(most) {}

  /// Adds a key that is mentioned at this position, unless it is there.
  /// Throws: what the equality, copying the key and the allocation throw.
  template <class K, class KeyEqual>
  key_type& add(shard& home, std::uint64_t hash, K&& key, std::size_t position,
                std::thread::id caller, const KeyEqual& equal) {
    const std::uint64_t order = order_of(hash);
    key_type** const place = place_of(order);
    if (key_type* const known = find_from(*place, order, key, equal)) return *known;
    key_type& added = keys_.emplace_back(home, hash, order, std::forward<K>(key), position, caller);
    added.next_in_bucket = *place;
    return *(*place = &added);
  }

  /// Returns: the key, or null. Throws: what the equality throws.
  template <class KeyEqual>
  [[nodiscard]] key_type* find(std::uint64_t hash, const Key& key, const KeyEqual& equal) const {
    const std::uint64_t order = order_of(hash);
    return find_from(*place_of(order), order, key, equal);
  }

  /// As above, by the hash as the user's function gives it.
  template <class KeyEqual>
  [[nodiscard]] key_type* find_by_plain_hash(std::size_t hash, const Key& key,
                                             const KeyEqual& equal) const {
    return find(std::rotl(mix(hash), shard_bits_), key, equal);
  }

  /// Returns: the key after that one, by shard; null after the last. The first one is after null.
  [[nodiscard]] key_type* next_by_shard(const key_type* k) const noexcept {
    if (k != nullptr && k->next_in_bucket != nullptr) return k->next_in_bucket;
    const std::size_t next = k != nullptr ? bucket_of(k->order) + 1 : 0;
    key_type** const end = buckets_.get() + bucket_count_;
    key_type** const found = std::find_if(buckets_.get() + next, end,
                                          [](const key_type* first) { return first != nullptr; });
    return found != end ? *found : nullptr;
  }

  /// The keys in the order of their first mention.
  [[nodiscard]] fixed_block<key_type>& in_order() noexcept { return keys_; }

 private:
  /// The hash with the bits on top that pick the shard.
  [[nodiscard]] std::uint64_t order_of(std::uint64_t hash) const noexcept {
    return std::rotr(hash, shard_bits_);
  }

  [[nodiscard]] std::size_t bucket_of(std::uint64_t order) const noexcept {
    return static_cast<std::size_t>(order >> bucket_shift_);
  }

  /// Returns: what points at the first key that is not before that place.
  [[nodiscard]] key_type** place_of(std::uint64_t order) const noexcept {
    key_type** place = &buckets_[bucket_of(order)];
    while (*place != nullptr && (*place)->order < order) place = &(*place)->next_in_bucket;
    return place;
  }

  template <class K, class KeyEqual>
  [[nodiscard]] static key_type* find_from(key_type* k, std::uint64_t order, const K& key,
                                           const KeyEqual& equal) {
    while (k != nullptr && k->order == order && !equal(k->own.key, key)) k = k->next_in_bucket;
    return k != nullptr && k->order == order ? k : nullptr;
  }

  const int shard_bits_;
  const std::size_t bucket_count_;  // a power of two
  const int bucket_shift_;
  const std::unique_ptr<key_type*[]> buckets_;
  fixed_block<key_type> keys_;
};

}  // namespace singleflight::inline SINGLEFLIGHT_ABI::detail

#endif  // SINGLEFLIGHT_DETAIL_BULK_KEYS_HPP
