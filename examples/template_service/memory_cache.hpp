// SPDX-License-Identifier: MIT
#ifndef TEMPLATE_SERVICE_MEMORY_CACHE_HPP
#define TEMPLATE_SERVICE_MEMORY_CACHE_HPP

#include <chrono>
#include <mutex>
#include <optional>
#include <unordered_map>

#include "cache.hpp"
#include "template.hpp"

namespace template_service {

/// A cache of this process alone. What has expired goes when it is asked for or replaced.
class memory_cache final : public cache {
 public:
  cached_details find(const template_key& key) override { return counted(fresh(key)); }

  void put(const template_key& key, const details_json& details,
           std::chrono::milliseconds lifetime) override {
    const std::lock_guard lock(mutex_);
    entries_.insert_or_assign(key, entry{details, clock::now() + lifetime});
  }

  void erase(const template_key& key) override {
    const std::lock_guard lock(mutex_);
    entries_.erase(key);
  }

 private:
  using clock = std::chrono::steady_clock;

  struct entry {
    details_json details;
    clock::time_point expires;
  };

  cached_details fresh(const template_key& key) const {
    const std::lock_guard lock(mutex_);
    const auto found = entries_.find(key);
    if (found == entries_.end() || found->second.expires <= clock::now()) return std::nullopt;
    return found->second.details;
  }

  mutable std::mutex mutex_;
  std::unordered_map<template_key, entry> entries_;  // guarded by mutex_
};

}  // namespace template_service

#endif  // TEMPLATE_SERVICE_MEMORY_CACHE_HPP
