// SPDX-License-Identifier: MIT
// A loader must return on the thread on which it was called. One that does not, in a program without
// assertions, costs no thread its search for circles.

#define SINGLEFLIGHT_ASSERT(condition, rule) static_cast<void>(0)

#include <gtest/gtest.h>

#include <atomic>
#include <functional>
#include <optional>
#include <singleflight/group.hpp>
#include <system_error>
#include <utility>

#include "fiber.hpp"
#include "support.hpp"

namespace {

using singleflight::call_error;
using singleflight::group;

/// Two calls that want each other, one led by this thread. Returns: how many are refused.
int refused_in_a_circle() {
  group<int, int> g;
  std::atomic<int> refused{0};
  const auto lead = [&](int mine, int others) {
    (void)g.do_call(mine, [&] {
      support::await([&] { return g.stats().led == 2; }, "both calls");
      try {
        return *g.do_call(others, [] { return 0; });
      } catch (const call_error& e) {
        EXPECT_EQ(e.code(), std::errc::resource_deadlock_would_occur);
        ++refused;
        return 42;
      }
    });
  };
  support::threads other;
  other.start([&] { lead(2, 1); });
  lead(1, 2);
  other.join();
  return refused;
}

TEST(LoaderThatReturnsOnAnotherThread, LeavesBothThreadsTheSearchForCircles) {
  if (!support::fibers_migrate) GTEST_SKIP() << "no fibers here";
  group<int, int> g;
  int value = 0;
  support::fiber fiber([&](const std::function<void()>& suspend) {
    value = g.do_call(1, [&] {
      suspend();
      return 42;
    });
  });
  std::atomic<bool> suspended{false}, over{false};
  support::threads threads;
  threads.start([&] {
    fiber.resume();  // the loader begins here
    suspended = true;
    support::await([&] { return over.load(); }, "the other thread");
    EXPECT_EQ(refused_in_a_circle(), 1);
  });
  threads.start([&] {
    support::await([&] { return suspended.load(); }, "the other thread");
    fiber.resume();  // and returns here
    over = true;
    EXPECT_EQ(refused_in_a_circle(), 1);
  });
  threads.join();
  EXPECT_EQ(value, 42);
  EXPECT_EQ(g.stats().in_flight, 0U);
}

// The code of a `leader` may do so: it costs the thread on which it began a search, and no other anything.
TEST(LeaderThatReturnsOnAnotherThread, ChangesTheCountOfNoThread) {
  using singleflight::detail::calls_led_by_this_thread;
  std::optional<singleflight::detail::leading_from_here> leads;
  leads.emplace();
  EXPECT_EQ(calls_led_by_this_thread, 1U);
  support::threads(1, [&](std::size_t) {
    leads.reset();
    EXPECT_EQ(calls_led_by_this_thread, 0U);
  });
  EXPECT_EQ(std::exchange(calls_led_by_this_thread, 0U), 1U);
  leads.emplace();
  leads.reset();
  EXPECT_EQ(calls_led_by_this_thread, 0U);
}

}  // namespace
