// SPDX-License-Identifier: MIT
// A loader must return on the thread on which it was called. One that does not, in a program without
// assertions, costs no thread its search for circles.

#define SINGLEFLIGHT_ASSERT(condition, rule) static_cast<void>(0)

#include <gtest/gtest.h>

#include <atomic>
#include <functional>
#include <singleflight/group.hpp>
#include <system_error>

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

}  // namespace
