// SPDX-License-Identifier: MIT
#ifndef TEMPLATE_SERVICE_TEMPLATE_READER_HPP
#define TEMPLATE_SERVICE_TEMPLATE_READER_HPP

#include <chrono>
#include <functional>
#include <random>
#include <singleflight/group.hpp>

#include "cache.hpp"
#include "flight_observer.hpp"
#include "settings.hpp"
#include "store.hpp"
#include "template.hpp"

namespace template_service {

/// The core of this example: it reads through the cache, and of the callers that miss the same key
/// at the same time, one queries the store.
class template_reader {
 public:
  template_reader(const read_settings& how, cache& front, store& back)
      : how_(how),
        cache_(front),
        store_(back),
        flights_({.max_age = how.max_age}, {}, {}, flight_observer(how.count_joins)) {}

  /// Returns: null if there is no such template.
  /// Throws: `store_unavailable`; `singleflight::call_error` if another's query takes too long.
  details_json get(const template_key& key) {
    if (auto hit = cache_.find(key)) return hit;
    if (!how_.coalesce) return load(key);
    const auto deadline = std::chrono::steady_clock::now() + how_.deadline;
    return flights_.do_call(key, {.deadline = deadline, .attempts = 2}, [&] {
      return cache_.find_or_load(key, jittered(how_.lifetime), [&] { return store_.load(key); });
    });
  }

  using group = singleflight::group<template_key, details_json, std::hash<template_key>,
                                    std::equal_to<template_key>, flight_observer>;
  /// Returns: the group, to be looked at.
  [[nodiscard]] const group& flights() const noexcept { return flights_; }

 private:
  details_json load(const template_key& key) {
    details_json details = store_.load(key);
    if (details != nullptr) cache_.put(key, details, jittered(how_.lifetime));
    return details;
  }

  /// Entries that were made together must not all expire together.
  [[nodiscard]] std::chrono::milliseconds jittered(std::chrono::milliseconds lifetime) const {
    thread_local std::minstd_rand random{std::random_device{}()};
    std::uniform_real_distribution<double> factor(1 - how_.jitter, 1 + how_.jitter);
    return std::chrono::milliseconds(
        static_cast<std::int64_t>(static_cast<double>(lifetime.count()) * factor(random)));
  }

  const read_settings how_;
  cache& cache_;
  store& store_;
  group flights_;
};

}  // namespace template_service

#endif  // TEMPLATE_SERVICE_TEMPLATE_READER_HPP
