// SPDX-License-Identifier: MIT
#ifndef TEMPLATE_SERVICE_FLIGHT_OBSERVER_HPP
#define TEMPLATE_SERVICE_FLIGHT_OBSERVER_HPP

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <mutex>
#include <new>
#include <singleflight/prometheus.hpp>
#include <unordered_map>
#include <utility>
#include <vector>

#include "template.hpp"

namespace template_service {

/// Which keys requests have joined most often. It keeps a bounded number of keys: where there are
/// more, the one with the fewest joins gives its count to the newcomer, so that a count may be too high
/// by that, and no key that is frequent is missed (the Space-Saving algorithm).
class top_keys {
 public:
  using entry = std::pair<template_key, std::uint64_t>;

  void count(const template_key& key) noexcept {
    const std::lock_guard guard(mutex_);
    try {
      if (counts_.size() < most || counts_.contains(key)) {
        ++counts_[key];
        return;
      }
      const auto least =
          std::min_element(counts_.begin(), counts_.end(),
                           [](const auto& a, const auto& b) { return a.second < b.second; });
      const std::uint64_t inherited = least->second;
      counts_.erase(least);
      counts_[key] = inherited + 1;
    } catch (const std::bad_alloc&) {  // this join is not counted
    }
  }

  /// Returns: the keys with the most joins, most first.
  [[nodiscard]] std::vector<entry> first(std::size_t n) const {
    std::vector<entry> all;
    {
      const std::lock_guard guard(mutex_);
      all.assign(counts_.begin(), counts_.end());
    }
    n = std::min(n, all.size());
    std::partial_sort(all.begin(), all.begin() + static_cast<std::ptrdiff_t>(n), all.end(),
                      [](const entry& a, const entry& b) { return b.second < a.second; });
    all.resize(n);
    return all;
  }

 private:
  static constexpr std::size_t most = 1000;

  mutable std::mutex mutex_;
  std::unordered_map<template_key, std::uint64_t> counts_;  // guarded by mutex_
};

/// Histograms for `/metrics` and, where `/debug/flights` is served, the keys that are joined most.
class flight_observer : public singleflight::prometheus_observer {
 public:
  explicit flight_observer(bool count_joins = false)
      : joins_(count_joins ? std::make_unique<top_keys>() : nullptr) {}

  void joined(const template_key& key, const auto&) const noexcept {
    if (joins_ != nullptr) joins_->count(key);
  }

  [[nodiscard]] std::vector<top_keys::entry> most_joined(std::size_t n) const {
    return joins_ != nullptr ? joins_->first(n) : std::vector<top_keys::entry>();
  }

 private:
  std::unique_ptr<top_keys> joins_;
};

}  // namespace template_service

#endif  // TEMPLATE_SERVICE_FLIGHT_OBSERVER_HPP
