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
    template_details details = query(id);
    cache_.put(id, details, lifetime);
    return details;
  }

  /// Of the callers that miss the same id at the same time, one queries the database.
  template_details get_coalesced(template_id id) {
    if (auto hit = cache_.find(id)) return *hit;
    return flights_.do_call(id, [&](const singleflight::call_context& call) {
      // A group is no cache: once a call has ended, the next caller starts another. This caller may
      // have missed just before another call filled the cache, and have come here just after that
      // call ended. Without a second look-up it would load a value that is in the cache already.
      if (auto hit = cache_.find(id)) return *hit;
      template_details details = query(id);
      // A writer stores, forgets the key and then erases it. What was read before that must not stay.
      if (!call.forgotten()) {
        cache_.put(id, details, lifetime);
        if (call.forgotten()) cache_.erase(id);
      }
      return details;
    });
  }

 private:
  static constexpr std::chrono::seconds lifetime{30};

  template_details query(template_id id) {
    return database_.with_connection([&](store_connection& open) { return open.load(id); });
  }

  store_pool& database_;
  cache& cache_;
  singleflight::group<template_id, template_details> flights_;
};

}  // namespace stampede

#endif  // STAMPEDE_TEMPLATE_SERVICE_HPP
