// SPDX-License-Identifier: MIT
#ifndef TEMPLATE_SERVICE_TEMPLATE_READER_HPP
#define TEMPLATE_SERVICE_TEMPLATE_READER_HPP

#include <chrono>
#include <cstddef>
#include <exception>
#include <functional>
#include <optional>
#include <singleflight/read_through.hpp>
#include <utility>
#include <vector>

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
        reads_(entries{front},
               {.lifetime = how.lifetime,
                .absent_lifetime = how.absent_lifetime,
                .jitter = how.jitter},
               {}, {.max_age = how.max_age}, {}, {}, flight_observer(how.count_joins)) {}

  /// Returns: null if there is no such template.
  /// Throws: `store_unavailable`; `singleflight::call_error` if another's query takes too long.
  details_json get(const template_key& key) {
    if (!how_.coalesce) return get_alone(key);
    const auto load = [&] {
      return cache_.load(key, lifetime(true), [&] { return loaded(store_.load(key)); });
    };
    return *reads_.get(key, call(), load);
  }

  /// The same for many keys: one query has all those that are in no cache and that nobody else loads.
  std::vector<details_json> get(const std::vector<template_key>& keys) {
    std::vector<details_json> all(keys.size());
    std::vector<template_key> missing;
    std::vector<std::size_t> positions;
    for (std::size_t i = 0; i < keys.size(); ++i) {
      if (const std::optional<entry> hit = find(keys[i])) {
        all[i] = *hit->value;
      } else {
        missing.push_back(keys[i]);
        positions.push_back(i);
      }
    }
    auto rows =
        reads_.flights().do_many(missing, {.call = call()}, [&](auto& batch) { load(batch); });
    for (std::size_t i = 0; i < rows.size(); ++i)
      all[positions[i]] = *std::move(rows[i]).value().value;
    return all;
  }

  /// Returns: what is read through, to be looked at, as its group is.
  [[nodiscard]] const auto& reads() const noexcept { return reads_; }
  [[nodiscard]] const auto& flights() const noexcept { return reads_.flights(); }

 private:
  using entry = singleflight::cache_entry<details_json>;

  /// The cache, as it is read through. That there is no template is an answer like any other, a null.
  struct entries {
    cache& front;

    std::optional<entry> find(const template_key& key) const {
      auto found = front.find(key);
      if (!found) return std::nullopt;
      constexpr auto end = std::chrono::system_clock::time_point::max();
      return entry{*std::move(found), end, end};  // the cache itself drops what is too old
    }
    void put(const template_key& key, const entry& e) const {
      const auto left = e.fresh_until - std::chrono::system_clock::now();
      front.put(key, *e.value, std::chrono::ceil<std::chrono::milliseconds>(left));
    }
    void erase(const template_key& key) const { front.erase(key); }
  };

  [[nodiscard]] singleflight::call_options call() const {
    return {.timeout = how_.deadline, .attempts = 2};  // counted from when the cache was asked
  }

  [[nodiscard]] std::chrono::milliseconds lifetime(bool exists) const {
    return exists ? how_.lifetime : how_.absent_lifetime;
  }

  [[nodiscard]] singleflight::keep<details_json> loaded(details_json details) const {
    const bool exists = details != nullptr;
    return {std::move(details), lifetime(exists)};
  }

  details_json get_alone(const template_key& key) {
    if (const std::optional<entry> hit = find(key)) return *hit->value;
    details_json details = store_.load(key);
    cache_.put(key, details, lifetime(details != nullptr));
    return details;
  }

  /// Returns: nothing also if the cache does not answer.
  [[nodiscard]] std::optional<entry> find(const template_key& key) {
    try {
      return reads_.cache().find(key);
    } catch (const std::exception&) {
      return std::nullopt;
    }
  }

  template <class Batch>
  void load(Batch& missing) {
    const std::vector<template_key> keys(missing.begin(), missing.end());
    const std::vector<details_json> found = store_.load(keys);
    for (std::size_t i = 0; i < keys.size(); ++i) {
      const auto until = std::chrono::system_clock::now() + lifetime(found[i] != nullptr);
      const entry made{found[i], until, until};
      if (!missing.forgotten(i)) {
        reads_.cache().put(keys[i], made);
        if (missing.forgotten(i)) reads_.cache().erase(keys[i]);
      }
      missing.set_at(i, made);
    }
  }

  const read_settings how_;
  cache& cache_;
  store& store_;
  singleflight::read_through<template_key, details_json, entries, singleflight::no_refresh,
                             std::hash<template_key>, std::equal_to<template_key>,
                             std::chrono::system_clock, flight_observer>
      reads_;
};

}  // namespace template_service

#endif  // TEMPLATE_SERVICE_TEMPLATE_READER_HPP
