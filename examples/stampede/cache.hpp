// SPDX-License-Identifier: MIT
#ifndef STAMPEDE_CACHE_HPP
#define STAMPEDE_CACHE_HPP

#include <chrono>
#include <mutex>
#include <optional>
#include <unordered_map>
#include <utility>

#include "template_store.hpp"

namespace stampede {

/// Takes the place of a cache server such as Redis, and of the network to it.
class cache {
 public:
  using clock = std::chrono::steady_clock;

  [[nodiscard]] std::optional<template_details> find(template_id id) const {
    const std::lock_guard lock(mutex_);
    if (cut_) return std::nullopt;
    const auto found = entries_.find(id);
    if (found == entries_.end() || found->second.expires <= clock::now()) return std::nullopt;
    return found->second.details;
  }

  void put(template_id id, template_details details, clock::duration lifetime) {
    const std::lock_guard lock(mutex_);
    if (cut_) return;
    entries_.insert_or_assign(id, entry{std::move(details), clock::now() + lifetime});
  }

  void erase(template_id id) {
    const std::lock_guard lock(mutex_);
    if (!cut_) entries_.erase(id);
  }

  /// Cuts the network: from now on every find misses, and every put is lost.
  void cut() {
    const std::lock_guard lock(mutex_);
    cut_ = true;
  }

 private:
  struct entry {
    template_details details;
    clock::time_point expires;
  };

  mutable std::mutex mutex_;
  std::unordered_map<template_id, entry> entries_;  // guarded by mutex_
  bool cut_ = false;                                // guarded by mutex_
};

}  // namespace stampede

#endif  // STAMPEDE_CACHE_HPP
