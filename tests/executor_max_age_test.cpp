// SPDX-License-Identifier: MIT
// A call on an executor that grows older than the group's max_age.

#include <gtest/gtest.h>

#include <atomic>
#include <chrono>
#include <future>
#include <singleflight/group.hpp>
#include <string>
#include <system_error>
#include <version>

#include "executors.hpp"
#include "support.hpp"

namespace {

using singleflight::call_options;
using support::expect_idle;
using namespace std::chrono_literals;

using flights = singleflight::group<std::string, int>;

TEST(MaxAgeOnAnExecutor, MakesJoinersOfACallOnAnExecutorStartAnewAndItsFirstCallerStay) {
  flights g({.max_age = 20ms});
  support::task_queue hung;
  support::threads first, others;
  first.start([&] {
    const auto result = g.do_call_on("key", hung, {}, [] { return 1; });
    EXPECT_EQ(*result, 1);
    EXPECT_TRUE(result.led());
  });
  support::await([&] { return hung.size() == 1; }, "the call to begin");
  for (int i = 0; i < 3; ++i) {
    others.start([&] { EXPECT_EQ(*g.do_call("key", [] { return 2; }), 2); });
  }
  others.join();
  EXPECT_GE(g.stats().superseded, 1U);
  EXPECT_EQ(g.stats().waiting, 1U);
  EXPECT_EQ(g.stats().in_flight, 1U);
  hung.run();
  first.join();
  EXPECT_EQ(g.stats().led + g.stats().joined, 4U);
  expect_idle(g);
}

TEST(MaxAgeOnAnExecutor, LeavesACallToTheCallerOfDoAsyncThatBeganIt) {
  flights g({.max_age = 1ms});
  support::task_queue hung;
  const auto old = g.do_async("key", hung, [] { return 1; });
  EXPECT_EQ(*g.do_call("key", [] { return 2; }), 2);
  hung.run();
  EXPECT_EQ(old.get(), 1);
  EXPECT_EQ(g.stats().superseded, 1U);
  expect_idle(g);
}

TEST(MaxAgeOnAnExecutor, LetsWhoComesByDoAsyncStartAnew) {
  flights g({.max_age = 1ms});
  support::task_queue hung;
  const auto old = g.do_async("key", hung, [] { return 1; });
  std::shared_future<int> next;
  support::await(
      [&] {
        next = g.do_async("key", support::inline_executor, [] { return 2; });
        return g.stats().superseded == 1;
      },
      "the call to grow too old");
  EXPECT_EQ(next.get(), 2);
  hung.run();
  EXPECT_EQ(old.get(), 1);
}

#if defined(__cpp_lib_jthread)

TEST(MaxAgeOnAnExecutor, StopsTheOldCallWhenTheLastOfItsJoinersHasLeftIt) {
  flights g({.max_age = 50ms});
  support::thread_executor elsewhere;
  support::threads joiner;
  std::atomic<bool> running{false};
  std::atomic<int> told{0};
  std::stop_source stop;
  const auto first = support::thrown_by([&] {
    (void)g.do_call_on(
        "key",
        [&](const auto& task) {
          elsewhere(task);
          support::await([&] { return running.load(); }, "the loader to run");
          joiner.start([&] { EXPECT_EQ(*g.do_call("key", [] { return 2; }), 2); });
          // The joiner waits for the old call, or has come too late and has superseded it.
          support::await([&] { return g.stats().waiting == 2 || g.stats().superseded == 1; },
                         "the joiner");
          stop.request_stop();
        },
        call_options{.stop = stop.get_token()},
        [&](const std::stop_token& token) {
          const std::stop_callback count(token, [&] { ++told; });
          running = true;
          support::await([&] { return token.stop_requested(); }, "to be told to stop");
          return 1;
        });
  });
  EXPECT_EQ(support::call_error_of(first), std::errc::operation_canceled);
  joiner.join();
  elsewhere.join();
  EXPECT_EQ(told, 1);
  EXPECT_EQ(g.stats().superseded, 1U);
  expect_idle(g);
}

TEST(MaxAgeOnAnExecutor, DoesNotStopTheOldCallWhileItsFirstCallerWaits) {
  flights g({.max_age = 1ms});
  support::thread_executor elsewhere;
  std::atomic<bool> release{false};
  support::threads first;
  first.start([&] {
    EXPECT_EQ(*g.do_call_on("key", elsewhere, {},
                            [&](const std::stop_token& token) {
                              support::await([&] { return release.load(); }, "the test");
                              return token.stop_requested() ? 0 : 1;
                            }),
              1);
  });
  support::await_followers(g, 1);
  EXPECT_EQ(*g.do_call("key", [] { return 2; }), 2);
  release = true;
  first.join();
  elsewhere.join();
  EXPECT_EQ(g.stats().superseded, 1U);
}

#endif

}  // namespace
