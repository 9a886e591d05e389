// SPDX-License-Identifier: MIT
#ifndef SINGLEFLIGHT_BENCH_ZIPF_HPP
#define SINGLEFLIGHT_BENCH_ZIPF_HPP

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <random>
#include <vector>

namespace bench {

inline constexpr double zipf_skew = 0.99;

/// Returns: n keys below `keys`, of which the k-th is drawn with a probability proportional to
/// 1 / k^skew. Drawn in advance, since to draw one costs more than a call.
inline std::vector<std::uint32_t> zipf_requests(std::size_t keys, std::size_t n,
                                                std::uint64_t seed) {
  std::vector<double> weights;
  weights.reserve(keys);
  for (std::size_t k = 1; k <= keys; ++k) {
    weights.push_back(std::pow(static_cast<double>(k), -zipf_skew));
  }
  std::discrete_distribution<std::uint32_t> key(weights.begin(), weights.end());
  std::mt19937_64 random(seed);
  std::vector<std::uint32_t> requests(n);
  for (std::uint32_t& each : requests) each = key(random);
  return requests;
}

}  // namespace bench

#endif  // SINGLEFLIGHT_BENCH_ZIPF_HPP
