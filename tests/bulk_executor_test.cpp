// SPDX-License-Identifier: MIT
// `do_many_on`: the loader runs on an executor, and every caller can leave.
#include <gtest/gtest.h>

#include <atomic>
#include <chrono>
#include <cstddef>
#include <exception>
#include <functional>
#include <future>
#include <optional>
#include <singleflight/group.hpp>
#include <stdexcept>
#include <system_error>
#include <thread>
#include <tuple>
#include <utility>
#include <vector>

#include "support.hpp"

#if defined(__cpp_lib_jthread)
#include <stop_token>
#endif

namespace {

using namespace std::chrono_literals;
using singleflight::call_context;
using singleflight::call_error;
using singleflight::outcome;
using group = singleflight::group<int, int>;

std::errc code_of(const std::exception_ptr& error) {
  try {
    std::rethrow_exception(error);
  } catch (const call_error& e) {
    return static_cast<std::errc>(e.code().value());
  }
}

constexpr auto tenfold = [](auto& missing) {
  for (const int key : missing) missing.set(key, 10 * key);
};

/// Runs each task on a thread of its own, which it joins at the end.
struct threads_executor {
  support::threads threads;
  template <class Task>
  void operator()(Task task) {
    threads.start(std::move(task));
  }
};

constexpr auto at_once = [](const auto& task) { task(); };

TEST(BulkOnExecutor, GivesEachPositionItsValue) {
  group flights;
  threads_executor elsewhere;
  std::thread::id ran;
  const auto rows = flights.do_many_on({3, 1, 3}, elsewhere, {}, [&](auto& missing) {
    ran = std::this_thread::get_id();
    EXPECT_EQ(missing.size(), 2U);
    EXPECT_EQ(missing[0], 3);
    tenfold(missing);
  });
  elsewhere.threads.join();
  EXPECT_NE(ran, std::this_thread::get_id());
  EXPECT_EQ(rows[0].value(), 30);
  EXPECT_EQ(rows[1].value(), 10);
  EXPECT_EQ(&rows[0].value(), &rows[2].value());
  EXPECT_EQ(flights.stats().led, 2U);
  EXPECT_EQ(flights.stats().batches, 1U);
  support::expect_idle(flights);
}

TEST(BulkOnExecutor, WorksOnAnExecutorThatRunsItsTasksAtOnce) {
  group flights;
  const auto rows = flights.do_many_on({1, 2}, at_once, {}, [](auto& missing) {
    missing.set(2, 5);
    return std::vector<std::pair<int, int>>{{1, 4}, {2, 6}};
  });
  EXPECT_EQ(rows[0].value(), 4);
  EXPECT_EQ(rows[1].value(), 5);
}

TEST(BulkOnExecutor, RunsOneBatchAfterTheOther) {
  group flights;
  threads_executor elsewhere;
  std::vector<std::size_t> sizes;
  const auto rows =
      flights.do_many_on({1, 2, 3, 4, 5}, elsewhere, {.max_batch = 2}, [&](auto& missing) {
        sizes.push_back(missing.size());
        missing.rest(7);
      });
  elsewhere.threads.join();
  EXPECT_EQ(sizes, (std::vector<std::size_t>{2, 2, 1}));
  for (const auto& row : rows) EXPECT_EQ(row.value(), 7);
}

TEST(BulkOnExecutor, FailsWhatTheLoaderHasNotSettled) {
  group flights;
  const auto quiet =
      flights.do_many_on({1, 2}, at_once, {}, [](auto& missing) { missing.set(1, 1); });
  EXPECT_EQ(quiet[0].value(), 1);
  EXPECT_EQ(code_of(quiet[1].error()), std::errc::no_such_file_or_directory);
  const auto thrown = flights.do_many_on({1, 2}, at_once, {}, [](auto& missing) {
    missing.fail(2, std::make_exception_ptr(std::logic_error("bad key")));
    throw std::runtime_error("connection reset");
  });
  EXPECT_THROW(thrown[0].value(), std::runtime_error);
  EXPECT_THROW(thrown[1].value(), std::logic_error);
  support::expect_idle(flights);
}

TEST(BulkOnExecutor, FailsIfTheExecutorThrowsOrDropsTheTask) {
  group flights;
  const auto full = [](const auto&) { throw std::runtime_error("the queue is full"); };
  const auto refused = flights.do_many_on({1, 2}, full, {}, tenfold);
  EXPECT_THROW(refused[0].value(), std::runtime_error);
  support::expect_same(refused[0].error(), refused[1].error());
  const auto drops = [](const auto&) {};
  EXPECT_EQ(code_of(flights.do_many_on({1}, drops, {}, tenfold)[0].error()), std::errc::owner_dead);
  std::function<void()> kept;
  const auto twice = [&](auto task) {
    task();
    kept = task;
    kept();
  };
  EXPECT_EQ(flights.do_many_on({1}, twice, {}, tenfold)[0].value(), 10);
  kept();
  support::expect_idle(flights);
}

TEST(BulkOnExecutor, LetsEveryCallerLeave) {
  group flights;
  std::promise<void> go;
  threads_executor elsewhere;
  const auto rows =
      flights.do_many_on({1, 2}, elsewhere, {.call = {.timeout = 20ms}}, [&](auto& missing) {
        missing.set(1, 10);
        go.get_future().wait();
        EXPECT_FALSE(missing.wanted(1));
        EXPECT_EQ(missing[1], 2) << "the batch has its keys";
        EXPECT_TRUE(missing.set(2, 20)) << "by hash and equality";
      });
  EXPECT_EQ(code_of(rows[1].error()), std::errc::timed_out);
  EXPECT_TRUE(rows[0].has_value() || code_of(rows[0].error()) == std::errc::timed_out);
  go.set_value();
  elsewhere.threads.join();
  support::expect_idle(flights);
}

#if defined(__cpp_lib_jthread)
TEST(BulkOnExecutor, DoesNotLoadWhatNobodyWantsAnyMore) {
  group flights;
  std::vector<std::function<void()>> tasks;
  std::stop_source all;
  const auto queue = [&](auto task) {
    tasks.emplace_back(std::move(task));
    all.request_stop();
  };
  const auto rows = flights.do_many_on({1, 2}, queue, {.call = {.stop = all.get_token()}},
                                       [](auto&) { FAIL() << "nobody wants it"; });
  EXPECT_EQ(code_of(rows[0].error()), std::errc::operation_canceled);
  tasks[0]();
  support::expect_idle(flights);

  // Of three keys one has a follower who stays.
  tasks.clear();
  std::stop_source one;
  std::thread follower;
  std::vector<int> loaded;
  const auto queue_joined = [&](auto task) {
    tasks.emplace_back(std::move(task));
    follower = std::thread([&] { EXPECT_EQ(*flights.do_call(2, [] { return 0; }), 20); });
    support::await([&] { return flights.stats().joined == 1; }, "the follower");
    one.request_stop();
  };
  std::ignore = flights.do_many_on({1, 2, 3}, queue_joined, {.call = {.stop = one.get_token()}},
                                   [&](auto& missing) {
                                     loaded.assign(missing.begin(), missing.end());
                                     EXPECT_FALSE(missing.set(1, 5)) << "not in the batch";
                                     tenfold(missing);
                                   });
  tasks[0]();
  follower.join();
  EXPECT_EQ(loaded, std::vector{2});
  support::expect_idle(flights);
}
#endif

TEST(BulkOnExecutor, JoinsTheCallsOfOthersAndIsJoined) {
  group flights;
  threads_executor elsewhere;
  std::thread other;
  const auto rows = flights.do_many_on({1, 2}, elsewhere, {}, [&](auto& missing) {
    other = std::thread([&] {
      const auto theirs = flights.do_many({2, 3, 1}, tenfold);
      for (const auto& row : theirs) EXPECT_TRUE(row.has_value());
    });
    support::await([&] { return flights.stats().joined == 2; }, "the other bulk");
    tenfold(missing);
  });
  elsewhere.threads.join();
  other.join();
  EXPECT_EQ(rows[1].value(), 20);
  support::expect_idle(flights);
}

// While the executor has the task nobody leads its calls; then the thread that runs it does.
TEST(BulkOnExecutor, IsSeenInCircles) {
  group flights;
  const auto rows = flights.do_many_on({1, 2}, at_once, {}, [&](auto& missing) {
    const auto inner = flights.do_many({2, 3}, tenfold);
    EXPECT_EQ(code_of(inner[0].error()), std::errc::resource_deadlock_would_occur);
    EXPECT_EQ(inner[1].value(), 30);
    tenfold(missing);
  });
  EXPECT_EQ(rows[1].value(), 20);
}

#if defined(__cpp_lib_jthread)
TEST(BulkOnExecutor, IsToldToStopWhenAllHaveLeft) {
  group flights;
  std::stop_source caller;
  threads_executor elsewhere;
  const auto rows = flights.do_many_on({1, 2}, elsewhere, {.call = {.stop = caller.get_token()}},
                                       [&](auto& missing, const call_context& context) {
                                         const std::stop_token told = context.stop_token();
                                         EXPECT_FALSE(told.stop_requested());
                                         caller.request_stop();
                                         support::await([&] { return told.stop_requested(); },
                                                        "the loader to be stopped");
                                         EXPECT_FALSE(context.forgotten());
                                         missing.rest(1);
                                       });
  elsewhere.threads.join();
  EXPECT_EQ(code_of(rows[0].error()), std::errc::operation_canceled);
  EXPECT_EQ(flights.stats().cancelled, 2U);
}
#endif

// The destructor waits for the loader, also when it has settled all its keys and goes on.
TEST(BulkOnExecutor, IsWaitedForByTheDestructor) {
  std::atomic<bool> ended = false;
  threads_executor elsewhere;
  {
    std::optional<group> flights(std::in_place);
    const auto rows = flights->do_many_on({1, 2}, elsewhere, {}, [&](auto& missing) {
      missing.rest(1);
      for (int i = 0; i < 1000; ++i) {
        std::this_thread::yield();
        EXPECT_FALSE(missing.wanted(0));
        EXPECT_FALSE(missing.set(5, 1));
      }
      ended = true;
    });
    EXPECT_TRUE(rows[1].has_value());
    flights.reset();
    EXPECT_TRUE(ended);
  }
}

}  // namespace
