// SPDX-License-Identifier: MIT
// The group's destructor waits for the calls that executors still have; no call outlives it.

#include <gtest/gtest.h>

#include <atomic>
#include <functional>
#include <future>
#include <memory>
#include <singleflight/group.hpp>
#include <stdexcept>
#include <string>
#include <system_error>
#include <thread>
#include <utility>

#include "executors.hpp"
#include "support.hpp"

namespace {

using strings = singleflight::group<std::string, std::string>;

/// Gives the other threads time to do what they must not do yet. It orders nothing.
void let_others_run() {
  for (int i = 0; i < 1000; ++i) std::this_thread::yield();
}

/// A group that a thread of its own destroys.
class doomed_group {
 public:
  strings& get() { return *group_; }
  void destroy() {
    destroyer_.start([this] {
      begun_ = true;
      group_.reset();
      over_ = true;
    });
    support::await([&] { return begun_.load(); }, "the destructor to be about to run");
    let_others_run();
  }
  [[nodiscard]] bool destroyed() const { return over_; }
  void join() { destroyer_.join(); }

 private:
  std::unique_ptr<strings> group_ = std::make_unique<strings>();
  std::atomic<bool> begun_{false}, over_{false};
  support::threads destroyer_;
};

/// A part of a loader, whose destructor says so.
class part {
 public:
  explicit part(std::function<void()> at_end) : at_end_(std::move(at_end)) {}
  part(const part&) = delete;
  part& operator=(const part&) = delete;
  ~part() { at_end_(); }

 private:
  std::function<void()> at_end_;
};

TEST(GroupDestructor, WaitsForALoaderThatRunsOnAnExecutor) {
  support::thread_executor elsewhere;
  doomed_group g;
  std::atomic<bool> running{false}, release{false};
  const auto future = g.get().do_async("key", elsewhere, [&] {
    running = true;
    support::await([&] { return release.load(); }, "the test");
    let_others_run();
    EXPECT_FALSE(g.destroyed());
    return std::string(100, 'x');
  });
  support::await([&] { return running.load(); }, "the loader to run");
  g.destroy();
  EXPECT_FALSE(g.destroyed());
  release = true;
  g.join();
  EXPECT_EQ(future.get(), std::string(100, 'x'));
}

TEST(GroupDestructor, WaitsForATaskThatTheExecutorHasQueued) {
  support::task_queue queue;
  doomed_group g;
  const auto future = g.get().do_async("key", queue, [] { return std::string(100, 'x'); });
  g.destroy();
  EXPECT_FALSE(g.destroyed());
  queue.run();
  g.join();
  EXPECT_EQ(future.get(), std::string(100, 'x'));
}

// That thread has given the call away, so another can end it.
TEST(GroupDestructor, WaitsOnTheThreadThatHasQueuedTheTask) {
  support::task_queue queue;
  std::atomic<bool> begun{false}, over{false};
  auto g = std::make_unique<strings>();
  const auto future = g->do_async("key", queue, [&] {
    EXPECT_FALSE(over);
    return std::string(100, 'x');
  });
  const support::threads another(1, [&](std::size_t) {
    support::await([&] { return begun.load(); }, "the destructor to be about to run");
    let_others_run();
    queue.run();
  });
  begun = true;
  g.reset();
  over = true;
  EXPECT_EQ(future.get(), std::string(100, 'x'));
}

TEST(GroupDestructor, WaitsUntilTheExecutorDropsTheTask) {
  support::task_queue queue;
  doomed_group g;
  const auto future = g.get().do_async("key", queue, [] { return ""; });
  g.destroy();
  EXPECT_FALSE(g.destroyed());
  queue.drop();
  g.join();
  EXPECT_EQ(support::call_error_of(support::thrown_by([&] { (void)future.get(); })),
            std::errc::owner_dead);
}

TEST(GroupDestructor, WaitsForACallThatIsListedNoMore) {
  support::task_queue queue;
  doomed_group g;
  const auto future = g.get().do_async("key", queue, [] { return std::string(100, 'x'); });
  ASSERT_TRUE(g.get().forget("key"));
  g.destroy();
  EXPECT_FALSE(g.destroyed());
  queue.run();
  g.join();
  EXPECT_EQ(future.get(), std::string(100, 'x'));
}

TEST(GroupDestructor, WaitsForTheLoadersOfAllCalls) {
  constexpr int calls = 8;
  support::task_queue queue;
  doomed_group g;
  for (int i = 0; i < calls; ++i) {
    (void)g.get().do_async(std::to_string(i), queue, [] { return ""; });
  }
  g.destroy();
  auto tasks = queue.take();
  while (tasks.size() > 1) {
    tasks.back()();
    tasks.pop_back();
  }
  let_others_run();
  EXPECT_FALSE(g.destroyed());
  tasks.back()();
  g.join();
}

TEST(GroupDestructor, WaitsUntilTheLoaderIsDestroyed) {
  enum class fate { run, throw_, drop };
  for (const fate f : {fate::run, fate::throw_, fate::drop}) {
    support::task_queue queue;
    doomed_group g;
    std::atomic<bool> gone{false};
    auto captured = std::make_shared<part>([&] {
      let_others_run();
      EXPECT_FALSE(g.destroyed());
      gone = true;
    });
    const auto future =
        g.get().do_async("key", queue, [f, keep = std::move(captured)]() -> std::string {
          if (f == fate::throw_) throw std::runtime_error("no such row");
          return "";
        });
    g.destroy();
    auto tasks = queue.take();  // which outlive the group
    if (f == fate::drop) {
      tasks.clear();
    } else {
      tasks.front()();
    }
    g.join();
    EXPECT_TRUE(gone);
    const auto kept = support::thrown_by([&] { (void)future.get(); });
  }
}

TEST(TaskOfAnExecutor, DoesNothingWhenItOutlivesTheGroup) {
  int loads = 0;
  std::function<void()> task;
  std::weak_ptr<int> watched;
  {
    strings g;
    const auto captured = std::make_shared<int>(0);
    watched = captured;
    const auto future = g.do_async(
        std::string(100, 'k'), [&](const auto& t) { task = t; },
        [&loads, captured] {
          ++loads;
          return "";
        });
    task();
    EXPECT_EQ(captured.use_count(), 1);
  }
  EXPECT_TRUE(watched.expired());
  task();
  const auto copy = task;
  task = nullptr;
  copy();
  EXPECT_EQ(loads, 1);
}

TEST(TaskOfAnExecutor, DoesNothingWhenItOutlivesAGroupWhoseCallFailedWithoutIt) {
  int loads = 0;
  std::function<void()> task;
  {
    strings g;
    const auto future = g.do_async(
        std::string(100, 'k'),
        [&](const auto& t) {
          task = t;
          throw std::runtime_error("the pool is shut down");
        },
        [&loads] {
          ++loads;
          return "";
        });
    EXPECT_THROW((void)future.get(), std::runtime_error);
  }
  task();
  task = nullptr;
  EXPECT_EQ(loads, 0);
}

TEST(TaskOfAnExecutor, DoesNothingWhenItIsDestroyedAfterTheGroup) {
  std::function<void()> task;
  {
    strings g;
    (void)g.do_async(
        "key", [&](const auto& t) { task = t; }, [] { return ""; });
    task();
  }
  task = nullptr;
}

TEST(TaskOfAnExecutor, MayBeOverwrittenWhileItRuns) {
  strings g;
  std::function<void()> slot;
  const auto future = g.do_async(
      "key", [&](const auto& t) { slot = t; },
      [&, text = std::string(100, 'x')] {
        slot = nullptr;
        return text;
      });
  slot();
  EXPECT_EQ(future.get(), std::string(100, 'x'));
}

TEST(TaskOfAnExecutor, MayBeCopiedAfterItWasMovedFrom) {
  strings g;
  std::function<void()> slot;
  const auto future = g.do_async(
      "key",
      [&](auto task) {
        slot = std::move(task);
        auto empty = task;
        empty = slot.target<decltype(task)>() != nullptr ? *slot.target<decltype(task)>() : task;
        slot = std::move(empty);
      },
      [] { return std::string("text"); });
  slot();
  EXPECT_EQ(future.get(), "text");
}

TEST(FutureOfDoAsync, OutlivesTheGroup) {
  std::shared_future<std::string> future;
  {
    strings g;
    future = g.do_async("key", support::inline_executor, [] { return std::string(100, 'x'); });
  }
  EXPECT_EQ(future.get(), std::string(100, 'x'));
}

TEST(LoaderOnAnExecutor, IsDestroyedOutsideAnyLock) {
  strings g;
  support::task_queue queue;
  int reentered = 0;
  for (const bool run : {true, false}) {
    auto captured = std::make_shared<part>([&] {
      EXPECT_EQ(g.do_call("key", [] { return "inner"; }).value(), "inner");
      EXPECT_EQ(g.stats().in_flight, 0U);
      ++reentered;
    });
    const auto future = g.do_async("key", queue, [keep = std::move(captured)] { return "outer"; });
    if (run) {
      queue.run();
    } else {
      queue.drop();
    }
    const auto kept = support::thrown_by([&] { (void)future.get(); });
    EXPECT_EQ(kept == nullptr, run);
  }
  EXPECT_EQ(reentered, 2);
}

}  // namespace
