// SPDX-License-Identifier: MIT
#ifndef STAMPEDE_TEMPLATE_SERVICE_HPP
#define STAMPEDE_TEMPLATE_SERVICE_HPP

#include <chrono>
#include <singleflight/group.hpp>

#include "cache.hpp"
#include "template_store.hpp"

namespace stampede {

/// What this example is about: the same read-through cache, without and with singleflight.
class template_service {
 public:
  template_service(store_pool& database, cache& front) : database_(database), cache_(front) {}

  /// Whoever misses queries the database, also when a hundred others do so for the same id.
  template_details get_alone(template_id id) {
    if (auto hit = cache_.find(id)) return *hit;
    return query(id);
  }

  /// Of those who miss at the same time for the same id, one queries the database.
  template_details get_coalesced(template_id id) {
    if (auto hit = cache_.find(id)) return *hit;
    return flights_.do_call(id, [&] {
      // A group is no cache: once a call has ended, the next caller starts another. This caller may
      // have missed just before a call ended that filled the cache, and have come here just after.
      // Without a second look it would load again what has been in the cache for a microsecond.
      if (auto hit = cache_.find(id)) return *hit;
      return query(id);
    });
  }

 private:
  template_details query(template_id id) {
    using namespace std::chrono_literals;
    template_details details =
        database_.with_connection([&](store_connection& open) { return open.load(id); });
    cache_.put(id, details, 30s);
    return details;
  }

  store_pool& database_;
  cache& cache_;
  singleflight::group<template_id, template_details> flights_;
};

}  // namespace stampede

#endif  // STAMPEDE_TEMPLATE_SERVICE_HPP
