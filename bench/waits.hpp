// SPDX-License-Identifier: MIT
#ifndef SINGLEFLIGHT_BENCH_WAITS_HPP
#define SINGLEFLIGHT_BENCH_WAITS_HPP

#include <algorithm>
#include <array>
#include <bit>
#include <chrono>
#include <cstddef>
#include <cstdint>

namespace bench {

/// A histogram of waits, to within 2 %: 64 counters for each power of two of nanoseconds, so that
/// adding one is cheap and never allocates.
class waits {
 public:
  void add(std::chrono::nanoseconds wait) {
    const auto ns = static_cast<std::uint64_t>(std::max<std::int64_t>(wait.count(), 0));
    ++counts_.at(slot(ns));
    ++total_;
  }

  waits& operator+=(const waits& other) {
    for (std::size_t i = 0; i < slots; ++i) counts_.at(i) += other.counts_.at(i);
    total_ += other.total_;
    return *this;
  }

  /// Returns: the wait in microseconds that this share of all did not exceed.
  [[nodiscard]] double quantile(double share) const {
    const double wanted = share * static_cast<double>(total_);
    std::uint64_t seen = 0;
    for (std::size_t i = 0; i < slots; ++i) {
      seen += counts_.at(i);
      if (counts_.at(i) > 0 && static_cast<double>(seen) >= wanted) return microseconds(i);
    }
    return 0;
  }

 private:
  static constexpr std::size_t bits = 6;
  static constexpr std::size_t per_power = std::size_t{1} << bits;
  static constexpr std::size_t slots = 36 * per_power;  // up to two minutes

  static std::size_t slot(std::uint64_t ns) {
    if (ns < per_power) return static_cast<std::size_t>(ns);
    const std::size_t shift = static_cast<std::size_t>(std::bit_width(ns)) - 1 - bits;
    return std::min(shift * per_power + static_cast<std::size_t>(ns >> shift), slots - 1);
  }

  static double microseconds(std::size_t slot) {
    if (slot < per_power) return static_cast<double>(slot) / 1000;
    const std::size_t shift = slot / per_power - 1;
    return static_cast<double>((slot - shift * per_power) << shift) / 1000;
  }

  std::array<std::uint64_t, slots> counts_{};
  std::uint64_t total_ = 0;
};

}  // namespace bench

#endif  // SINGLEFLIGHT_BENCH_WAITS_HPP
