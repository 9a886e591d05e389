// SPDX-License-Identifier: MIT
#ifndef SINGLEFLIGHT_BENCH_ZIPF_HPP
#define SINGLEFLIGHT_BENCH_ZIPF_HPP

#include <cstddef>
#include <cstdint>
#include <random>
#include <vector>

#include "../examples/common/zipf.hpp"

namespace bench {

inline constexpr double zipf_skew = 0.99;

/// Returns: n keys below `keys`, drawn in advance, since to draw one costs more than a call.
inline std::vector<std::uint32_t> zipf_requests(std::size_t keys, std::size_t n,
                                                std::uint64_t seed) {
  const examples::zipf_distribution ids(keys, zipf_skew);
  std::mt19937_64 random(seed);
  std::vector<std::uint32_t> requests(n);
  for (std::uint32_t& each : requests) each = ids(random) - 1;
  return requests;
}

}  // namespace bench

#endif  // SINGLEFLIGHT_BENCH_ZIPF_HPP
