// SPDX-License-Identifier: MIT
#ifndef SINGLEFLIGHT_DETAIL_RANDOM_HPP
#define SINGLEFLIGHT_DETAIL_RANDOM_HPP

#include <chrono>
#include <cstdint>
#include <functional>
#include <random>

#include "config.hpp"

namespace singleflight::inline SINGLEFLIGHT_ABI::detail {

/// Random numbers for times that are to differ, which a lock or an exception would be too much for.
inline double random_between(double low, double high) {
  // Seeded without std::random_device, which may throw.
  thread_local std::minstd_rand generator(static_cast<std::minstd_rand::result_type>(
      std::hash<const void*>()(&generator) ^
      std::hash<std::int64_t>()(std::chrono::steady_clock::now().time_since_epoch().count())));
  return std::uniform_real_distribution<double>(low, high)(generator);
}

}  // namespace singleflight::inline SINGLEFLIGHT_ABI::detail

#endif  // SINGLEFLIGHT_DETAIL_RANDOM_HPP
