// SPDX-License-Identifier: MIT
// Executors run the loader of a call at once, elsewhere, late, or are asked to run it again.

#include <gtest/gtest.h>

#include <atomic>
#include <chrono>
#include <cstddef>
#include <functional>
#include <future>
#include <memory>
#include <singleflight/group.hpp>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "executors.hpp"
#include "support.hpp"

namespace {

using singleflight::group;
using support::expect_idle;
using support::inline_executor;

template <class T>
bool is_ready(const std::shared_future<T>& future) {
  return future.wait_for(std::chrono::seconds(0)) == std::future_status::ready;
}

TEST(Executor, MayRunTheLoaderInline) {
  group<std::string, std::thread::id> g;
  const auto load = [] { return std::this_thread::get_id(); };
  auto result = g.do_call_on("key", inline_executor, {}, load);
  EXPECT_EQ(*result, std::this_thread::get_id());
  EXPECT_TRUE(result.led());
  EXPECT_FALSE(result.shared());
  const auto future = g.do_async("key", inline_executor, load);
  ASSERT_TRUE(is_ready(future));
  EXPECT_EQ(future.get(), std::this_thread::get_id());
  EXPECT_EQ(g.stats().led, 2U);
  expect_idle(g);
}

TEST(Executor, MayRunTheLoaderOnAnotherThread) {
  group<std::string, std::thread::id> g;
  support::thread_executor elsewhere;
  const auto load = [] { return std::this_thread::get_id(); };
  auto result = g.do_call_on("key", elsewhere, {}, load);
  EXPECT_NE(*result, std::this_thread::get_id());
  EXPECT_TRUE(result.led());
  EXPECT_NE(g.do_async("key", elsewhere, load).get(), std::this_thread::get_id());
  elsewhere.join();
  expect_idle(g);
}

TEST(Executor, MayRunTheLoaderLate) {
  group<std::string, int> g;
  support::task_queue queue;
  const auto future = g.do_async("key", queue, [] { return 42; });
  EXPECT_FALSE(is_ready(future));
  EXPECT_EQ(g.stats().in_flight, 1U);
  EXPECT_EQ(g.in_flight().size(), 1U);
  queue.run();
  ASSERT_TRUE(is_ready(future));
  EXPECT_EQ(future.get(), 42);
  expect_idle(g);
}

TEST(Executor, MakesTheFirstCallerOfDoCallOnWait) {
  group<std::string, int> g;
  support::task_queue queue;
  support::threads caller;
  std::atomic<bool> returned{false};
  caller.start([&] {
    EXPECT_EQ(*g.do_call_on("key", queue, {}, [] { return 42; }), 42);
    returned = true;
  });
  support::await([&] { return queue.size() == 1; }, "the task");
  EXPECT_EQ(g.stats().waiting, 1U);
  EXPECT_FALSE(returned);
  queue.run();
  caller.join();
  expect_idle(g);
}

TEST(Executor, KeepsItsOwnCopyOfALoader) {
  group<std::string, std::string> g;
  support::task_queue queue;
  auto load = [text = std::string(100, 'x')]() mutable { return std::move(text); };
  const auto future = g.do_async("key", queue, load);
  queue.run();
  EXPECT_EQ(future.get(), std::string(100, 'x'));
  EXPECT_EQ(load(), std::string(100, 'x'));
}

TEST(Executor, TakesALoaderAndAValueThatOnlyMove) {
  group<std::string, std::unique_ptr<int>> g;
  support::task_queue queue;  // of std::function, which wants its tasks copyable
  const auto future =
      g.do_async("key", queue, [n = std::make_unique<int>(42)]() mutable { return std::move(n); });
  queue.run();
  EXPECT_EQ(*future.get(), 42);
  auto result = g.do_call_on("key", inline_executor, {},
                             [n = std::make_unique<int>(43)]() mutable { return std::move(n); });
  EXPECT_EQ(**result, 43);
}

TEST(Executor, MayItselfBeMoveOnlyAndCallableOnce) {
  struct once {
    std::unique_ptr<int> resource = std::make_unique<int>(0);
    void operator()(const std::function<void()>& task) && { task(); }
  };
  group<std::string, int> g;
  EXPECT_EQ(*g.do_call_on("key", once(), {}, [] { return 42; }), 42);
  EXPECT_EQ(g.do_async("key", once(), [] { return 43; }).get(), 43);
}

TEST(Executor, RunsALoaderThatReturnsNothing) {
  group<std::string, void> g;
  support::task_queue queue;
  int loads = 0;
  const auto future = g.do_async("key", queue, [&] { ++loads; });
  EXPECT_FALSE(is_ready(future));
  queue.run();
  EXPECT_NO_THROW(future.get());
  const auto result = g.do_call_on("key", inline_executor, {}, [&] { ++loads; });
  EXPECT_TRUE(result.led());
  EXPECT_EQ(loads, 2);
}

TEST(Executor, IsCalledOutsideAnyLock) {
  group<std::string, int> g({.shards = 1});
  int inside = 0;
  auto result = g.do_call_on(
      "key",
      [&](auto task) {
        EXPECT_EQ(g.stats().in_flight, 1U);
        inside = *g.do_call_on("another", inline_executor, {}, [] { return 1; });
        EXPECT_TRUE(g.forget("key"));
        task();
      },
      {}, [] { return 42; });
  EXPECT_EQ(*result, 42);
  EXPECT_EQ(inside, 1);
  expect_idle(g);
}

TEST(Executor, RunsTheLoaderOnceHoweverManyCopiesOfTheTaskItRuns) {
  constexpr std::size_t copies = 8;
  group<std::string, int> g;
  support::task_queue queue;
  std::atomic<int> loads{0};
  std::atomic<std::size_t> returned{0};
  const auto future = g.do_async("key", queue, [&] {
    support::await([&] { return returned == copies - 1; }, "the other copies to return");
    return ++loads;
  });
  const support::task_queue::task task = queue.take().front();
  support::threads(copies, [&](std::size_t) {
    const auto copy = task;
    copy();
    ++returned;
  });
  EXPECT_EQ(loads, 1);
  EXPECT_EQ(future.get(), 1);
  task();
  EXPECT_EQ(loads, 1);
  EXPECT_EQ(g.stats().led, 1U);
  expect_idle(g);
}

TEST(Executor, MayDropAllCopiesOfTheTaskButTheOneThatItRuns) {
  group<std::string, int> g;
  std::vector<std::function<void()>> copies;
  const auto future = g.do_async(
      "key", [&](const auto& task) { copies.assign(8, task); }, [] { return 42; });
  copies.resize(1);
  EXPECT_FALSE(is_ready(future));
  copies.front()();
  EXPECT_EQ(future.get(), 42);
}

TEST(Executor, GetsNoneOfTheLoadersExceptions) {
  group<std::string, int> g;
  support::task_queue queue;
  const auto future = g.do_async("key", queue, []() -> int { throw 42; });
  EXPECT_NO_THROW(queue.run());
  EXPECT_THROW((void)future.get(), int);
  EXPECT_EQ(g.stats().failed, 1U);
  expect_idle(g);
}

TEST(Executor, MayRunManyCallsAtOnce) {
  constexpr int keys = 32;
  group<int, int> g;
  support::thread_executor elsewhere;
  std::atomic<int> running{0};
  std::vector<std::shared_future<int>> futures;
  for (int key = 0; key < keys; ++key) {
    futures.push_back(g.do_async(key, elsewhere, [&running, key] {
      ++running;
      support::await([&] { return running == keys; }, "the other keys' loaders to run");
      return key;
    }));
  }
  for (int key = 0; key < keys; ++key) {
    EXPECT_EQ(futures[static_cast<std::size_t>(key)].get(), key);
  }
  elsewhere.join();
  expect_idle(g);
}

}  // namespace
