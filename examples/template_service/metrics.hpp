// SPDX-License-Identifier: MIT
#ifndef TEMPLATE_SERVICE_METRICS_HPP
#define TEMPLATE_SERVICE_METRICS_HPP

#include <prometheus/collectable.h>
#include <prometheus/counter.h>
#include <prometheus/histogram.h>
#include <prometheus/registry.h>
#include <prometheus/text_serializer.h>

#include <algorithm>
#include <chrono>
#include <singleflight/fleet.hpp>
#include <singleflight/stats.hpp>
#include <string>
#include <vector>

#include "../common/connection_pool.hpp"
#include "cache.hpp"
#include "store.hpp"
#include "template_reader.hpp"

namespace template_service {

/// The metrics of `/metrics`. Counters of the other parts are read at each request.
class metrics {
 public:
  metrics(const template_reader& reader, const cache& front, const store& back)
      : reader_(reader),
        cache_(front),
        store_(back),
        requests_(
            prometheus::BuildCounter()
                .Name("template_http_requests_total")
                .Help("Requests that were answered, by status; /healthz and /metrics left out.")
                .Register(registry_)),
        seconds_(
            prometheus::BuildHistogram()
                .Name("template_http_request_seconds")
                .Help("Time to answer a request for template details.")
                .Register(registry_)
                .Add({}, prometheus::Histogram::BucketBoundaries{0.001, 0.0025, 0.005, 0.01, 0.025,
                                                                 0.05, 0.1, 0.25, 0.5, 1, 2.5})) {}

  void count_request(int status) { requests_.Add({{"code", std::to_string(status)}}).Increment(); }
  void time_request(std::chrono::duration<double> took) { seconds_.Observe(took.count()); }

  /// Returns: everything, in Prometheus's text format.
  [[nodiscard]] std::string text() const {
    families all = registry_.Collect();
    add_group(all);
    add_cache(all);
    add_store(all);
    return prometheus::TextSerializer().Serialize(all);
  }

 private:
  using families = std::vector<prometheus::MetricFamily>;
  using kind = prometheus::MetricType;

  static prometheus::ClientMetric metric(kind type, double value) {
    prometheus::ClientMetric made;
    if (type == kind::Counter) made.counter.value = value;
    if (type == kind::Gauge) made.gauge.value = value;
    return made;
  }

  template <class Number>
  static void add(families& all, kind type, const char* name, const char* help, Number value) {
    all.push_back({name, help, type, {metric(type, static_cast<double>(value))}});
  }

  void add_group(families& all) const {
    const singleflight::group_stats now = reader_.stats();
    const auto led = static_cast<double>(now.led);
    const double entries = led + static_cast<double>(now.joined);
    add(all, kind::Counter, "singleflight_requests_total",
        "Requests that missed the cache and came to the group.",
        now.led + now.joined + now.rejected);
    add(all, kind::Counter, "singleflight_led_total", "Requests that began a call.", now.led);
    add(all, kind::Counter, "singleflight_joined_total",
        "Requests that joined a call of another request.", now.joined);
    add(all, kind::Gauge, "singleflight_dedup_ratio",
        "Requests answered by one call on average, since the start.", entries / std::max(1.0, led));
    add(all, kind::Counter, "singleflight_failed_total", "Calls that ended without a value.",
        now.failed);
    add(all, kind::Counter, "singleflight_timed_out_total",
        "Requests that did not wait for a call beyond their deadline.", now.timed_out);
    add(all, kind::Counter, "singleflight_cancelled_total",
        "Requests that left at their stop request.", now.cancelled);
    add(all, kind::Counter, "singleflight_rejected_total",
        "Requests that could neither begin nor join a call.", now.rejected);
    add(all, kind::Counter, "singleflight_batches_total", "Queries for several templates at once.",
        now.batches);
    add(all, kind::Counter, "singleflight_superseded_total",
        "Calls that grew too old for others to wait for them.", now.superseded);
    add(all, kind::Gauge, "singleflight_in_flight", "Calls begun and not ended.", now.in_flight);
    add(all, kind::Gauge, "singleflight_waiting", "Requests that wait for another's call.",
        now.waiting);
  }

  void add_cache(families& all) const {
    const cache_stats now = cache_.stats();
    add(all, kind::Counter, "template_cache_hits_total", "Lookups that found an entry.", now.hits);
    add(all, kind::Counter, "template_cache_misses_total",
        "Lookups that found none; who begins a call looks twice.", now.misses);
    add(all, kind::Counter, "template_cache_unavailable_total",
        "Lookups that the cache did not answer.", now.unavailable);
    add(all, kind::Gauge, "template_cache_up", "1 while the cache answers, else 0.",
        now.up ? 1 : 0);
    if (now.fleet) add_fleet(all, *now.fleet);
  }

  /// Of the callers that came to the group, those that began a call: what became of them.
  static void add_fleet(families& all, const singleflight::fleet_stats& now) {
    add(all, kind::Counter, "singleflight_fleet_entries_total",
        "Calls that looked for another process.", now.entries());
    add(all, kind::Counter, "singleflight_fleet_hits_total",
        "Found the value in the cache at once.", now.hits);
    add(all, kind::Counter, "singleflight_fleet_led_total", "Ran the loader for all processes.",
        now.led);
    add(all, kind::Counter, "singleflight_fleet_followed_total",
        "Waited for another process, and found its value in the cache.", now.followed);
    add(all, kind::Counter, "singleflight_fleet_handed_over_total",
        "Waited for another process, and got its value directly.", now.handed_over);
    add(all, kind::Counter, "singleflight_fleet_taken_over_total",
        "Waited for a process that failed, then ran the loader for all.", now.taken_over);
    add(all, kind::Counter, "singleflight_fleet_alone_total",
        "Ran the loader without a lease, having waited long enough.", now.alone);
    add(all, kind::Counter, "singleflight_fleet_refused_total",
        "Ran the loader without a lease, which the cache refused.", now.refused);
    add(all, kind::Counter, "singleflight_fleet_unreachable_total",
        "Ran the loader without a lease: no answer from the cache.", now.unreachable);
    add(all, kind::Counter, "singleflight_fleet_lost_fills_total",
        "Results that were to be stored and were not.", now.lost_fills);
    add(all, kind::Gauge, "singleflight_fleet_waiting", "Calls that wait for another process.",
        now.waiting);
  }

  void add_store(families& all) const {
    const store_stats now = store_.stats();
    const examples::pool_stats pool = store_.connections();
    add(all, kind::Counter, "template_store_queries_total", "Queries that the store answered.",
        now.answered);
    add(all, kind::Counter, "template_store_failures_total",
        "Queries that the store did not answer, also for want of a connection.", now.failed);
    add(all, kind::Counter, "template_store_query_seconds_total",
        "Time that the answered queries took, waiting for a connection included.", now.seconds);
    add(all, kind::Gauge, "template_store_connections_in_use", "Connections that work.",
        pool.in_use);
    add(all, kind::Gauge, "template_store_connections_waited_for",
        "Queries that wait for a connection.", pool.waiting);
    add(all, kind::Counter, "template_store_connections_opened_total", "Connections opened.",
        pool.opened);
    add(all, kind::Counter, "template_store_pool_exhausted_total",
        "Queries given up because every connection was in use.", pool.exhausted);
  }

  const template_reader& reader_;
  const cache& cache_;
  const store& store_;
  prometheus::Registry registry_;
  prometheus::Family<prometheus::Counter>& requests_;
  prometheus::Histogram& seconds_;
};

}  // namespace template_service

#endif  // TEMPLATE_SERVICE_METRICS_HPP
