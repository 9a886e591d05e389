// SPDX-License-Identifier: MIT
// Every caller that waits for a call on an executor can leave it, the first one included; a loader
// without remaining callers is stopped, or does not begin.

#include <gtest/gtest.h>

#include <atomic>
#include <chrono>
#include <functional>
#include <future>
#include <singleflight/group.hpp>
#include <string>
#include <system_error>
#include <thread>
#include <version>

#include "executors.hpp"
#include "support.hpp"

namespace {

using singleflight::call_options;
using singleflight::group;
using support::expect_idle;
using clock = std::chrono::steady_clock;
using namespace std::chrono_literals;

using flights = group<std::string, int>;

/// Begins a call for "key" on `executor` and leaves it by a deadline. (If the scheduler holds this
/// thread up until the deadline, the group refuses it when it enters; then it tries again.)
template <class Executor, class Fn>
void begin_and_time_out(flights& g, const Executor& executor, const Fn& load) {
  bool launched = false;
  support::await(
      [&] {
        const auto told = support::thrown_by([&] {
          (void)g.do_call_on(
              "key",
              [&](const auto& task) {
                launched = true;
                executor(task);
              },
              call_options{.deadline = clock::now() + 20ms}, load);
        });
        EXPECT_EQ(support::call_error_of(told), std::errc::timed_out);
        return launched;
      },
      "the call to begin before its deadline");
}

TEST(FirstCallerOfDoCallOn, LeavesAtItsDeadlineAndTheOthersDoNotNotice) {
  flights g;
  support::task_queue queue;
  support::threads follower;
  std::shared_future<int> joined;
  begin_and_time_out(
      g,
      [&](const auto& task) {
        queue(task);
        joined = g.do_async("key", queue, [] { return 0; });
        follower.start([&] {
          const auto result = g.do_call("key", [] { return 0; });
          EXPECT_FALSE(result.led());
          EXPECT_EQ(*result, 42);
        });
        support::await_followers(g, 3);
      },
      [] { return 42; });
  EXPECT_EQ(g.stats().waiting, 2U);
  EXPECT_EQ(g.in_flight().size(), 1U);
  EXPECT_EQ(g.stats().timed_out, 1U + g.stats().rejected);
  queue.run();
  follower.join();
  EXPECT_EQ(joined.get(), 42);
  EXPECT_EQ(g.stats().led, 1U);
  EXPECT_EQ(g.stats().joined, 2U);
  EXPECT_EQ(g.stats().failed, 0U);
  expect_idle(g);
}

TEST(FirstCallerOfDoCallOn, BeginsNothingAfterItsDeadline) {
  flights g;
  const auto told = support::thrown_by([&] {
    (void)g.do_call_on(
        "key", [](const auto&) { ADD_FAILURE() << "the executor was called"; },
        {.deadline = clock::now() - 1ms}, [] { return 42; });
  });
  EXPECT_EQ(support::call_error_of(told), std::errc::timed_out);
  EXPECT_EQ(g.stats().led, 0U);
  EXPECT_EQ(g.stats().rejected, 1U);
  EXPECT_EQ(g.stats().timed_out, 1U);
  expect_idle(g);
}

TEST(FirstCallerOfDoCallOn, GetsItsValueIfTheCallEndsBeforeTheDeadline) {
  flights g;
  support::thread_executor elsewhere;
  const auto result = g.do_call_on("key", elsewhere, call_options{.deadline = clock::now() + 1h},
                                   [] { return 42; });
  EXPECT_EQ(*result, 42);
  EXPECT_EQ(g.stats().timed_out, 0U);
}

TEST(FirstCallerOfDoCallOn, UnlistsTheCallThatOnlyItWanted) {
  flights g;
  support::thread_executor elsewhere;
  std::atomic<bool> running{false}, release{false};
  begin_and_time_out(
      g,
      [&](const auto& task) {
        elsewhere(task);
        support::await([&] { return running.load(); }, "the loader to run");
      },
      [&] {
        running = true;
        support::await([&] { return release.load(); }, "the test");
        return 1;
      });
  EXPECT_EQ(g.stats().in_flight, 1U);
  EXPECT_TRUE(g.in_flight().empty());
  EXPECT_EQ(g.stats().waiting, 0U);
  const auto next = g.do_call("key", [] { return 2; });
  EXPECT_TRUE(next.led());
  EXPECT_EQ(*next, 2);
  release = true;
  elsewhere.join();
  expect_idle(g);
}

TEST(FirstCallerOfDoCallOn, SparesTheLoaderIfItLeavesBeforeTheTaskIsRun) {
  flights g;
  support::task_queue queue;
  int loads = 0;
  begin_and_time_out(g, std::ref(queue), [&] { return ++loads; });
  EXPECT_TRUE(g.in_flight().empty());
  EXPECT_EQ(g.stats().in_flight, 1U);
  queue.run();
  EXPECT_EQ(loads, 0);
  EXPECT_EQ(g.stats().failed, 1U);
  expect_idle(g);
}

TEST(FirstCallerOfDoCallOn, SparesTheLoaderIfItsFollowerLeavesToo) {
  flights g;
  support::task_queue queue;
  support::threads follower;
  std::atomic<int> loads{0};
  begin_and_time_out(
      g,
      [&](const auto& task) {
        queue(task);
        follower.start([&] {
          support::await(
              [&] {
                const call_options hasty{.deadline = clock::now() + 20ms};
                const auto told = support::thrown_by(
                    [&] { (void)g.do_call("key", hasty, [&] { return ++loads; }); });
                EXPECT_EQ(support::call_error_of(told), std::errc::timed_out);
                return g.stats().joined == 1;
              },
              "the follower to join before its deadline");
        });
        support::await([&] { return g.stats().joined == 1; }, "the follower");
      },
      [&] { return ++loads; });
  follower.join();
  EXPECT_TRUE(g.in_flight().empty());
  EXPECT_EQ(g.stats().waiting, 0U);
  queue.run();
  EXPECT_EQ(loads, 0);
  expect_idle(g);
}

TEST(FirstCallerOfDoCallOn, MakesNoRoomForAFollowerByLeaving) {
  flights g({.max_waiters = 1});
  support::task_queue queue;
  std::shared_future<int> joined;
  begin_and_time_out(
      g,
      [&](const auto& task) {
        queue(task);
        joined = g.do_async("key", queue, [] { return 0; });
      },
      [] { return 42; });
  EXPECT_EQ(support::call_error_of(
                support::thrown_by([&] { (void)g.do_async("key", queue, [] { return 0; }); })),
            std::errc::resource_unavailable_try_again);
  queue.run();
  EXPECT_EQ(joined.get(), 42);
}

TEST(FirstCallerOfDoCallOn, IsNoFollowerWhenAFollowerHasLeft) {
  flights g({.max_waiters = 1});
  support::task_queue queue;
  support::threads first;
  first.start([&] { EXPECT_EQ(*g.do_call_on("key", queue, {}, [] { return 42; }), 42); });
  support::await([&] { return queue.size() == 1; }, "the task");
  support::await(
      [&] {
        const auto told = support::thrown_by([&] {
          (void)g.do_call("key", call_options{.deadline = clock::now() + 20ms}, [] { return 0; });
        });
        EXPECT_EQ(support::call_error_of(told), std::errc::timed_out);
        return g.stats().joined == 1;
      },
      "a follower to join before its deadline");
  const auto room = [&] { return g.do_async("key", queue, [] { return 0; }); };
  const auto follower = room();
  EXPECT_EQ(support::call_error_of(support::thrown_by([&] { (void)room(); })),
            std::errc::resource_unavailable_try_again);
  queue.run();
  EXPECT_EQ(follower.get(), 42);
}

TEST(CallerOfDoAsync, KeepsTheCallAliveForEver) {
  flights g;
  support::task_queue queue;
  (void)g.do_async("key", queue, [] { return 42; });  // drops the future, not its interest
  support::threads follower;
  EXPECT_EQ(support::call_error_of(support::thrown_by([&] {
              (void)g.do_call("key", call_options{.deadline = clock::now() + 10ms},
                              [] { return 0; });
            })),
            std::errc::timed_out);
  EXPECT_EQ(g.in_flight().size(), 1U);
  follower.start([&] { EXPECT_EQ(*g.do_call("key", [] { return 0; }), 42); });
  support::await_followers(g, 1);
  queue.run();
  follower.join();
  EXPECT_EQ(g.stats().led, 1U);
}

TEST(CallerOfDoAsync, KeepsTheCallAliveThatItJoined) {
  flights g;
  support::task_queue queue;
  int loads = 0;
  begin_and_time_out(
      g,
      [&](const auto& task) {
        queue(task);
        (void)g.do_async("key", queue, [] { return 0; });
      },
      [&] { return ++loads; });
  EXPECT_EQ(g.in_flight().size(), 1U);
  queue.run();
  EXPECT_EQ(loads, 1);
  EXPECT_EQ(g.stats().failed, 0U);
  expect_idle(g);
}

#if defined(__cpp_lib_jthread)

TEST(FirstCallerOfDoCallOn, LeavesAtItsStopRequestAndTheOthersDoNotNotice) {
  for (const bool before_it_waits : {true, false}) {
    flights g;
    support::task_queue queue;
    std::stop_source stop;
    std::shared_future<int> joined;
    support::threads stopper;
    const auto told = support::thrown_by([&] {
      (void)g.do_call_on(
          "key",
          [&](const auto& task) {
            queue(task);
            joined = g.do_async("key", queue, [] { return 0; });
            if (before_it_waits) {
              stop.request_stop();
            } else {
              stopper.start([&] {
                for (int i = 0; i < 100; ++i) std::this_thread::yield();
                stop.request_stop();
              });
            }
          },
          call_options{.stop = stop.get_token()}, [] { return 42; });
    });
    EXPECT_EQ(support::call_error_of(told), std::errc::operation_canceled);
    EXPECT_EQ(g.stats().cancelled, 1U);
    EXPECT_EQ(g.stats().waiting, 1U);
    queue.run();
    EXPECT_EQ(joined.get(), 42);
    EXPECT_EQ(g.stats().failed, 0U);
    expect_idle(g);
  }
}

TEST(FirstCallerOfDoCallOn, StopsTheLoaderThatOnlyItWanted) {
  flights g;
  support::thread_executor elsewhere;
  std::atomic<bool> running{false};
  std::atomic<int> told{0};
  begin_and_time_out(
      g,
      [&](const auto& task) {
        elsewhere(task);
        support::await([&] { return running.load(); }, "the loader to run");
      },
      [&](const std::stop_token& token) {
        const std::stop_callback count(token, [&] { ++told; });
        running = true;
        support::await([&] { return token.stop_requested(); }, "to be told to stop");
        return 1;
      });
  elsewhere.join();
  EXPECT_EQ(told, 1);
  expect_idle(g);
}

TEST(CallerOfDoAsync, KeepsTheLoaderFromBeingStopped) {
  flights g;
  support::thread_executor elsewhere;
  std::atomic<bool> release{false};
  std::shared_future<int> joined;
  begin_and_time_out(
      g,
      [&](const auto& task) {
        joined = g.do_async("key", elsewhere, [] { return 0; });
        elsewhere(task);
      },
      [&](const std::stop_token& token) {
        support::await([&] { return release.load(); }, "the test");
        return token.stop_requested() ? 0 : 42;
      });
  release = true;
  EXPECT_EQ(joined.get(), 42);
  elsewhere.join();
}

#endif

}  // namespace
