// SPDX-License-Identifier: MIT
#ifndef SINGLEFLIGHT_PROMETHEUS_HPP
#define SINGLEFLIGHT_PROMETHEUS_HPP

#include <prometheus/client_metric.h>
#include <prometheus/collectable.h>
#include <prometheus/metric_family.h>
#include <prometheus/metric_type.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <limits>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "detail/config.hpp"
#include "detail/mutex.hpp"
#include "observer.hpp"

// Metrics for prometheus-cpp (https://github.com/jupp0r/prometheus-cpp). Needs its headers and its
// `core` library:
//
//     singleflight::group<std::string, row, std::hash<std::string>, std::equal_to<std::string>,
//                         singleflight::prometheus_observer> flights;      // for the histograms
//     auto metrics = std::make_shared<singleflight::prometheus_collector>();
//     metrics->add("templates", flights);
//     exposer.RegisterCollectable(metrics);
namespace singleflight::inline SINGLEFLIGHT_ABI {

namespace detail {

/// A histogram of durations that many threads add to without a lock. Each thread adds to one of
/// some stripes, which are added up when they are read.
class duration_histogram {
 public:
  using duration = std::chrono::steady_clock::duration;

  static constexpr std::array<double, 13> bounds = {0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05,
                                                    0.1,    0.25,  0.5,    1,     2.5,  10};

  void add(duration took) noexcept {
    const auto ns = std::chrono::duration_cast<std::chrono::nanoseconds>(took).count();
    stripe& mine = stripes_[stripe_of_this_thread()];
    mine.in[bucket_of(ns)].fetch_add(1, std::memory_order_relaxed);
    mine.sum.fetch_add(static_cast<std::uint64_t>(ns), std::memory_order_relaxed);
  }

  /// Returns: what has been added, each part read at some time during the call.
  [[nodiscard]] prometheus::ClientMetric::Histogram read() const {
    prometheus::ClientMetric::Histogram all;
    std::uint64_t sum = 0;
    for (const stripe& s : stripes_) sum += s.sum.load(std::memory_order_relaxed);
    for (std::size_t b = 0; b < bucket_count; ++b) {
      for (const stripe& s : stripes_) all.sample_count += s.in[b].load(std::memory_order_relaxed);
      all.bucket.push_back({all.sample_count, b < bounds.size()
                                                  ? bounds[b]
                                                  : std::numeric_limits<double>::infinity()});
    }
    all.sample_sum = static_cast<double>(sum) / 1e9;
    return all;
  }

 private:
  static constexpr std::size_t bucket_count = bounds.size() + 1;
  static constexpr std::size_t stripe_count = 16;

  struct alignas(64) stripe {
    std::array<std::atomic<std::uint64_t>, bucket_count> in{};
    std::atomic<std::uint64_t> sum{0};  // nanoseconds
  };

  [[nodiscard]] static std::size_t bucket_of(std::int64_t ns) noexcept {
    const auto in_ns = [](double bound, std::int64_t value) {
      return bound * 1e9 < static_cast<double>(value);
    };
    return static_cast<std::size_t>(std::lower_bound(bounds.begin(), bounds.end(), ns, in_ns) -
                                    bounds.begin());
  }

  [[nodiscard]] static std::size_t stripe_of_this_thread() noexcept {
    static std::atomic<std::size_t> threads{0};
    static thread_local const std::size_t mine =
        threads.fetch_add(1, std::memory_order_relaxed) % stripe_count;
    return mine;
  }

  std::array<stripe, stripe_count> stripes_;
};

}  // namespace detail

/// The observer of a group that has histograms of its loads and waits. An observer that wants more
/// derives from it.
class prometheus_observer {
 public:
  using histogram = prometheus::ClientMetric::Histogram;  ///< In seconds.

  prometheus_observer() : data_(std::make_unique<data>()) {}

  /// Adds to `loads`.
  void call_ended(const auto& e) const noexcept { data_->loads[index(e.how)].add(e.took); }
  /// Adds to `waits`.
  void wait_ended(const auto& e) const noexcept { data_->waits[index(e.how)].add(e.waited); }
  /// Adds to `waits`, unless the caller had begun the call.
  void left(const auto& e) const noexcept {
    if (!e.began) data_->left[index(e.why)].add(e.waited);
  }

  /// Returns: how long loaders took that ended so.
  [[nodiscard]] histogram loads(ending how) const { return data_->loads[index(how)].read(); }
  /// Returns: how long callers waited that got such a result.
  [[nodiscard]] histogram waits(ending how) const { return data_->waits[index(how)].read(); }
  /// Returns: how long callers waited that left for this reason.
  [[nodiscard]] histogram waits(leaving why) const { return data_->left[index(why)].read(); }

 private:
  struct data {
    std::array<detail::duration_histogram, 2> loads, waits;
    std::array<detail::duration_histogram, 5> left;
  };

  template <class Enum>
  [[nodiscard]] static constexpr std::size_t index(Enum e) noexcept {
    return static_cast<std::size_t>(e);
  }

  std::unique_ptr<data> data_;
};

/// What prometheus-cpp collects of any number of groups, fleets and read-throughs: whatever has the
/// `stats()` of one of these. All metrics have the label `group`, which is the name that it was
/// registered by.
///
/// Thread safety: all members may be called at once from any thread.
class prometheus_collector final : public prometheus::Collectable {
 public:
  /// Adds something to be looked at each time that metrics are collected.
  /// Lifetime: it must outlive this, or be removed first. Names must differ among things of one
  ///   kind.
  template <class Source>
  void add(std::string name, const Source& source) {
    const detail::lock guard(mutex_);
    sources_.push_back({std::move(name), &source, [&source](report& to) {
                          const auto now = source.stats();
                          if constexpr (requires { now.superseded; }) {
                            add_group(to, source, now);
                          } else if constexpr (requires { now.handed_over; }) {
                            add_fleet(to, now);
                          } else {
                            add_reads(to, now);
                          }
                        }});
  }

  /// Looks at this no more.
  template <class Source>
  void remove(const Source& source) {
    const detail::lock guard(mutex_);
    std::erase_if(sources_, [&](const one& s) { return s.source == &source; });
  }

  /// Returns: the metrics of all that was added.
  [[nodiscard]] std::vector<prometheus::MetricFamily> Collect() const override {
    report all;
    const detail::lock guard(mutex_);
    for (const one& s : sources_) {
      all.group = &s.name;
      s.add(all);
    }
    return std::move(all.families);
  }

 private:
  using kind = prometheus::MetricType;
  using label = prometheus::ClientMetric::Label;

  /// What has been collected so far.
  struct report {
    std::vector<prometheus::MetricFamily> families;
    const std::string* group = nullptr;

    void add(kind type, const char* name, const char* help, double value, const char* key = nullptr,
             const char* of = nullptr) {
      prometheus::ClientMetric& m = metric(type, name, help, key, of);
      (type == kind::Counter ? m.counter.value : m.gauge.value) = value;
    }

    prometheus::ClientMetric& metric(kind type, const char* name, const char* help,
                                     const char* key = nullptr, const char* of = nullptr) {
      auto family = std::find_if(families.begin(), families.end(),
                                 [&](const auto& f) { return f.name == name; });
      if (family == families.end()) family = families.insert(family, {name, help, type, {}});
      prometheus::ClientMetric& made = family->metric.emplace_back();
      made.label.push_back({"group", *group});
      if (key != nullptr) made.label.push_back({key, of});
      return made;
    }

    template <class Number>
    void count(const char* name, const char* help, Number value, const char* key = nullptr,
               const char* of = nullptr) {
      add(kind::Counter, name, help, static_cast<double>(value), key, of);
    }
    template <class Number>
    void gauge(const char* name, const char* help, Number value) {
      add(kind::Gauge, name, help, static_cast<double>(value));
    }
    void histogram(const char* name, const char* help, prometheus::ClientMetric::Histogram h,
                   const char* outcome) {
      metric(kind::Histogram, name, help, "outcome", outcome).histogram = std::move(h);
    }
  };

  struct one {
    std::string name;
    const void* source;
    std::function<void(report&)> add;
  };

  template <class Group, class Stats>
  static void add_group(report& to, const Group& group, const Stats& now) {
    constexpr const char* requests = "singleflight_requests_total";
    constexpr const char* of_requests = "Requests that came to the group, by what became of them.";
    to.count(requests, of_requests, now.led, "role", "led");
    to.count(requests, of_requests, now.joined, "role", "joined");
    to.count(requests, of_requests, now.rejected, "role", "rejected");
    constexpr const char* left = "singleflight_requests_left_total";
    constexpr const char* of_left = "Requests that did not wait for a result, by the reason.";
    to.count(left, of_left, now.timed_out, "reason", "timed_out");
    to.count(left, of_left, now.cancelled, "reason", "cancelled");
    to.count("singleflight_calls_failed_total", "Calls that ended without a value.", now.failed);
    to.count("singleflight_calls_superseded_total",
             "Calls that grew too old for others to wait for them.", now.superseded);
    if constexpr (requires { now.batches; }) {
      to.count("singleflight_batches_total", "Invocations of bulk loaders.", now.batches);
    }
    to.gauge("singleflight_calls_in_flight", "Calls begun and not ended.", now.in_flight);
    to.gauge("singleflight_requests_waiting", "Requests that wait for a call.", now.waiting);
    if constexpr (requires { group.in_flight(); }) {
      std::chrono::duration<double> longest{0};
      for (const auto& call : group.in_flight()) {
        longest = (std::max)(longest, std::chrono::duration<double>(call.waited));
      }
      to.gauge("singleflight_longest_wait_seconds",
               "How long somebody has been waiting for one call without a break.", longest.count());
    }
    if constexpr (requires { group.observer().loads(ending::value); }) {
      add_histograms(to, group.observer());
    }
  }

  template <class Observer>
  static void add_histograms(report& to, const Observer& seen) {
    constexpr const char* loads = "singleflight_load_duration_seconds";
    constexpr const char* of_loads = "How long calls took.";
    constexpr const char* waits = "singleflight_wait_duration_seconds";
    constexpr const char* of_waits = "How long requests waited for calls of others.";
    for (const ending how : {ending::value, ending::exception}) {
      to.histogram(loads, of_loads, seen.loads(how), to_string(how));
      to.histogram(waits, of_waits, seen.waits(how), to_string(how));
    }
    for (const leaving why :
         {leaving::deadline, leaving::stop, leaving::newer_call, leaving::circle, leaving::gone}) {
      to.histogram(waits, of_waits, seen.waits(why), to_string(why));
    }
  }

  template <class Stats>
  static void add_fleet(report& to, const Stats& now) {
    to.count("singleflight_fleet_entries_total", "Calls that looked for another process.",
             now.entries());
    to.count("singleflight_fleet_hits_total", "Found the value in the cache at once.", now.hits);
    to.count("singleflight_fleet_led_total", "Ran the loader for all processes.", now.led);
    to.count("singleflight_fleet_followed_total",
             "Waited for another process, and found its value in the cache.", now.followed);
    to.count("singleflight_fleet_handed_over_total",
             "Waited for another process, and got its value directly.", now.handed_over);
    to.count("singleflight_fleet_taken_over_total",
             "Waited for a process that failed, then ran the loader for all.", now.taken_over);
    to.count("singleflight_fleet_alone_total",
             "Ran the loader without a lease, having waited long enough.", now.alone);
    to.count("singleflight_fleet_refused_total",
             "Ran the loader without a lease, which the cache refused.", now.refused);
    to.count("singleflight_fleet_unreachable_total",
             "Ran the loader without a lease: no answer from the cache.", now.unreachable);
    to.count("singleflight_fleet_lost_fills_total", "Results that were to be stored and were not.",
             now.lost_fills);
    to.gauge("singleflight_fleet_waiting", "Calls that wait for another process.", now.waiting);
  }

  template <class Stats>
  static void add_reads(report& to, const Stats& now) {
    constexpr const char* reads = "singleflight_reads_total";
    constexpr const char* of_reads = "Reads through the cache, by what they found in it.";
    to.count(reads, of_reads, now.hits, "found", "fresh");
    to.count(reads, of_reads, now.stale_hits, "found", "stale");
    to.count(reads, of_reads, now.misses, "found", "nothing");
    to.count("singleflight_read_second_look_hits_total",
             "Calls that found an entry which was not there before.", now.second_look_hits);
    to.count("singleflight_read_loads_total", "Loaders that were run.", now.loads);
    to.count("singleflight_read_loads_failed_total", "Loaders that threw.", now.failed_loads);
    to.count("singleflight_read_not_put_total",
             "Values that were not put into the cache, for their keys were forgotten.",
             now.not_put);
    to.count("singleflight_read_undone_total",
             "Values that were put and erased, for their keys were forgotten.", now.undone);
    to.count("singleflight_read_cache_errors_total", "Errors of the cache that no caller has seen.",
             now.cache_errors);
  }

  mutable detail::mutex mutex_;
  std::vector<one> sources_ SINGLEFLIGHT_GUARDED_BY(mutex_);
};

}  // namespace singleflight::inline SINGLEFLIGHT_ABI

#endif  // SINGLEFLIGHT_PROMETHEUS_HPP
