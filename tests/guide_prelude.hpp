// SPDX-License-Identifier: MIT
// The user's database, cache and thread pool, which the code of docs/guide.md assumes.
#ifndef SINGLEFLIGHT_TESTS_GUIDE_PRELUDE_HPP
#define SINGLEFLIGHT_TESTS_GUIDE_PRELUDE_HPP

#include <atomic>
#include <chrono>
#include <cstddef>
#include <functional>
#include <future>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <singleflight/group.hpp>
#include <stdexcept>
#include <stop_token>
#include <string>
#include <system_error>
#include <thread>
#include <utility>
#include <vector>

#include "thread_pool.hpp"

namespace guide {

using namespace std::chrono_literals;

struct template_details {
  std::string body;
  std::string base = {};  // the id of the template that this one extends
};

struct connection {
  bool open = true;
};

class database {
 public:
  std::atomic<int> loads = 0;
  std::atomic<int> failures_to_come = 0;
  std::atomic<bool> hangs = false;

  template_details load(const std::string& id, const std::stop_token& give_up = {}) {
    ++loads;
    while (hangs && !give_up.stop_requested()) std::this_thread::yield();
    if (give_up.stop_requested()) throw std::runtime_error("gave up");
    if (failures_to_come-- > 0) throw std::runtime_error("connection reset");
    const std::lock_guard lock(mutex_);
    return rows_.at(id);
  }

  std::vector<std::byte> load_image(const std::string& id) {
    return std::vector<std::byte>(id.size());
  }

  void store(const std::string& id, const template_details& details) {
    const std::lock_guard lock(mutex_);
    rows_[id] = details;
  }

 private:
  std::mutex mutex_;
  std::map<std::string, template_details> rows_;
};

/// A cache that is always cold.
struct cold_cache {
  static std::optional<template_details> find(const std::string&) { return std::nullopt; }
  static void erase(const std::string&) {}
};

inline database db;
inline cold_cache cache;
inline support::thread_pool pool(2);

}  // namespace guide

#endif  // SINGLEFLIGHT_TESTS_GUIDE_PRELUDE_HPP
