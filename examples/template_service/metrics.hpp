// SPDX-License-Identifier: MIT
#ifndef TEMPLATE_SERVICE_METRICS_HPP
#define TEMPLATE_SERVICE_METRICS_HPP

#include <prometheus/collectable.h>
#include <prometheus/counter.h>
#include <prometheus/histogram.h>
#include <prometheus/registry.h>
#include <prometheus/text_serializer.h>

#include <chrono>
#include <singleflight/fleet.hpp>
#include <singleflight/prometheus.hpp>
#include <string>
#include <utility>
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
      : fleet_{front},
        cache_(front),
        store_(back),
        requests_(
            prometheus::BuildCounter()
                .Name("template_http_requests_total")
                .Help("Requests that were answered, by status; /healthz and /metrics left out.")
                .Register(registry_)),
        seconds_(
            prometheus::BuildHistogram()
                .Name("template_http_request_duration_seconds")
                .Help("Time to answer a request for template details.")
                .Register(registry_)
                .Add({}, prometheus::Histogram::BucketBoundaries{0.001, 0.0025, 0.005, 0.01, 0.025,
                                                                 0.05, 0.1, 0.25, 0.5, 1, 2.5})) {
    flights_.add("templates", reader.flights());
    flights_.add("templates", reader.reads());
    if (front.stats().fleet) flights_.add("templates", fleet_);
  }

  void count_request(int status) { requests_.Add({{"code", std::to_string(status)}}).Increment(); }
  void time_request(std::chrono::duration<double> took) { seconds_.Observe(took.count()); }

  /// Returns: everything, in Prometheus's text format.
  [[nodiscard]] std::string text() const {
    families all = registry_.Collect();
    for (auto& family : flights_.Collect()) all.push_back(std::move(family));
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

  void add_cache(families& all) const {
    const cache_stats now = cache_.stats();
    add(all, kind::Counter, "template_cache_hits_total", "Lookups that found an entry.", now.hits);
    add(all, kind::Counter, "template_cache_misses_total",
        "Lookups that found none; who begins a call looks twice.", now.misses);
    add(all, kind::Counter, "template_cache_unavailable_total",
        "Lookups that the cache did not answer.", now.unavailable);
    add(all, kind::Gauge, "template_cache_up", "1 while the cache answers, else 0.",
        now.up ? 1 : 0);
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

  /// What the cache does across processes, if it does.
  struct fleet_of {
    const cache& front;
    [[nodiscard]] singleflight::fleet_stats stats() const {
      return front.stats().fleet.value_or(singleflight::fleet_stats());
    }
  };

  const fleet_of fleet_;
  singleflight::prometheus_collector flights_;
  const cache& cache_;
  const store& store_;
  prometheus::Registry registry_;
  prometheus::Family<prometheus::Counter>& requests_;
  prometheus::Histogram& seconds_;
};

}  // namespace template_service

#endif  // TEMPLATE_SERVICE_METRICS_HPP
