// SPDX-License-Identifier: MIT
// The user's database, cache and thread pool that the code of docs/guide.md calls.
#ifndef SINGLEFLIGHT_TESTS_GUIDE_PRELUDE_HPP
#define SINGLEFLIGHT_TESTS_GUIDE_PRELUDE_HPP

#include <atomic>
#include <chrono>
#include <cstddef>
#include <exception>
#include <functional>
#include <future>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <singleflight/group.hpp>
#include <singleflight/read_through.hpp>
#include <stdexcept>
#include <stop_token>
#include <string>
#include <string_view>
#include <system_error>
#include <thread>
#include <unordered_map>
#include <utility>
#include <vector>

#if __has_include(<boost/version.hpp>)
#include <boost/multi_index/hashed_index.hpp>
#include <boost/multi_index/key.hpp>
#include <boost/multi_index/sequenced_index.hpp>
#include <boost/multi_index_container.hpp>
#endif

#include "thread_pool.hpp"

namespace guide {

using namespace std::chrono_literals;

struct template_details {
  std::string body;
  std::string base = {};  // the id of the template that this one extends

  bool operator==(const template_details&) const = default;
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

  /// Returns: nothing if there is no such template.
  std::optional<template_details> find(const std::string& id) {
    ++loads;
    const std::lock_guard lock(mutex_);
    const auto row = rows_.find(id);
    return row == rows_.end() ? std::nullopt : std::optional(row->second);
  }

  /// By one query, those that exist.
  template <class Ids>
  std::map<std::string, template_details> load_many(const Ids& ids) {
    ++loads;
    std::map<std::string, template_details> found;
    const std::lock_guard lock(mutex_);
    for (const std::string& id : ids) {
      if (const auto row = rows_.find(id); row != rows_.end()) found.insert(*row);
    }
    return found;
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

/// A cache that holds nothing unless a test puts it there.
class small_cache {
 public:
  std::optional<template_details> find(const std::string& id) {
    const std::lock_guard lock(mutex_);
    const auto hit = rows_.find(id);
    return hit == rows_.end() ? std::nullopt : std::optional(hit->second);
  }
  void put(const std::string& id, const template_details& details, std::chrono::seconds) {
    const std::lock_guard lock(mutex_);
    rows_[id] = details;
  }
  void erase(const std::string& id) {
    const std::lock_guard lock(mutex_);
    rows_.erase(id);
  }

 private:
  std::mutex mutex_;
  std::map<std::string, template_details> rows_;
};

inline database db;
inline small_cache cache;
inline support::thread_pool pool(2);

}  // namespace guide

#endif  // SINGLEFLIGHT_TESTS_GUIDE_PRELUDE_HPP
