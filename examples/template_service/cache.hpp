// SPDX-License-Identifier: MIT
#ifndef TEMPLATE_SERVICE_CACHE_HPP
#define TEMPLATE_SERVICE_CACHE_HPP

#include <atomic>
#include <chrono>
#include <cstdint>
#include <functional>
#include <optional>
#include <singleflight/fleet.hpp>
#include <singleflight/keep.hpp>
#include <utility>

#include "template.hpp"

namespace template_service {

struct cache_stats {
  std::uint64_t hits = 0;
  std::uint64_t misses = 0;
  std::uint64_t unavailable = 0;  // lookups that the cache did not answer
  bool up = true;
  std::optional<singleflight::fleet_stats> fleet = {};  // what it has done across processes, if on
};

/// What is in the cache: the answer, which is null if it was found that there is no such template. It
/// drops out by itself, so to those who read it is fresh.
using cached_details = std::optional<details_json>;

/// Keeps answers for a while. A cache that is down behaves like an empty one: no request fails.
class cache {
 public:
  cache() = default;
  cache(const cache&) = delete;
  cache& operator=(const cache&) = delete;
  virtual ~cache() = default;

  /// Returns: nothing if the cache does not have it.
  virtual cached_details find(const template_key& key) = 0;
  virtual void put(const template_key& key, const details_json& details,
                   std::chrono::milliseconds lifetime) = 0;
  virtual void erase(const template_key& key) = 0;

  /// Runs `load`, which returns an answer and its lifetime, for all processes, where the cache has them
  /// share it, and then keeps the answer itself.
  /// Returns: the answer, and how long this process is to keep it.
  virtual singleflight::keep<details_json> load(
      const template_key&, std::chrono::milliseconds /*lifetime*/,
      const std::function<singleflight::keep<details_json>()>& load) {
    return load();
  }

  [[nodiscard]] virtual cache_stats stats() const { return {.hits = hits_, .misses = misses_}; }

 protected:
  /// Counts the hit or miss. Returns: its argument.
  cached_details counted(cached_details found) noexcept {
    ++(found ? hits_ : misses_);
    return found;
  }

 private:
  std::atomic<std::uint64_t> hits_ = 0;
  std::atomic<std::uint64_t> misses_ = 0;
};

}  // namespace template_service

#endif  // TEMPLATE_SERVICE_CACHE_HPP
