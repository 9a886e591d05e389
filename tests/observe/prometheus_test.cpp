// SPDX-License-Identifier: MIT
// The metrics of groups, fleets and read-throughs, as prometheus-cpp collects them.
#include <gtest/gtest.h>
#include <prometheus/text_serializer.h>

#include <atomic>
#include <chrono>
#include <cstddef>
#include <functional>
#include <future>
#include <initializer_list>
#include <singleflight/fleet.hpp>
#include <singleflight/group.hpp>
#include <singleflight/prometheus.hpp>
#include <singleflight/read_through.hpp>
#include <sstream>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

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

/// The lines that show a value and contain this text.
std::string samples_of(const singleflight::prometheus_collector& metrics,
                       const std::string& part = "") {
  std::istringstream text(text_of(metrics));
  std::string found = "\n";
  for (std::string line; std::getline(text, line);) {
    if (!line.starts_with('#') && line.find(part) != std::string::npos) found += line + '\n';
  }
  return found;
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
                   R"(singleflight_load_duration_seconds_sum{group="rows",outcome="value"} 0)",
                   R"(singleflight_wait_duration_seconds_count{group="rows",outcome="deadline"} 0)",
               });
}

TEST(Metrics, OfAGroupCountWhatItsStatsCount) {
  for (auto timeout = 1ms;; timeout *= 4) {
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
        EXPECT_ANY_THROW((void)g.do_call(1, {.timeout = timeout}, [] { return 0; }));
      });
      return 42;
    });
    follower.join();
    if (g.stats().joined < 2) continue;  // its time was over before it could join
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
    return;
  }
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

struct some_group {
  [[nodiscard]] static singleflight::group_stats stats() {
    singleflight::group_stats s;
    s.led = 1;
    s.joined = 2;
    s.failed = 3;
    s.timed_out = 4;
    s.cancelled = 5;
    s.rejected = 6;
    s.superseded = 7;
    s.batches = 8;
    s.in_flight = 9;
    s.waiting = 10;
    return s;
  }
  [[nodiscard]] static std::vector<singleflight::call_info<int>> in_flight() {
    return {{1, 1, 2s}, {2, 5, 2500ms}, {3, 4, 1s}};
  }
};
struct some_fleet {
  [[nodiscard]] static singleflight::fleet_stats stats() {
    return {.hits = 1,
            .led = 2,
            .followed = 3,
            .handed_over = 4,
            .taken_over = 5,
            .alone = 6,
            .refused = 7,
            .unreachable = 8,
            .lost_fills = 9,
            .waiting = 10};
  }
};
struct some_reads {
  [[nodiscard]] static singleflight::read_stats stats() {
    return {.hits = 1,
            .stale_hits = 2,
            .misses = 3,
            .second_look_hits = 4,
            .loads = 5,
            .failed_loads = 6,
            .not_put = 7,
            .undone = 8,
            .cache_errors = 9};
  }
};

TEST(Metrics, OfAGroupAreAllItsStats) {
  const some_group group;
  singleflight::prometheus_collector metrics;
  metrics.add("rows", group);
  EXPECT_EQ(samples_of(metrics), R"(
singleflight_requests_total{group="rows",role="led"} 1
singleflight_requests_total{group="rows",role="joined"} 2
singleflight_requests_total{group="rows",role="rejected"} 6
singleflight_requests_left_total{group="rows",reason="timed_out"} 4
singleflight_requests_left_total{group="rows",reason="cancelled"} 5
singleflight_calls_failed_total{group="rows"} 3
singleflight_calls_superseded_total{group="rows"} 7
singleflight_batches_total{group="rows"} 8
singleflight_calls_in_flight{group="rows"} 9
singleflight_requests_waiting{group="rows"} 10
singleflight_longest_wait_seconds{group="rows"} 2.5
)");
}

TEST(Metrics, OfAFleetAreAllItsStats) {
  const some_fleet fleet;
  singleflight::prometheus_collector metrics;
  metrics.add("rows", fleet);
  EXPECT_EQ(samples_of(metrics), R"(
singleflight_fleet_entries_total{group="rows"} 36
singleflight_fleet_hits_total{group="rows"} 1
singleflight_fleet_led_total{group="rows"} 2
singleflight_fleet_followed_total{group="rows"} 3
singleflight_fleet_handed_over_total{group="rows"} 4
singleflight_fleet_taken_over_total{group="rows"} 5
singleflight_fleet_alone_total{group="rows"} 6
singleflight_fleet_refused_total{group="rows"} 7
singleflight_fleet_unreachable_total{group="rows"} 8
singleflight_fleet_lost_fills_total{group="rows"} 9
singleflight_fleet_waiting{group="rows"} 10
)");
}

TEST(Metrics, OfAReadThroughAreAllItsStats) {
  const some_reads reads;
  singleflight::prometheus_collector metrics;
  metrics.add("rows", reads);
  EXPECT_EQ(samples_of(metrics), R"(
singleflight_reads_total{group="rows",found="fresh"} 1
singleflight_reads_total{group="rows",found="stale"} 2
singleflight_reads_total{group="rows",found="nothing"} 3
singleflight_read_second_look_hits_total{group="rows"} 4
singleflight_read_loads_total{group="rows"} 5
singleflight_read_loads_failed_total{group="rows"} 6
singleflight_read_not_put_total{group="rows"} 7
singleflight_read_undone_total{group="rows"} 8
singleflight_read_cache_errors_total{group="rows"} 9
)");
}

/// A group whose observer has seen a different number of each kind of end.
struct some_timed_group : some_group {
  some_timed_group() {
    int times = 0;
    for (const ending how : {ending::value, ending::exception}) {
      ++times;
      for (int i = 0; i < times; ++i) {
        seen.call_ended(singleflight::call_ended_event<int>{0, 1s, how, 0});
      }
    }
    for (const ending how : {ending::value, ending::exception}) {
      ++times;
      for (int i = 0; i < times; ++i) {
        seen.wait_ended(singleflight::wait_ended_event<int>{0, 1s, how});
      }
    }
    for (const leaving why :
         {leaving::deadline, leaving::stop, leaving::newer_call, leaving::circle, leaving::gone}) {
      ++times;
      for (int i = 0; i < times; ++i) {
        seen.left(singleflight::left_event<int>{0, 1s, why, false});
      }
      seen.left(
          singleflight::left_event<int>{0, 1s, why, true});  // had begun the call: not counted
    }
  }
  [[nodiscard]] const prometheus_observer& observer() const { return seen; }
  prometheus_observer seen;
};

TEST(Metrics, OfAGroupShowHowLongItsCallsAndItsCallersTookByTheirEnd) {
  const some_timed_group group;
  singleflight::prometheus_collector metrics;
  metrics.add("rows", group);
  EXPECT_EQ(samples_of(metrics, "_duration_seconds_count"), R"(
singleflight_load_duration_seconds_count{group="rows",outcome="value"} 1
singleflight_load_duration_seconds_count{group="rows",outcome="exception"} 2
singleflight_wait_duration_seconds_count{group="rows",outcome="value"} 3
singleflight_wait_duration_seconds_count{group="rows",outcome="exception"} 4
singleflight_wait_duration_seconds_count{group="rows",outcome="deadline"} 5
singleflight_wait_duration_seconds_count{group="rows",outcome="stop"} 6
singleflight_wait_duration_seconds_count{group="rows",outcome="newer_call"} 7
singleflight_wait_duration_seconds_count{group="rows",outcome="circle"} 8
singleflight_wait_duration_seconds_count{group="rows",outcome="gone"} 9
)");
}

/// Something whose `stats` runs a function of the test.
struct watched_group : some_group {
  std::function<void()> before;
  [[nodiscard]] singleflight::group_stats stats() const {
    before();
    return some_group::stats();
  }
};

// What was removed may be destroyed: nobody looks at it any more.
TEST(Metrics, AreChangedByNobodyWhileTheyAreCollected) {
  const some_group other;
  watched_group watched;
  singleflight::prometheus_collector metrics;
  metrics.add("watched", watched);
  std::promise<void> collecting;
  std::atomic<int> about_to_change = 0;
  std::atomic<bool> changed = false;
  watched.before = [&] {
    collecting.set_value();
    support::await([&] { return about_to_change == 2; }, "the others");
    for (int i = 0; i < 100; ++i) {
      std::this_thread::yield();
      ASSERT_FALSE(changed);
    }
  };
  const std::shared_future<void> began(collecting.get_future());
  support::threads changers(2, [&, began](std::size_t me) {
    began.wait();
    ++about_to_change;
    me == 0 ? metrics.remove(watched) : metrics.add("other", other);
    changed = true;
  });
  (void)metrics.Collect();
  changers.join();
  EXPECT_EQ(samples_of(metrics, "_batches_total"), R"(
singleflight_batches_total{group="other"} 8
)");
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
