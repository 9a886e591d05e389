// SPDX-License-Identifier: MIT
// The waits that can close a circle: waits for calls on executors and waits with a deadline do; waits
// that have ended do not.

#include <gtest/gtest.h>

#include <atomic>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <exception>
#include <functional>
#include <singleflight/group.hpp>
#include <string>
#include <system_error>
#include <thread>
#include <utility>
#include <vector>
#include <version>

#include "executors.hpp"
#include "support.hpp"

namespace {

using singleflight::call_error;
using singleflight::call_options;
using singleflight::group;
using support::expect_idle;
using namespace std::chrono_literals;

constexpr auto circle = std::errc::resource_deadlock_would_occur;

/// The loader of "a", on this thread, waits for "b" on an executor, whose loader waits for "a". The
/// later of the two waits closes the circle.
template <class Executor, class AfterJoin>
void expect_one_refused_through(Executor& executor, const AfterJoin& run_the_rest,
                                const call_options& options = {}) {
  group<std::string, int> g;
  std::atomic<int> refused{0};
  const auto or_42 = [&](const auto& wait) {
    try {
      return *wait();
    } catch (const call_error& e) {
      EXPECT_EQ(e.code(), circle);
      ++refused;
      return 42;
    }
  };
  const auto a = g.do_call("a", [&] {
    return or_42([&] {
      return g.do_call_on("b", executor, options, [&] {
        return or_42([&] { return g.do_call("a", options, [] { return 0; }); });
      });
    });
  });
  EXPECT_EQ(*a, 42);
  run_the_rest(g);
  EXPECT_EQ(refused, 1);
  EXPECT_EQ(g.stats().led, 2U);
  EXPECT_EQ(g.stats().joined + g.stats().rejected, 1U);
  EXPECT_EQ(g.stats().timed_out, 0U);
  expect_idle(g);
}

TEST(CircleThroughAnExecutor, ThatRunsTheTaskAtOnceIsRefusedInOne) {
  support::thread_executor elsewhere;
  expect_one_refused_through(elsewhere, [&](const auto&) { elsewhere.join(); });
}

TEST(CircleThroughAnExecutor, IsRefusedInOneWhateverCouldEndTheWaits) {
  support::thread_executor elsewhere;
  const auto join = [&](const auto&) { elsewhere.join(); };
  expect_one_refused_through(elsewhere, join, {.timeout = 1h});
  expect_one_refused_through(elsewhere, join, {.deadline = std::chrono::steady_clock::now() + 1h});
#if defined(__cpp_lib_jthread)
  const std::stop_source never;
  expect_one_refused_through(elsewhere, join, {.stop = never.get_token()});
  expect_one_refused_through(elsewhere, join, {.timeout = 1h, .stop = never.get_token()});
#endif
}

TEST(CircleThroughAnExecutor, ThatRunsTheTaskLateIsRefusedInOne) {
  support::thread_executor elsewhere;
  const auto late = [&](auto task) {
    elsewhere([task] {
      for (int i = 0; i < 1000; ++i) std::this_thread::yield();
      task();
    });
  };
  expect_one_refused_through(late, [&](const auto&) { elsewhere.join(); });
}

// The executor returns only when its task waits, so that the caller's own wait closes the circle.
TEST(CircleThroughAnExecutor, IsRefusedToTheCallerWhoseTaskWaitsForItAlready) {
  group<std::string, int> g;
  support::thread_executor elsewhere;
  const auto until_it_waits = [&](auto task) {
    elsewhere(std::move(task));
    support::await_followers(g, 2);  // the caller itself, and the loader
  };
  std::exception_ptr told;
  const auto a = g.do_call("a", [&] {
    told = support::thrown_by([&] {
      (void)g.do_call_on("b", until_it_waits, {},
                         [&] { return *g.do_call("a", [] { return 0; }); });
    });
    return 42;
  });
  elsewhere.join();
  EXPECT_EQ(*a, 42);
  EXPECT_EQ(support::call_error_of(told), circle);
  EXPECT_EQ(g.stats().led, 2U);
  EXPECT_EQ(g.stats().joined, 1U);
  expect_idle(g);
}

// The loader runs before the executor has returned, and asks for its own key after that.
TEST(CircleThroughAnExecutor, OfALoaderThatHasBegunBeforeTheExecutorReturnsIsRefused) {
  group<std::string, int> g;
  support::thread_executor elsewhere;
  std::atomic<bool> runs = false;
  std::exception_ptr told;
  const auto until_it_runs = [&](auto task) {
    elsewhere(std::move(task));
    support::await([&] { return runs.load(); }, "the loader");
  };
  const auto result = g.do_call_on("key", until_it_runs, {}, [&] {
    runs = true;
    const auto waits = [&] { return g.in_flight().front().waited > 0ns; };
    support::await(waits, "the caller to wait, whose executor has returned");
    told = support::thrown_by([&] { (void)g.do_call("key", {.timeout = 1min}, [] { return 0; }); });
    return 42;
  });
  EXPECT_EQ(*result, 42);
  EXPECT_EQ(support::call_error_of(told), circle);
  elsewhere.join();
  expect_idle(g);
}

TEST(CircleThroughAnExecutor, IsRefusedToAFollowerOfACallThatHasNotBegun) {
  group<std::string, int> g;
  support::task_queue queue;
  std::vector<std::exception_ptr> told(2);
  const auto b = g.do_async("b", queue, [&] { return *g.do_call("a", [] { return 0; }); });
  support::threads leader;
  leader.start([&] {
    told[0] = support::thrown_by(
        [&] { (void)g.do_call("a", [&] { return *g.do_call("b", [] { return 0; }); }); });
  });
  support::await_followers(g, 1);
  queue.run();
  leader.join();
  told[1] = support::thrown_by([&] { (void)b.get(); });
  EXPECT_EQ(support::call_error_of(told[0]), circle);
  support::expect_same(told[0], told[1]);
  EXPECT_EQ(g.stats().rejected, 1U);
  expect_idle(g);
}

TEST(CircleThroughAnExecutor, ThatWantsTheCallThatItIsGivenIsRefused) {
  group<std::string, int> g;
  std::exception_ptr told;
  const auto result = g.do_call_on(
      "key",
      [&](const auto& task) {
        told = support::thrown_by([&] { (void)g.do_call("key", [] { return 0; }); });
        task();
      },
      {}, [] { return 42; });
  EXPECT_EQ(*result, 42);
  EXPECT_EQ(support::call_error_of(told), circle);
  EXPECT_EQ(g.stats().rejected, 1U);
  expect_idle(g);
}

TEST(CircleThroughAnExecutor, ThatWantsWhatWaitsForTheCallThatItIsGivenIsRefused) {
  group<std::string, int> g;
  std::exception_ptr told;
  support::threads other;
  (void)g.do_call_on(
      "a",
      [&](const auto& task) {
        other.start([&] {
          EXPECT_EQ(*g.do_call("b", [&] { return *g.do_call("a", [] { return 0; }); }), 42);
        });
        support::await_followers(g, 2);
        told = support::thrown_by([&] { (void)g.do_call("b", [] { return 0; }); });
        task();
      },
      {}, [] { return 42; });
  other.join();
  EXPECT_EQ(support::call_error_of(told), circle);
  EXPECT_EQ(g.stats().rejected, 1U);
  expect_idle(g);
}

struct one_hash {
  std::size_t operator()(int) const { return 42; }
};

/// A comparison that blocks, and so holds the lock of its group, until it is told to go on or for a
/// while.
struct slow_equal {
  std::atomic<bool>* compares;
  const std::atomic<bool>* goes_on;

  bool operator()(int a, int b) const {
    if (a != b) *compares = true;
    for (int i = 0; a != b && i < 100 && !*goes_on; ++i) std::this_thread::yield();
    return a == b;
  }
};

// A pool's thread may claim a call before the executor has returned, and become its leader after.
// The caller, back at the group in between, was taken for the leader and refused. Here the pool's
// thread has claimed the call and waits for the lock, which another thread holds until the caller
// is back.
TEST(CircleThroughAnExecutor, IsNotSeenByACallerThatHasGivenItsCallAway) {
  for (int round = 0; round < 400; ++round) {
    std::atomic<bool> compares{false}, back{false}, let_go{false}, runs{false};
    group<int, int, one_hash, slow_equal> g({.shards = 1}, {}, {&compares, &back});
    support::threads others;
    const auto future = g.do_async(
        0,
        [&](const auto& task) {
          others.start([&] {
            g.forget(1);
            let_go = true;
          });
          support::await([&] { return compares.load() || let_go.load(); }, "the lock to be held");
          others.start([&runs, task] {
            runs = true;
            task();
          });
          support::await([&] { return runs.load(); }, "the pool");
          for (int i = 0; i < 20; ++i) std::this_thread::yield();
        },
        [] { return 1; });
    back = true;
    while (!let_go) {  // without yielding, to be first at the lock
    }
    ASSERT_EQ(*g.do_call(0, [] { return 1; }), 1);
    others.join();
    EXPECT_EQ(future.get(), 1);
  }
}

// Whatever deadlines there are: a circle that is closed cannot end by waiting.
TEST(CircleOfWaits, ThatADeadlineWouldEndIsRefusedAtOnce) {
  group<std::string, int> g;
  support::threads other;
  const call_options far{.deadline = std::chrono::steady_clock::now() + 1h};
  const auto a = g.do_call("a", [&] {
    other.start([&] {
      EXPECT_EQ(*g.do_call("b", [&] { return *g.do_call("a", far, [] { return 0; }); }), 42);
    });
    support::await_followers(g, 1);
    const auto told = support::thrown_by([&] { (void)g.do_call("b", far, [] { return 0; }); });
    EXPECT_EQ(support::call_error_of(told), std::errc::resource_deadlock_would_occur);
    return 42;
  });
  other.join();
  EXPECT_EQ(*a, 42);
  EXPECT_EQ(g.stats().timed_out, 0U);
  EXPECT_EQ(g.stats().rejected, 1U);
  expect_idle(g);
}

#if defined(__cpp_lib_jthread)

TEST(CircleOfWaits, ThatAStopRequestWouldEndIsRefusedAtOnce) {
  group<std::string, int> g;
  std::stop_source stop;
  support::threads other;
  const call_options stoppable{.timeout = 1h, .stop = stop.get_token()};
  const auto a = g.do_call("a", [&] {
    other.start([&] {
      EXPECT_EQ(*g.do_call("b", [&] { return *g.do_call("a", stoppable, [] { return 0; }); }), 42);
    });
    support::await_followers(g, 1);
    const auto told =
        support::thrown_by([&] { (void)g.do_call("b", stoppable, [] { return 0; }); });
    EXPECT_EQ(support::call_error_of(told), std::errc::resource_deadlock_would_occur);
    return 42;
  });
  other.join();
  EXPECT_EQ(*a, 42);
  EXPECT_EQ(g.stats().cancelled, 0U);
  expect_idle(g);
}

#endif

TEST(CircleOfWaits, ThatGrowsTooOldIsRefusedInOne) {
  group<int, int> g({.max_age = 1h});
  std::atomic<int> refused{0};
  support::threads(2, [&](std::size_t i) {
    const int key = static_cast<int>(i);
    EXPECT_EQ(*g.do_call(key,
                         [&] {
                           support::await([&] { return g.stats().led == 2; }, "both calls");
                           try {
                             return *g.do_call(1 - key, [] { return 0; });
                           } catch (const call_error&) {
                             ++refused;
                             return 42;
                           }
                         }),
              42);
  });
  EXPECT_EQ(refused, 1);
}

// Each loader calls only for keys above its own, so that there is never a circle. But a thread goes
// on to its next key while some that waited for its last one have not woken up yet.
TEST(CircleOfWaits, IsNeverSeenWhereThereIsNone) {
  constexpr int keys = 4, rounds = 2000;
  group<int, int> g;
  std::atomic<int> alarms{0};
  std::atomic_flag crowded;  // std::atomic<bool>::exchange would need libatomic on riscv64
  std::function<int(int)> value = [&](int key) -> int {
    return g.do_call(key, [&, key] {
      int sum = 1;
      for (int above = keys - 1; above > key; --above) sum += value(above);
      if (key == keys - 1 && !crowded.test_and_set()) {
        support::await([&] { return g.stats().waiting > 0; }, "a follower");
      }
      std::this_thread::yield();
      return sum;
    });
  };
  support::threads(8, [&](std::size_t i) {
    for (int round = 0; round < rounds; ++round) {
      const int key = static_cast<int>((i + static_cast<std::size_t>(round)) % keys);
      try {
        ASSERT_EQ(value(key), 1 << (keys - 1 - key));
      } catch (const call_error&) {
        ++alarms;
      }
    }
  });
  EXPECT_EQ(alarms, 0);
  EXPECT_EQ(g.stats().rejected, 0U);
  EXPECT_GE(g.stats().led + g.stats().joined, std::uint64_t{8 * rounds});
  expect_idle(g);
}

}  // namespace
