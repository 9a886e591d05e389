// SPDX-License-Identifier: MIT
// A loader may call the group again, but for its own key: there it would wait for itself.

#include <gtest/gtest.h>

#include <chrono>
#include <cstddef>
#include <exception>
#include <functional>
#include <future>
#include <singleflight/group.hpp>
#include <string>
#include <system_error>
#include <utility>
#include <vector>

#include "support.hpp"

namespace {

using singleflight::call_error;
using singleflight::group;

/// Returns: whether `entry` was refused because it would have waited for itself.
template <class Entry>
bool refused(const Entry& entry) {
  try {
    entry();
  } catch (const call_error& e) {
    EXPECT_EQ(e.code(), std::errc::resource_deadlock_would_occur);
    return true;
  }
  return false;
}

// A load within a load worked for two years before it deadlocked; its users asked for an exception
// instead. https://github.com/ben-manes/caffeine/issues/712
TEST(Reentry, OfItsOwnKeyIsRefused) {
  group<std::string, int> g;
  auto result = g.do_call("key", [&] {
    EXPECT_TRUE(refused([&] { (void)g.do_call("key", [] { return 1; }); }));
    EXPECT_TRUE(refused([&] { (void)g.do_call(std::string("key"), [] { return 2; }); }));
    return 42;
  });
  EXPECT_EQ(*result, 42);
  EXPECT_FALSE(result.shared());
  EXPECT_EQ(g.stats().led, 1U);
  EXPECT_EQ(g.stats().joined, 0U);
  EXPECT_EQ(g.stats().rejected, 2U);
  EXPECT_EQ(g.stats().failed, 0U);
}

// The executor returns to its caller when the loader runs already: that leads the call, not nobody.
TEST(Reentry, OfTheKeyOfALoaderThatBeganBeforeTheExecutorReturnedIsRefused) {
  group<int, int> g;
  support::threads worker;
  std::promise<void> begun, returned;
  const auto future = g.do_async(
      0,
      [&](auto task) {
        worker.start(std::move(task));
        begun.get_future().wait();
      },
      [&] {
        begun.set_value();
        returned.get_future().wait();
        EXPECT_TRUE(refused(
            [&] { (void)g.do_call(0, {.timeout = std::chrono::minutes(1)}, [] { return -1; }); }));
        return 42;
      });
  returned.set_value();
  EXPECT_EQ(future.get(), 42);
}

TEST(Reentry, ThatIsNotCaughtFailsTheCallForEverybody) {
  constexpr std::size_t callers = 4;
  group<std::string, int> g;
  std::vector<std::exception_ptr> caught(callers);
  support::threads(callers, [&](std::size_t i) {
    try {
      (void)g.do_call("key", [&] {
        support::await_followers(g, callers - 1);
        return *g.do_call("key", [] { return 0; });
      });
    } catch (...) {
      caught[i] = std::current_exception();
    }
  });
  for (const std::exception_ptr& e : caught) {
    support::expect_same(e, caught.front());
    EXPECT_TRUE(refused([&] { std::rethrow_exception(e); }));
  }
  EXPECT_EQ(g.stats().rejected, 1U);
  EXPECT_EQ(g.stats().failed, 1U);
  EXPECT_EQ(g.stats().in_flight, 0U);
  EXPECT_EQ(g.stats().waiting, 0U);
  EXPECT_EQ(*g.do_call("key", [] { return 42; }), 42);
}

TEST(Reentry, ThatIsCaughtLeavesTheFollowersTheValue) {
  constexpr std::size_t callers = 4;
  group<std::string, std::string> g;
  support::threads(callers, [&](std::size_t) {
    auto result = g.do_call("key", [&] {
      support::await_followers(g, callers - 1);
      EXPECT_TRUE(refused([&] { (void)g.do_call("key", [] { return "inner"; }); }));
      EXPECT_EQ(g.stats().waiting, callers - 1);
      return "outer";
    });
    EXPECT_EQ(*result, "outer");
    EXPECT_TRUE(result.shared());
  });
  EXPECT_EQ(g.stats().led, 1U);
  EXPECT_EQ(g.stats().rejected, 1U);
}

TEST(Reentry, OfOtherKeysAndOtherGroupsIsFine) {
  group<std::string, int> g, other;
  EXPECT_EQ(*g.do_call("key",
                       [&] {
                         return *g.do_call("another", [] { return 1; }) +
                                *other.do_call("key", [] { return 10; });
                       }),
            11);
  EXPECT_EQ(g.stats().rejected + other.stats().rejected, 0U);
}

TEST(Reentry, MayGoThroughAHundredKeysButNotBack) {
  constexpr int keys = 100;
  group<int, int> g;
  int circles_refused = 0;
  const std::function<int(int)> chain = [&](int key) -> int {
    return g.do_call(key, [&, key] {
      if (key < keys) return 1 + chain(key + 1);
      for (int back = 1; back <= keys; ++back) {
        if (refused([&] { (void)g.do_call(back, [] { return 0; }); })) ++circles_refused;
      }
      return 1;
    });
  };
  EXPECT_EQ(chain(1), keys);
  EXPECT_EQ(circles_refused, keys);
  EXPECT_EQ(g.stats().led, keys);
  EXPECT_EQ(g.stats().rejected, keys);
  EXPECT_EQ(g.stats().in_flight, 0U);
}

TEST(Reentry, IsNoLongerRefusedWhenTheCallHasEnded) {
  group<std::string, int> g;
  for (int i = 0; i < 3; ++i) {
    EXPECT_THROW((void)g.do_call("key", [i]() -> int { throw i; }), int);
    EXPECT_TRUE(g.do_call("key", [] { return 0; }).led());
  }
  EXPECT_EQ(g.stats().rejected, 0U);
}

TEST(Reentry, IsNotMistakenForAnotherThreadsCall) {
  group<std::string, int> g;
  support::threads followers;
  auto outer = g.do_call("key", [&] {
    followers.start([&] {
      auto result = g.do_call("another", [&] { return *g.do_call("key", [] { return 0; }); });
      EXPECT_EQ(*result, 42);
    });
    support::await_followers(g, 1);
    return 42;
  });
  EXPECT_TRUE(outer.shared());
  followers.join();
  EXPECT_EQ(g.stats().rejected, 0U);
}

}  // namespace
