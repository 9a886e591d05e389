// SPDX-License-Identifier: MIT
#ifndef SINGLEFLIGHT_DETAIL_SHARDS_HPP
#define SINGLEFLIGHT_DETAIL_SHARDS_HPP

#include <bit>
#include <cstddef>
#include <cstdint>
#include <span>

#include "call_map.hpp"
#include "config.hpp"
#include "fork.hpp"
#include "hash.hpp"
#include "keep_alive.hpp"
#include "owned_calls.hpp"

namespace singleflight::inline SINGLEFLIGHT_ABI::detail {

/// The shards of a group, and which of them a hash belongs to. They are in one block of memory with
/// what a fork needs to find them, and with the group's owned calls: a forked child may lack the
/// thread in whose frame the group itself is.
template <class Key, class Value>
class shards {
 public:
  using shard = call_map<Key, Value>;

  /// Makes that many, rounded up to a power of two. Throws: `std::bad_alloc`.
  explicit shards(std::size_t wanted)
      : bits_(static_cast<int>(std::bit_width(wanted - 1))),
        mask_((std::size_t{1} << bits_) - 1),
        first_(block::make(mask_ + 1)),
        alive_(head()) {}
  shards(const shards&) = delete;  // calls point into them
  shards& operator=(const shards&) = delete;
  ~shards() { head().close(); }

  /// Keeps the shards after the end of this object, for calls that end later.
  void keep() noexcept { alive_.leak(); }

  /// Returns: what keeps the shards alive as long as it lives.
  [[nodiscard]] const block_ptr& alive() const noexcept { return alive_; }

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

  [[nodiscard]] owned_calls& owned() noexcept { return head().owned; }

 private:
  using block = registered_group<Key, Value>;

  [[nodiscard]] std::size_t count() const noexcept { return mask_ + 1; }
  [[nodiscard]] block& head() noexcept { return block::before(first_); }

  const int bits_;  // of a hash that pick the shard
  const std::size_t mask_;
  shard* const first_;  // behind the head of the block
  block_ptr alive_;
};

}  // namespace singleflight::inline SINGLEFLIGHT_ABI::detail

#endif  // SINGLEFLIGHT_DETAIL_SHARDS_HPP
