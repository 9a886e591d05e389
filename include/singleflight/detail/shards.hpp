// SPDX-License-Identifier: MIT
#ifndef SINGLEFLIGHT_DETAIL_SHARDS_HPP
#define SINGLEFLIGHT_DETAIL_SHARDS_HPP

#include <bit>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <new>
#include <span>

#include "call_map.hpp"
#include "config.hpp"
#include "executor_calls.hpp"
#include "fork.hpp"
#include "hash.hpp"

namespace singleflight::inline SINGLEFLIGHT_ABI::detail {

/// The shards of a group, and which of them a hash belongs to. They are in one block of memory with
/// what a fork needs to find them, and with the group's executor calls: a forked child may lack the
/// thread in whose frame the group itself is.
template <class Key, class Value>
class shards {
 public:
  using shard = call_map<Key, Value>;

  /// Makes that many, rounded up to a power of two. Throws: `std::bad_alloc`.
  explicit shards(std::size_t wanted)
      : bits_(static_cast<int>(std::bit_width(wanted - 1))),
        mask_((std::size_t{1} << bits_) - 1),
        first_(memory().allocate(1 + count()) + 1) {
    try {
      std::uninitialized_default_construct_n(first_, count());
    } catch (...) {
      memory().deallocate(first_ - 1, 1 + count());
      throw;
    }
    head_ = ::new (static_cast<void*>(first_ - 1)) head(all());
  }
  shards(const shards&) = delete;  // calls point into them
  shards& operator=(const shards&) = delete;
  ~shards() {
    if (kept_) return;
    head_->~head();
    std::destroy_n(first_, count());
    memory().deallocate(first_ - 1, 1 + count());
  }

  /// Keeps the shards after the end of this object, for calls that end later.
  void keep() noexcept { kept_ = true; }

  /// The shard of a key, and the key's hash within that shard, whose high bits pick the bucket.
  struct location {
    shard& home;
    std::uint64_t hash;
  };

  /// The high bits of the mixed hash pick the shard, the ones below them the bucket.
  [[nodiscard]] location locate(std::size_t hash) noexcept {
    const std::uint64_t mixed = std::rotl(mix(hash), bits_);
    return {first_[static_cast<std::size_t>(mixed) & mask_], mixed};
  }

  [[nodiscard]] std::span<shard> all() noexcept { return {first_, count()}; }
  [[nodiscard]] std::span<const shard> all() const noexcept { return {first_, count()}; }

  [[nodiscard]] executor_calls& on_executors() noexcept { return head_->on_executors; }

 private:
  using head = registered_group<Key, Value>;
  static_assert(sizeof(head) <= sizeof(shard));
  static_assert(alignof(head) <= alignof(shard));
  // Not new[]: g++ for 32-bit ARM does not align what that makes.
  using memory = std::allocator<shard>;

  [[nodiscard]] std::size_t count() const noexcept { return mask_ + 1; }

  const int bits_;  // of a hash that pick the shard
  const std::size_t mask_;
  bool kept_ = false;
  shard* const first_;  // behind the head of the block, which takes the room of a shard
  head* head_;
};

}  // namespace singleflight::inline SINGLEFLIGHT_ABI::detail

#endif  // SINGLEFLIGHT_DETAIL_SHARDS_HPP
