// SPDX-License-Identifier: MIT
#ifndef TEMPLATE_SERVICE_CACHE_HPP
#define TEMPLATE_SERVICE_CACHE_HPP

#include <atomic>
#include <chrono>
#include <cstdint>
#include <functional>
#include <optional>
#include <singleflight/fleet.hpp>

#include "template.hpp"

namespace template_service {

struct cache_stats {
  std::uint64_t hits = 0;
  std::uint64_t misses = 0;
  std::uint64_t unavailable = 0;  // lookups that the cache did not answer
  bool up = true;
  std::optional<singleflight::fleet_stats> fleet = {};  // what it has done across processes, if on
};

/// Keeps answers for a while. A cache that is down behaves like an empty one: no request fails.
class cache {
 public:
  cache() = default;
  cache(const cache&) = delete;
  cache& operator=(const cache&) = delete;
  virtual ~cache() = default;

  /// Returns: null if there is none.
  virtual details_json find(const template_key& key) = 0;
  virtual void put(const template_key& key, const details_json& details,
                   std::chrono::milliseconds lifetime) = 0;

  /// What one caller does for all that have missed: looks again, since it may have missed just
  /// before another filled the cache, and else loads and keeps what there is.
  virtual details_json find_or_load(const template_key& key, std::chrono::milliseconds lifetime,
                                    const std::function<details_json()>& load) {
    if (auto hit = find(key)) return hit;
    details_json details = load();
    if (details != nullptr) put(key, details, lifetime);
    return details;
  }

  [[nodiscard]] virtual cache_stats stats() const { return {.hits = hits_, .misses = misses_}; }

 protected:
  /// Counts the hit or miss. Returns: its argument.
  details_json counted(details_json found) noexcept {
    ++(found == nullptr ? misses_ : hits_);
    return found;
  }

 private:
  std::atomic<std::uint64_t> hits_ = 0;
  std::atomic<std::uint64_t> misses_ = 0;
};

}  // namespace template_service

#endif  // TEMPLATE_SERVICE_CACHE_HPP
