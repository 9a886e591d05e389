// SPDX-License-Identifier: MIT
// The metrics of groups, fleets and read-throughs, as prometheus-cpp collects them.
#include <gtest/gtest.h>
#include <prometheus/text_serializer.h>

#include <chrono>
#include <memory>
#include <optional>
#include <singleflight/fleet.hpp>
#include <singleflight/group.hpp>
#include <singleflight/prometheus.hpp>
#include <singleflight/read_through.hpp>
#include <stdexcept>
#include <string>

#include "support.hpp"

namespace {

using namespace std::chrono_literals;
using singleflight::ending;
using singleflight::leaving;
using singleflight::prometheus_observer;

using timed =
    singleflight::group<int, int, std::hash<int>, std::equal_to<int>, prometheus_observer>;

std::string text_of(const singleflight::prometheus_collector& metrics) {
  return prometheus::TextSerializer().Serialize(metrics.Collect());
}

void expect_lines(const singleflight::prometheus_collector& metrics,
                  std::initializer_list<const char*> lines) {
  const std::string text = '\n' + text_of(metrics);
  for (const char* line : lines) {
    EXPECT_NE(text.find('\n' + std::string(line) + '\n'), std::string::npos) << line << text;
  }
}

TEST(Metrics, OfAGroupAreZeroFromTheStart) {
  timed g;
  singleflight::prometheus_collector metrics;
  metrics.add("rows", g);
  expect_lines(metrics,
               {
                   R"(singleflight_requests_total{group="rows",role="led"} 0)",
                   R"(singleflight_requests_total{group="rows",role="joined"} 0)",
                   R"(singleflight_requests_total{group="rows",role="rejected"} 0)",
                   R"(singleflight_requests_left_total{group="rows",reason="timed_out"} 0)",
                   R"(singleflight_requests_left_total{group="rows",reason="cancelled"} 0)",
                   R"(singleflight_calls_failed_total{group="rows"} 0)",
                   R"(singleflight_calls_superseded_total{group="rows"} 0)",
                   R"(singleflight_calls_in_flight{group="rows"} 0)",
                   R"(singleflight_requests_waiting{group="rows"} 0)",
                   R"(singleflight_longest_wait_seconds{group="rows"} 0)",
                   R"(singleflight_load_duration_seconds_count{group="rows",outcome="value"} 0)",
                   R"(singleflight_wait_duration_seconds_count{group="rows",outcome="deadline"} 0)",
               });
}

TEST(Metrics, OfAGroupCountWhatItsStatsCount) {
  timed g;
  singleflight::prometheus_collector metrics;
  metrics.add("rows", g);
  support::threads follower;
  (void)g.do_call(1, [&] {
    follower.start([&] { (void)g.do_call(1, [] { return 0; }); });
    support::await_followers(g, 1);
    expect_lines(metrics, {R"(singleflight_calls_in_flight{group="rows"} 1)",
                           R"(singleflight_requests_waiting{group="rows"} 1)"});
    EXPECT_EQ(text_of(metrics).find(R"(longest_wait_seconds{group="rows"} 0)"
                                    "\n"),
              std::string::npos);
    support::threads(1, [&](std::size_t) {
      EXPECT_ANY_THROW((void)g.do_call(1, {.timeout = 1ms}, [] { return 0; }));
    });
    return 42;
  });
  follower.join();
  EXPECT_ANY_THROW((void)g.do_call(1, []() -> int { throw std::runtime_error("no"); }));
  expect_lines(
      metrics,
      {R"(singleflight_requests_total{group="rows",role="led"} 2)",
       R"(singleflight_requests_total{group="rows",role="joined"} 2)",
       R"(singleflight_requests_left_total{group="rows",reason="timed_out"} 1)",
       R"(singleflight_calls_failed_total{group="rows"} 1)",
       R"(singleflight_load_duration_seconds_count{group="rows",outcome="value"} 1)",
       R"(singleflight_load_duration_seconds_count{group="rows",outcome="exception"} 1)",
       R"(singleflight_load_duration_seconds_bucket{group="rows",outcome="value",le="+Inf"} 1)",
       R"(singleflight_wait_duration_seconds_count{group="rows",outcome="value"} 1)",
       R"(singleflight_wait_duration_seconds_count{group="rows",outcome="deadline"} 1)"});
}

TEST(Metrics, OfSeveralGroupsAreOneFamily) {
  timed one;
  const singleflight::group<std::string, int> other;
  singleflight::prometheus_collector metrics;
  metrics.add("one", one);
  metrics.add("other", other);
  const std::string text = text_of(metrics);
  const std::string type = "# TYPE singleflight_requests_total counter";
  EXPECT_NE(text.find(type), std::string::npos);
  EXPECT_EQ(text.find(type), text.rfind(type));
  expect_lines(metrics, {R"(singleflight_requests_total{group="one",role="led"} 0)",
                         R"(singleflight_requests_total{group="other",role="led"} 0)"});
  EXPECT_EQ(text.find(R"(duration_seconds_count{group="other")"), std::string::npos);
  metrics.remove(one);
  EXPECT_EQ(text_of(metrics).find(R"(group="one")"), std::string::npos);
}

struct some_fleet {
  [[nodiscard]] static singleflight::fleet_stats stats() {
    singleflight::fleet_stats s;
    s.hits = 3;
    s.waiting = 2;
    return s;
  }
};
struct some_reads {
  [[nodiscard]] static singleflight::read_stats stats() {
    singleflight::read_stats s;
    s.stale_hits = 5;
    s.loads = 4;
    return s;
  }
};

TEST(Metrics, OfFleetsAndReadThroughsAreTakenToo) {
  const some_fleet fleet;
  const some_reads reads;
  singleflight::prometheus_collector metrics;
  metrics.add("rows", fleet);
  metrics.add("rows", reads);
  expect_lines(metrics, {R"(singleflight_fleet_entries_total{group="rows"} 3)",
                         R"(singleflight_fleet_waiting{group="rows"} 2)",
                         R"(singleflight_reads_total{group="rows",found="stale"} 5)",
                         R"(singleflight_read_loads_total{group="rows"} 4)"});
}

TEST(Histograms, PutADurationIntoTheFirstBucketThatHoldsIt) {
  singleflight::detail::duration_histogram h;
  h.add(0ns);
  h.add(500us);  // the bound is in its bucket
  h.add(500001ns);
  h.add(1h);
  const auto all = h.read();
  ASSERT_EQ(all.bucket.size(), 14U);
  EXPECT_EQ(all.bucket[0].cumulative_count, 2U);
  EXPECT_EQ(all.bucket[1].cumulative_count, 3U);
  EXPECT_EQ(all.bucket[12].cumulative_count, 3U);
  EXPECT_EQ(all.bucket[13].cumulative_count, 4U);
  EXPECT_EQ(all.sample_count, 4U);
  EXPECT_NEAR(all.sample_sum, 3600.001, 1e-5);
}

TEST(Histograms, AddUpWhatManyThreadsHaveAdded) {
  const prometheus_observer seen;
  support::threads(40, [&](std::size_t) {
    for (int i = 0; i < 1'000; ++i) {
      seen.wait_ended(singleflight::wait_ended_event<int>{i, 1ms, ending::value});
    }
  });
  EXPECT_EQ(seen.waits(ending::value).sample_count, 40'000U);
  EXPECT_NEAR(seen.waits(ending::value).sample_sum, 40, 1e-6);
  EXPECT_EQ(seen.waits(leaving::gone).sample_count, 0U);
}

}  // namespace
