// SPDX-License-Identifier: MIT
// Executors that throw or drop the task, loaders that cannot be copied, and threads that exit:
// every caller of the call gets an error that says so.

#include <gtest/gtest.h>
#if !defined(_WIN32)
#include <pthread.h>
#endif

#include <atomic>
#include <cstddef>
#include <exception>
#include <functional>
#include <future>
#include <memory>
#include <singleflight/group.hpp>
#include <stdexcept>
#include <string>
#include <system_error>
#include <utility>
#include <vector>

#include "executors.hpp"
#include "support.hpp"

namespace {

using singleflight::group;

struct refused : std::runtime_error {
  refused() : std::runtime_error("the pool is shut down") {}
};

/// A call begun by `do_call_on`, with a follower by `do_call`, one by `do_call_on` and one by
/// `do_async`, and the exception of each of the four.
class joined_call {
 public:
  static constexpr std::size_t callers = 4;

  group<std::string, int> g;
  std::atomic<int> loads{0};
  support::task_queue queue;
  std::vector<std::exception_ptr> told = std::vector<std::exception_ptr>(callers);

  /// Begins it. The call of `executor`, or its task, ends only when all have joined.
  template <class Executor>
  void begin(const Executor& executor) {
    begin(executor, [this] { return ++loads; });
  }
  template <class Executor, class Fn>
  void begin(const Executor& executor, const Fn& load) {
    begin_alone(
        [&](const auto& task) {
          let_others_join();
          executor(task);
        },
        load);
  }
  /// Begins it, and leaves it to the executor or the loader to let the others join.
  template <class Executor, class Fn>
  void begin_alone(const Executor& executor, const Fn& load) {
    told[0] = support::thrown_by([&] { (void)g.do_call_on("key", executor, {}, load); });
    others_.join();
  }
  void let_others_join() {
    others_.start([this] { told[1] = support::thrown_by([this] { (void)g.do_call("key", no); }); });
    others_.start([this] {
      told[2] = support::thrown_by([this] { (void)g.do_call_on("key", queue, {}, no); });
    });
    others_.start([this] {
      told[3] = support::thrown_by([this] { (void)g.do_async("key", queue, no).get(); });
    });
    support::await_followers(g, callers);
  }
  void expect_failed() {
    for (const std::exception_ptr& e : told) {
      ASSERT_NE(e, nullptr);
      support::expect_same(e, told.front());
    }
    EXPECT_EQ(g.stats().failed, 1U);
    EXPECT_EQ(g.stats().led, 1U);
    expect_over();
  }
  void expect_succeeded() {
    for (const std::exception_ptr& e : told) EXPECT_EQ(e, nullptr);
    EXPECT_EQ(loads, 1);
    EXPECT_EQ(g.stats().failed, 0U);
    expect_over();
  }

 private:
  static int no() {
    ADD_FAILURE() << "a follower's loader ran";
    return 0;
  }
  void expect_over() {
    EXPECT_EQ(g.stats().joined, callers - 1);
    EXPECT_EQ(g.stats().in_flight, 0U);
    EXPECT_EQ(g.stats().waiting, 0U);
    EXPECT_EQ(*g.do_call("key", [] { return 42; }), 42);
  }

  support::threads others_;
};

TEST(ExecutorThatThrows, FailsTheCallForEverybody) {
  joined_call call;
  call.begin([](const auto&) { throw refused(); });
  call.expect_failed();
  EXPECT_THROW(std::rethrow_exception(call.told[0]), refused);
  EXPECT_EQ(call.loads, 0);
}

TEST(ExecutorThatThrows, FailsTheCallThoughItHasQueuedTheTask) {
  joined_call call;
  std::function<void()> queued;
  call.begin([&](const auto& task) {
    queued = task;
    throw refused();
  });
  queued();
  call.expect_failed();
  EXPECT_THROW(std::rethrow_exception(call.told[0]), refused);
  EXPECT_EQ(call.loads, 0);
}

TEST(ExecutorThatThrows, ChangesNothingAfterItHasRunTheTask) {
  joined_call call;
  call.begin([](const auto& task) {
    task();
    throw refused();
  });
  call.expect_succeeded();
}

TEST(ExecutorThatThrows, ChangesNothingWhileTheTaskRunsElsewhere) {
  joined_call call;
  support::threads elsewhere;
  std::atomic<bool> begun{false}, thrown{false};
  struct at_unwinding {
    std::atomic<bool>& flag;
    ~at_unwinding() { flag = true; }
  };
  call.begin(
      [&](const auto& task) {
        const at_unwinding leaving{thrown};
        elsewhere.start(task);
        support::await([&] { return begun.load(); }, "the loader to begin");
        throw refused();
      },
      [&] {
        begun = true;
        support::await([&] { return thrown.load(); }, "the executor to have thrown");
        return ++call.loads;
      });
  elsewhere.join();
  call.expect_succeeded();
}

TEST(ExecutorThatThrows, IsToldOfByTheFutureOfDoAsync) {
  group<std::string, int> g;
  std::shared_future<int> future;
  ASSERT_NO_THROW(future = g.do_async(
                      "key", [](const auto&) { throw refused(); }, [] { return 0; }));
  EXPECT_THROW((void)future.get(), refused);
  EXPECT_EQ(g.stats().led, 1U);
  EXPECT_EQ(g.stats().failed, 1U);
}

TEST(ExecutorThatDropsTheTask, FailsTheCallForEverybody) {
  joined_call call;
  call.begin([](const auto&) {});
  call.expect_failed();
  EXPECT_EQ(support::call_error_of(call.told[0]), std::errc::owner_dead);
  EXPECT_EQ(call.loads, 0);
}

TEST(ExecutorThatDropsTheTask, FailsTheCallWhenItIsDestroyedWithTheTaskQueued) {
  joined_call call;
  support::threads destroyer;
  auto queue = std::make_unique<support::task_queue>();
  call.begin([&](const auto& task) {
    (*queue)(task);
    destroyer.start([&] {
      support::await_followers(call.g, joined_call::callers);
      queue.reset();
    });
  });
  destroyer.join();
  call.expect_failed();
  EXPECT_EQ(support::call_error_of(call.told[0]), std::errc::owner_dead);
  EXPECT_EQ(call.loads, 0);
}

TEST(ExecutorThatDropsTheTask, FailsTheCallOfAGroupOfVoid) {
  group<std::string, void> g;
  const auto future = g.do_async(
      "key", [](const auto&) {}, [] {});
  EXPECT_EQ(support::call_error_of(support::thrown_by([&] { future.get(); })),
            std::errc::owner_dead);
}

TEST(LoaderOnAnExecutor, FailsTheCallForEverybodyIfItsCopyThrows) {
  struct loader {
    joined_call& call;
    explicit loader(joined_call& c) : call(c) {}
    loader(const loader& other) : call(other.call) {
      call.let_others_join();
      throw refused();
    }
    loader& operator=(const loader&) = delete;
    ~loader() = default;
    int operator()() const { return ++call.loads; }
  };
  joined_call call;
  bool launched = false;
  call.begin_alone([&](const auto&) { launched = true; }, loader(call));
  call.expect_failed();
  EXPECT_THROW(std::rethrow_exception(call.told[0]), refused);
  EXPECT_FALSE(launched);
  EXPECT_EQ(call.loads, 0);
}

TEST(LoaderOnAnExecutor, FailsTheCallForEverybodyByWhatItThrows) {
  joined_call call;
  call.begin([](const auto& task) { task(); }, []() -> int { throw refused(); });
  call.expect_failed();
  EXPECT_THROW(std::rethrow_exception(call.told[0]), refused);
}

TEST(LoaderOnAnExecutor, FailsTheCallForEverybodyIfItsValueCannotBeMoved) {
#ifdef SINGLEFLIGHT_TESTS_CALL_ONCE_HANGS
  GTEST_SKIP() << "std::call_once, in std::promise, hangs once its function has thrown";
#endif
  struct immovable {
    explicit immovable(int) {}  // MSVC's std::promise would use a default constructor, and assign
    immovable(immovable&&) { throw refused(); }
  };
  group<std::string, immovable> g;
  support::task_queue queue;
  const auto first = g.do_async("key", queue, [] { return immovable(0); });
  const auto second = g.do_async("key", queue, [] { return immovable(0); });
  EXPECT_NO_THROW(queue.run());
  const std::exception_ptr told = support::thrown_by([&] { (void)first.get(); });
  ASSERT_NE(told, nullptr);
  EXPECT_THROW(std::rethrow_exception(told), refused);
  support::expect_same(support::thrown_by([&] { (void)second.get(); }), told);
  EXPECT_EQ(g.stats().failed, 1U);
  EXPECT_EQ(g.stats().in_flight, 0U);
}

#if defined(SINGLEFLIGHT_TESTS_THREAD_EXIT_UNWINDS)
TEST(LoaderOnAnExecutor, FailsTheCallForEverybodyIfItsThreadExits) {
  joined_call call;
  const auto capture = std::make_shared<int>(0);
  pthread_t thread{};
  std::function<void()> run;
  bool returned = false;
  std::function<void()> body = [&] {
    std::exchange(run, nullptr)();
    returned = true;
  };
  call.begin(
      [&](const auto& task) {
        run = task;
        const auto start = [](void* f) -> void* {
          (*static_cast<std::function<void()>*>(f))();
          return nullptr;
        };
        ASSERT_EQ(pthread_create(&thread, nullptr, start, &body), 0);
      },
      [&call, capture]() -> int {
        ++call.loads;
        pthread_exit(&call);
      });
  void* exited_with = nullptr;
  EXPECT_EQ(pthread_join(thread, &exited_with), 0);
  EXPECT_EQ(exited_with, &call);
  EXPECT_FALSE(returned);
  EXPECT_EQ(call.loads, 1);
  EXPECT_EQ(capture.use_count(), 1);
  call.expect_failed();
  EXPECT_EQ(support::call_error_of(call.told[0]), std::errc::owner_dead);
}

TEST(ExecutorThatExitsItsThread, FailsTheCallThoughItHasQueuedTheTask) {
  group<std::string, int> g;
  std::function<void()> queued;
  std::shared_future<int> joined;
  support::threads caller;
  caller.start([&] {
    (void)g.do_async(
        "key",
        [&](const auto& task) {
          queued = task;
          joined = g.do_async("key", support::inline_executor, [] { return 0; });
          pthread_exit(nullptr);
        },
        [] { return 42; });
  });
  caller.join();
  queued();
  EXPECT_EQ(support::call_error_of(support::thrown_by([&] { (void)joined.get(); })),
            std::errc::owner_dead);
  EXPECT_EQ(g.stats().failed, 1U);
  EXPECT_EQ(g.stats().in_flight, 0U);
}
#endif

}  // namespace
