// SPDX-License-Identifier: MIT
#ifndef EXAMPLES_ZIPF_HPP
#define EXAMPLES_ZIPF_HPP

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <random>
#include <vector>

namespace examples {

/// Draws ids from 1 to n. The id k is drawn with a probability proportional to 1 / k^skew: a few
/// ids get most of the requests.
class zipf_distribution {
 public:
  zipf_distribution(std::size_t n, double skew) : cumulative_(n) {
    double sum = 0;
    for (std::size_t k = 1; k <= n; ++k) {
      sum += std::pow(static_cast<double>(k), -skew);
      cumulative_[k - 1] = sum;
    }
  }

  std::uint32_t operator()(std::mt19937_64& random) const {
    // upper_bound is never the end: the number drawn is less than the last sum
    std::uniform_real_distribution<double> anywhere(0, cumulative_.back());
    const auto at = std::upper_bound(cumulative_.begin(), cumulative_.end() - 1, anywhere(random));
    return static_cast<std::uint32_t>(at - cumulative_.begin() + 1);
  }

  /// Returns: the share of all requests that the `k` most requested ids get.
  [[nodiscard]] double share_of_top(std::size_t k) const {
    return cumulative_[std::min(k, cumulative_.size()) - 1] / cumulative_.back();
  }

 private:
  std::vector<double> cumulative_;  // [k - 1]: the weight of the ids 1 to k
};

}  // namespace examples

#endif  // EXAMPLES_ZIPF_HPP
