// SPDX-License-Identifier: MIT
#ifndef SINGLEFLIGHT_DETAIL_SHARDS_HPP
#define SINGLEFLIGHT_DETAIL_SHARDS_HPP

#include <bit>
#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "call_map.hpp"
#include "config.hpp"
#include "hash.hpp"

namespace singleflight::inline SINGLEFLIGHT_ABI::detail {

/// The shards of a group, and which of them a hash belongs to.
template <class Key, class Value>
class shards {
 public:
  using shard = call_map<Key, Value>;

  /// Makes that many, rounded up to a power of two. Throws: `std::bad_alloc`.
  explicit shards(std::size_t wanted)
      : bits_(static_cast<unsigned>(std::bit_width(wanted - 1))),
        shift_(63 - bits_),
        all_(std::size_t{1} << bits_) {}
  shards(const shards&) = delete;  // calls point into them
  shards& operator=(const shards&) = delete;
  ~shards() {
    if (!kept_) all_.~vector();
  }

  /// Keeps the shards after the end of this object, for calls that end later.
  void keep() noexcept { kept_ = true; }

  /// The shard of a key, and the key's hash within that shard.
  struct location {
    shard& home;
    std::uint64_t hash;
  };

  /// The high bits of the mixed hash pick the shard, the ones below them the bucket. In two steps,
  /// since one shift by 64 would be undefined.
  [[nodiscard]] location locate(std::size_t hash) noexcept {
    const std::uint64_t mixed = mix(hash);
    return {all_[static_cast<std::size_t>(mixed >> 1 >> shift_)], mixed << bits_};
  }

  /// In memory of their own, not in this object.
  [[nodiscard]] std::span<shard> all() noexcept { return all_; }
  [[nodiscard]] std::span<const shard> all() const noexcept { return all_; }

 private:
  const unsigned bits_;
  const unsigned shift_;  // from the top bits, less one
  bool kept_ = false;
  union {
    std::vector<shard> all_;  // no new[]: g++ for 32-bit ARM does not align what that makes
  };
};

}  // namespace singleflight::inline SINGLEFLIGHT_ABI::detail

#endif  // SINGLEFLIGHT_DETAIL_SHARDS_HPP
