// SPDX-License-Identifier: MIT
#ifndef STAMPEDE_TEMPLATE_SERVICE_HPP
#define STAMPEDE_TEMPLATE_SERVICE_HPP

#include <chrono>
#include <singleflight/group.hpp>

#include "cache.hpp"
#include "template_store.hpp"

namespace stampede {

/// The core of this example: the same read-through cache, without and with singleflight.
class template_service {
 public:
  template_service(store_pool& database, cache& front) : database_(database), cache_(front) {}

  /// Every caller that misses queries the database, even if a hundred others do so for the same id.
  template_details get_alone(template_id id) {
    if (auto hit = cache_.find(id)) return *hit;
    return query(id);
  }

  /// Of the callers that miss the same id at the same time, one queries the database.
  template_details get_coalesced(template_id id) {
    if (auto hit = cache_.find(id)) return *hit;
    return flights_.do_call(id, [&] {
      // A group is no cache: once a call has ended, the next caller starts another. This caller may
      // have missed just before another call filled the cache, and have come here just after that
      // call ended. Without a second look-up it would load a value that is in the cache already.
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
