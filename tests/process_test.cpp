// SPDX-License-Identifier: MIT
// What a process does to its groups: it forks while calls are in flight, and it exits while they are.
// Each test looks at the exit status of child processes. An alarm ends one that hangs.

#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <functional>
#include <future>
#include <map>
#include <memory>
#include <new>
#include <optional>
#include <singleflight/coroutine.hpp>
#include <singleflight/group.hpp>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "executors.hpp"
#include "held_call.hpp"
#include "replaced_new.hpp"
#include "support.hpp"
#include "tasks.hpp"

#if defined(SINGLEFLIGHT_TESTS_COVERAGE)
extern "C" void __gcov_dump();  // g++ 12's <gcov.h> forgets that it is C
#endif

namespace {

using group = singleflight::group<int, int>;
using support::await;
using support::held_call;

constexpr unsigned limit_s = 100;

// Returns: the exit status of a child process, or the negative signal that ended it.
int wait_for(pid_t child) {
  int status = 0;
  EXPECT_EQ(waitpid(child, &status, 0), child);
  return WIFEXITED(status) ? WEXITSTATUS(status) : -WTERMSIG(status);
}

pid_t fork_process() {
  std::fflush(nullptr);  // what is buffered would be written twice
  const pid_t child = fork();
  if (child == 0) alarm(limit_s);
  return child;
}

[[noreturn]] void end_child() {
  std::fflush(nullptr);
#if defined(SINGLEFLIGHT_TESTS_COVERAGE)
  __gcov_dump();  // which _exit leaves out
#endif
  _exit(testing::Test::HasFailure() ? 1 : 0);
}

// Has a child process, which is forked here, do `body`, expectations and all.
template <class Body>
void in_child(const Body& body) {
  const pid_t child = fork_process();
  if (child == 0) {
    body();
    end_child();
  }
  EXPECT_EQ(wait_for(child), 0);
}

void expect_idle(const group& g) {
  EXPECT_EQ(g.stats().in_flight, 0U);
  EXPECT_EQ(g.stats().waiting, 0U);
  EXPECT_TRUE(g.in_flight().empty());
}

std::error_code error_of(const std::shared_future<int>& future) {
  return support::call_error_of(support::thrown_by([&] { (void)future.get(); }));
}

const auto dead = std::make_error_code(std::errc::owner_dead);

// Overwrites, in a child, the frames of the threads that it lacks. (ThreadSanitizer lets no child of
// many threads start one.)
void reuse_stacks() {
#if !defined(SINGLEFLIGHT_TESTS_TSAN)
  const support::threads fresh(8, [](std::size_t) {
    volatile char filled[1 << 16];
    for (volatile char& c : filled) c = static_cast<char>(0xa5);
  });
#endif
}

// --- fork: calls of other threads ------------------------------------------------------------------

// https://github.com/rust-lang/rust/issues/43448: in a child, a lazy value waits for the thread of the
// parent that makes it.
TEST(Fork, LetsTheChildLeadWhereAnotherThreadOfTheParentDoes) {
  group g;
  held_call in_parent(g);
  in_child([&] {
    expect_idle(g);
    g.wait_drained();  // it was no asynchronous call
    EXPECT_EQ(*g.do_call(0, [] { return 43; }), 43);
    expect_idle(g);
  });
  in_parent.end(42);
  EXPECT_EQ(in_parent.value, 42);
}

TEST(Fork, LetsTheChildBeginCallsOfAllKinds) {
  group g;
  held_call in_parent(g);
  in_child([&] {
    EXPECT_EQ(g.do_async(0, support::inline_executor, [] { return 43; }).get(), 43);
    EXPECT_EQ(*g.do_call_on(0, support::inline_executor, {}, [] { return 44; }), 44);
    EXPECT_EQ(*g.do_call(0, {.timeout = std::chrono::hours(1)}, [] { return 45; }), 45);
    expect_idle(g);
  });
}

TEST(Fork, TakesTheWaitersOfAllKindsOutOfTheAccountsOfTheChild) {
  group g({.max_age = std::chrono::hours(1)});
  support::threads followers;
  held_call in_parent(g);
  followers.start([&] { EXPECT_EQ(*g.do_call(0, [] { return -1; }), 42); });
  followers.start(
      [&] { EXPECT_EQ(*g.do_call(0, {.timeout = std::chrono::hours(1)}, [] { return -1; }), 42); });
#if defined(__cpp_lib_jthread)
  const std::stop_source stop;
  followers.start(
      [&] { EXPECT_EQ(*g.do_call(0, {.stop = stop.get_token()}, [] { return -1; }), 42); });
  support::await_followers(g, 3);
#else
  support::await_followers(g, 2);
#endif
  in_child([&] {
    expect_idle(g);
    g.wait_drained();
    EXPECT_EQ(*g.do_call(0, [] { return 43; }), 43);
  });
  in_parent.end(42);
}

// --- fork: calls that are not listed ---------------------------------------------------------------

// Has a child use and destroy groups, in a frame and on the heap, in each of which another thread
// leads a call for key 0 that `unlist` has taken out of the map.
void fork_beside_unlisted_calls(const singleflight::group_options& options,
                                const std::function<void(group&)>& unlist) {
  std::optional<group> in_a_frame(std::in_place, options);
  auto allocated = std::make_unique<group>(options);
  held_call first(*in_a_frame), second(*allocated);
  for (group* g : {&*in_a_frame, allocated.get()}) unlist(*g);
  in_child([&] {
    for (group* g : {&*in_a_frame, allocated.get()}) {
      expect_idle(*g);
      EXPECT_EQ(*g->do_call(0, [] { return 43; }), 43);
      expect_idle(*g);
    }
    in_a_frame.reset();
    allocated.reset();
  });
  first.end(42);
  second.end(42);
  EXPECT_EQ(first.value, 42);
  expect_idle(*in_a_frame);
}

TEST(Fork, LeavesTheChildGroupsThatItCanDestroyWithForgottenCallsOfTheParent) {
  fork_beside_unlisted_calls({}, [](group& g) { EXPECT_TRUE(g.forget(0)); });
}

TEST(Fork, LeavesTheChildGroupsThatItCanDestroyWithSupersededCallsOfTheParent) {
  fork_beside_unlisted_calls({.max_age = std::chrono::milliseconds(1)}, [](group& g) {
    EXPECT_EQ(*g.do_call(0, [] { return 1; }), 1);
    EXPECT_EQ(g.stats().superseded, 1U);
  });
}

TEST(Fork, LeavesTheChildGroupsThatItCanDestroyWithCallsOfTheParentThatRunAlone) {
  std::optional<group> g(
      std::in_place, singleflight::group_options{
                         .max_waiters = 0, .when_full = singleflight::group_options::run_alone});
  held_call listed(*g), unlisted(*g), another(*g);
  EXPECT_EQ(g->stats().in_flight, 3U);
  in_child([&] {
    expect_idle(*g);
    g.reset();
  });
}

TEST(Fork, TakesTheFollowersOfAForgottenCallOutOfTheAccountsOfTheChild) {
  group g;
  support::threads follower;
  held_call in_parent(g);
  follower.start([&] { EXPECT_EQ(*g.do_call(0, [] { return -1; }), 42); });
  support::await_followers(g, 1);
  EXPECT_TRUE(g.forget(0));
  in_child([&] { expect_idle(g); });
  in_parent.end(42);
}

// The child keeps the forgotten call that it leads itself, and loses that of another thread.
TEST(Fork, InALoaderOfAForgottenCallLetsTheCallEndInBothProcesses) {
  group g({.shards = 1});
  held_call in_parent(g);
  EXPECT_TRUE(g.forget(0));
  support::threads follower;
  pid_t child = -1;
  const auto result = g.do_call(1, [&] {
    follower.start([&] { EXPECT_EQ(*g.do_call(1, [] { return -1; }), 42); });
    support::await_followers(g, 1);
    EXPECT_TRUE(g.forget(1));
    child = fork_process();
    EXPECT_EQ(g.stats().in_flight, child == 0 ? 1U : 2U);
    EXPECT_EQ(g.stats().waiting, child == 0 ? 0U : 1U);
    return child == 0 ? 43 : 42;
  });
  if (child == 0) {
    EXPECT_EQ(*result, 43);
    expect_idle(g);
    end_child();
  }
  EXPECT_EQ(*result, 42);
  EXPECT_EQ(wait_for(child), 0);
}

#if !defined(NDEBUG)

// A call that the child leads itself must end before its group does, as in any process.
TEST(Fork, InALoaderOfAForgottenCallLeavesTheChildAnAssertionForIt) {
  auto g = std::make_unique<group>();
  (void)g->do_call(0, [&] {
    EXPECT_TRUE(g->forget(0));
    const pid_t child = fork_process();
    if (child == 0) {
      g.reset();
      _exit(0);  // not reached
    }
    EXPECT_EQ(wait_for(child), -SIGABRT);
    return 42;
  });
}

#endif

TEST(Fork, LetsTheChildDoNothingWithALeaderOfAForgottenCall) {
  auto g = std::make_unique<group>();
  auto ended = std::get<singleflight::leader<int>>(g->lead_or_follow(1));
  std::optional dropped = std::get<singleflight::leader<int>>(g->lead_or_follow(2));
  EXPECT_TRUE(g->forget(1));
  EXPECT_TRUE(g->forget(2));
  in_child([&] {
    expect_idle(*g);
    g->wait_drained();
    std::move(ended).set_value(43);
    dropped.reset();
    expect_idle(*g);
    EXPECT_EQ(g->stats().failed, 0U);
    g.reset();
  });
  std::move(ended).set_value(42);
}

#if defined(__GLIBCXX__)  // elsewhere that future stays without a result in the child
TEST(Fork, FailsTheFuturesThatTheChildHasOfForgottenCalls) {
  group g;
  support::task_queue queue;
  const auto future = g.do_async(0, std::ref(queue), [] { return 42; });
  ASSERT_TRUE(g.forget(0));
  in_child([&] {
    expect_idle(g);
    EXPECT_EQ(error_of(future), dead);
    queue.run();
    expect_idle(g);
  });
  queue.run();
  EXPECT_EQ(future.get(), 42);
}
#endif

// --- fork: calls of the forking thread -------------------------------------------------------------

// Forks in a loader with followers of all kinds.
void fork_in_a_loader() {
  group g;
  support::threads followers;
  pid_t child = -1;
  const auto result = g.do_call(0, [&] {
    followers.start([&] { EXPECT_EQ(*g.do_call(0, [] { return -1; }), 42); });
    support::await_followers(g, 1);
#if defined(__cpp_lib_jthread)
    followers.start([&] {
      const std::stop_source stop;
      EXPECT_EQ(*g.do_call(0, {.stop = stop.get_token()}, [] { return -1; }), 42);
    });
    support::await_followers(g, 2);
#endif
    child = fork_process();
    if (child != 0) return 42;
    reuse_stacks();
    EXPECT_EQ(g.stats().in_flight, 1U);
    EXPECT_EQ(g.stats().waiting, 0U);
    EXPECT_EQ(g.in_flight().at(0).waiters, 0U);
    EXPECT_EQ(g.in_flight().at(0).waited, std::chrono::nanoseconds(0)) << "nobody waits here";
    return 43;
  });
  if (child == 0) {
    EXPECT_EQ(*result, 43);
    expect_idle(g);
    EXPECT_EQ(*g.do_call(0, [] { return 44; }), 44);
    end_child();
  }
  EXPECT_EQ(wait_for(child), 0);
}

TEST(Fork, InALoaderLetsTheCallEndInBothProcesses) { fork_in_a_loader(); }

TEST(Fork, InALoaderLetsTheChildRefuseItsOwnKeyStill) {
  group g;
  (void)g.do_call(0, [&] {
    in_child([&] {
      EXPECT_EQ(g.in_flight().size(), 1U);
      EXPECT_THROW((void)g.do_call(0, [] { return -1; }), singleflight::call_error);
    });
    return 42;
  });
}

#if defined(__cpp_lib_jthread)

// In the parent the follower still wants the result, in the child nobody does.
TEST(Fork, InALoaderLetsTheLastCallerOfTheChildStopIt) {
  group g;
  support::threads follower;
  std::stop_source stop;
  const auto result = g.do_call(0, {.stop = stop.get_token()}, [&](const std::stop_token& wanted) {
    follower.start([&] { EXPECT_EQ(*g.do_call(0, [] { return -1; }), 42); });
    support::await_followers(g, 1);
    in_child([&] {
      stop.request_stop();
      EXPECT_TRUE(wanted.stop_requested());
    });
    stop.request_stop();
    EXPECT_FALSE(wanted.stop_requested());
    return 42;
  });
  EXPECT_EQ(*result, 42);
}

// The follower that can be stopped is the parent's alone. One of the child's leaves as any other.
#if !defined(SINGLEFLIGHT_TESTS_TSAN)  // which lets no child of many threads start one
TEST(Fork, InALoaderLetsAFollowerOfTheChildLeave) {
  group g;
  support::threads follower;
  const std::stop_source never;
  const auto result = g.do_call(0, [&] {
    follower.start(
        [&] { EXPECT_EQ(*g.do_call(0, {.stop = never.get_token()}, [] { return -1; }), 42); });
    support::await_followers(g, 1);
    in_child([&] {
      EXPECT_EQ(g.stats().waiting, 0U);
      std::stop_source stop;
      support::threads of_child;
      of_child.start([&] {
        EXPECT_THROW((void)g.do_call(0, {.stop = stop.get_token()}, [] { return -1; }),
                     singleflight::call_error);
      });
      support::await_followers(g, 1);
      stop.request_stop();
      of_child.join();
      EXPECT_EQ(g.stats().waiting, 0U);
    });
    return 42;
  });
  EXPECT_EQ(*result, 42);
}
#endif

#endif

// The coroutine that waits for the last asynchronous call is the parent's alone.
TEST(Fork, LeavesWhoWaitsForTheLastCallToTheParent) {
  group g;
  std::optional<singleflight::leader<int>> lead;
  g.async_call(
      0, singleflight::resume_inline, {},
      [&](singleflight::leader<int> mine) { lead.emplace(std::move(mine)); }, [](const auto&) {});
  int resumed = 0;
  const auto waits = [](group& of, int& times) -> support::frame {
    co_await of.drained();
    ++times;
  }(g, resumed);
  in_child([&] {
    expect_idle(g);
    g.wait_drained();
    EXPECT_EQ(resumed, 0);
  });
  std::move(*lead).set_value(42);
  EXPECT_EQ(resumed, 1);
}

TEST(Fork, InALoaderOnAnExecutorLetsTheCallEndInBothProcesses) {
  group g;
  pid_t child = -1;
  std::thread worker;
  const auto future = g.do_async(
      0,
      [&](auto task) {
        worker = std::thread([&, task] {
          task();
          if (child != 0) return;
          expect_idle(g);
          EXPECT_EQ(*g.do_call(0, [] { return 44; }), 44);
          end_child();
        });
      },
      [&] { return (child = fork_process()) == 0 ? 43 : 42; });
  EXPECT_EQ(future.get(), 42);
  worker.join();
  EXPECT_EQ(wait_for(child), 0);
}

TEST(Fork, InABulkLoaderOnAnExecutorLetsTheCallsEndInBothProcesses) {
  group g;
  pid_t child = -1;
  std::thread worker;
  const auto run_on_a_thread = [&](auto task) {
    worker = std::thread([&, task] {
      task();
      if (child != 0) return;
      expect_idle(g);
      EXPECT_EQ(g.do_many({0, 1}, [](auto& missing) { missing.rest(44); })[1].value(), 44);
      end_child();
    });
  };
  const auto rows = g.do_many_on({0, 1}, run_on_a_thread, {}, [&](auto& missing) {
    child = fork_process();
    EXPECT_TRUE(missing.wanted(0) || child == 0);
    EXPECT_TRUE(missing.set(0, 42));
    missing.rest(43);
  });
  EXPECT_EQ(rows[0].value(), 42);
  EXPECT_EQ(rows[1].value(), 43);
  worker.join();
  EXPECT_EQ(wait_for(child), 0);
}

// The child runs the task, which the parent drops: both answer their caller.
TEST(Fork, InTheExecutorOfManyKeysLetsTheChildRunTheTask) {
  group g;
  pid_t child = -1;
  const auto forking = [&](auto task) {
    child = fork_process();
    if (child == 0) task();
  };
  const auto rows = g.do_many_on({0, 1}, forking, {}, [](auto& missing) { missing.rest(43); });
  if (child == 0) {
    EXPECT_EQ(rows[0].value(), 43);
    EXPECT_EQ(rows[1].value(), 43);
    expect_idle(g);
    end_child();
  }
  EXPECT_EQ(support::call_error_of(rows[1].error()), dead);
  EXPECT_EQ(wait_for(child), 0);
}

// The executor has returned when the loader, which began before, forks. The child ends that call, and
// keeps no other.
TEST(Fork, InALoaderThatOutlastsItsExecutorLetsTheCallEndInBothProcesses) {
  auto g = std::make_unique<group>();
  support::task_queue queue;
  const auto queued = g->do_async(1, std::ref(queue), [] { return 41; });
  pid_t child = -1;
  std::promise<void> begun, returned;
  std::thread worker;
  const auto future = g->do_async(
      0,
      [&](auto task) {
        worker = std::thread([&, task] {
          task();
          if (child != 0) return;
          expect_idle(*g);
          g.reset();
          end_child();
        });
        begun.get_future().wait();
      },
      [&] {
        begun.set_value();
        returned.get_future().wait();
        return (child = fork_process()) == 0 ? 43 : 42;
      });
  returned.set_value();
  EXPECT_EQ(future.get(), 42);
  worker.join();
  EXPECT_EQ(wait_for(child), 0);
  queue.run();
  EXPECT_EQ(queued.get(), 41);
}

TEST(Fork, LetsTheChildDoNothingWithALeaderOfTheParent) {
  group g;
  auto ended = std::get<singleflight::leader<int>>(g.lead_or_follow(1));
  auto failed = std::get<singleflight::leader<int>>(g.lead_or_follow(2));
  std::optional dropped = std::get<singleflight::leader<int>>(g.lead_or_follow(3));
  in_child([&] {
    std::move(ended).set_value(43);
    std::move(failed).set_exception(std::make_exception_ptr(43));
    dropped.reset();
    expect_idle(g);
    EXPECT_EQ(g.stats().failed, 0U);
    g.wait_drained();
  });
  std::move(ended).set_value(42);
}

// There its call is lost, and its group may be gone: it touches neither.
TEST(Fork, LetsTheChildLoadWithALeaderWhoseGroupIsGone) {
  auto g = std::make_unique<group>();
  auto token = std::get<singleflight::leader<int>>(g->lead_or_follow(1));
  in_child([&] {
    g.reset();
    int loads = 0;
    std::move(token).set_from([&] { return ++loads; });
    EXPECT_LE(loads, 1);
  });
  std::move(token).set_value(42);
}

TEST(Fork, InALoaderOnTheCallersOwnThreadLetsTheChildHaveItsFuture) {
  group g;
  pid_t child = -1;
  const auto future = g.do_async(0, support::inline_executor,
                                 [&] { return (child = fork_process()) == 0 ? 43 : 42; });
  const auto result = g.do_call_on(1, support::inline_executor, {}, [] { return 44; });
  if (child == 0) {
    EXPECT_EQ(future.get(), 43);
    EXPECT_EQ(*result, 44);
    expect_idle(g);
    end_child();
  }
  EXPECT_EQ(future.get(), 42);
  EXPECT_EQ(wait_for(child), 0);
}

TEST(Fork, InALoaderOnTheCallersOwnThreadKeepsTheCallersWait) {
  group g;
  pid_t child = -1;
  const auto waited = [&] { return g.in_flight().at(0).waited; };
  const auto result = g.do_call_on(0, support::inline_executor, {}, [&] {
    await([&] { return waited() > std::chrono::nanoseconds::zero(); }, "the caller to have waited");
    const auto before = waited();
    child = fork_process();
    EXPECT_EQ(g.stats().in_flight, 1U);
    EXPECT_EQ(g.stats().waiting, 1U);
    EXPECT_GE(waited(), before);
    return child == 0 ? 43 : 42;
  });
  if (child == 0) {
    EXPECT_EQ(*result, 43);
    expect_idle(g);
    end_child();
  }
  EXPECT_EQ(*result, 42);
  EXPECT_EQ(wait_for(child), 0);
}

// The child runs the task, which the parent drops: both answer their caller.
TEST(Fork, InAnExecutorLetsTheChildRunTheTask) {
  group g;
  pid_t child = -1;
  const auto future = g.do_async(
      0,
      [&](auto task) {
        child = fork_process();
        if (child == 0) task();
      },
      [] { return 43; });
  if (child == 0) {
    EXPECT_EQ(future.get(), 43);
    expect_idle(g);
    end_child();
  }
  EXPECT_EQ(error_of(future), dead);
  EXPECT_EQ(wait_for(child), 0);
}

#if defined(__GLIBCXX__)  // elsewhere that future stays without a result in the child

// The parent has a thread that runs the task already.
void fork_in_an_executor_after_the_task_has_begun(const singleflight::call_options& options) {
  group g;
  pid_t child = -1;
  std::promise<void> begun, end;
  support::thread_executor threads;
  const auto forking = [&](auto task) {
    threads(std::move(task));
    begun.get_future().wait();
    child = fork_process();
    if (child != 0) end.set_value();
  };
  const auto load = [&] {
    begun.set_value();
    end.get_future().wait();
    return 42;
  };
  const auto thrown =
      support::thrown_by([&] { EXPECT_EQ(*g.do_call_on(0, forking, options, load), 42); });
  if (child == 0) {
    EXPECT_EQ(support::call_error_of(thrown), dead);
    expect_idle(g);
    end_child();
  }
  EXPECT_EQ(wait_for(child), 0);
}

TEST(Fork, InAnExecutorAfterTheTaskHasBegunFailsTheCallInTheChild) {
  fork_in_an_executor_after_the_task_has_begun({});
  fork_in_an_executor_after_the_task_has_begun({.timeout = std::chrono::hours(1)});
}

#if defined(__cpp_lib_jthread)
TEST(Fork, InAnExecutorAfterTheTaskHasBegunFailsTheCallOfACallerThatCanBeStopped) {
  const std::stop_source stop;
  fork_in_an_executor_after_the_task_has_begun({.stop = stop.get_token()});
}
#endif

#endif

// --- fork: calls on executors ----------------------------------------------------------------------

TEST(Fork, LeavesTheChildTasksThatTouchNothing) {
  auto g = std::make_unique<group>();
  support::task_queue run_in_child, dropped_in_child;
  const auto first = g->do_async(0, std::ref(run_in_child), [] { return 42; });
  const auto second = g->do_async(1, std::ref(dropped_in_child), [] { return 43; });
  in_child([&] {
    expect_idle(*g);
    g.reset();  // does not wait for them
    run_in_child.run();
    dropped_in_child.drop();
    EXPECT_EQ(error_of(first), dead);
    EXPECT_EQ(error_of(second), dead);
  });
  run_in_child.run();
  dropped_in_child.run();
  EXPECT_EQ(first.get(), 42);
  EXPECT_EQ(second.get(), 43);
}

#if defined(__cpp_lib_jthread)
TEST(Fork, LeavesTheChildTasksOfManyKeysThatTouchNothing) {
  auto g = std::make_unique<group>();
  support::task_queue queue;
  std::stop_source stop;
  const auto leave_it_queued = [&](const auto& task) {
    queue(task);
    stop.request_stop();
  };
  const singleflight::bulk_options until_stopped{.call = {.stop = stop.get_token()}};
  const auto rows = g->do_many_on({0, 1}, leave_it_queued, until_stopped,
                                  [](auto&) { ADD_FAILURE() << "nobody waits"; });
  EXPECT_FALSE(rows[0].has_value());
  in_child([&] {
    expect_idle(*g);
    g.reset();  // does not wait for it
    queue.drop();
  });
  queue.run();
}
#endif

TEST(Fork, LeavesTheChildAGroupThatItCanDestroyWhileTheParentRunsALoader) {
  auto g = std::make_unique<group>();
  std::promise<void> begun, end;
  support::thread_executor executor;
  const auto future = g->do_async(0, std::ref(executor), [&] {
    begun.set_value();
    end.get_future().wait();
    return 42;
  });
  begun.get_future().wait();
  in_child([&] {
    expect_idle(*g);
    g.reset();
  });
  end.set_value();
  EXPECT_EQ(future.get(), 42);
}

#if defined(__GLIBCXX__)  // elsewhere those futures stay without a result in the child

// The call of the loader that forks is the newest. The child keeps that one and no other.
TEST(Fork, InALoaderLeavesTheChildNoTaskThatWasQueuedBefore) {
  group g;
  support::task_queue queue;
  int runs = 0;
  const auto queued = g.do_async(1, std::ref(queue), [&] { return ++runs; });
  const auto own = g.do_async(0, support::inline_executor, [&] {
    in_child([&] {
      queue.run();
      EXPECT_EQ(runs, 0);
      EXPECT_EQ(error_of(queued), dead);
      EXPECT_EQ(g.stats().in_flight, 1U);
    });
    return 42;
  });
  queue.run();
  EXPECT_EQ(queued.get(), 1);
  EXPECT_EQ(own.get(), 42);
}

TEST(Fork, FailsAForgottenCallWhoseTaskTheChildDrops) {
  group g;
  support::task_queue queue;
  const auto future = g.do_async(0, std::ref(queue), [] { return 42; });
  ASSERT_TRUE(g.forget(0));
  in_child([&] {
    queue.drop();
    EXPECT_EQ(error_of(future), dead);
    EXPECT_EQ(g.stats().failed, 0U);
  });
  queue.run();
  EXPECT_EQ(future.get(), 42);
}

// The newest call is the child's own.
TEST(Fork, InAnExecutorLeavesTheChildAGroupThatItCanDestroy) {
  auto g = std::make_unique<group>();
  support::task_queue queue;
  const auto queued = g->do_async(1, std::ref(queue), [] { return 42; });
  pid_t child = -1;
  const auto own = g->do_async(
      0,
      [&](auto task) {
        child = fork_process();
        task();
      },
      [] { return 43; });
  EXPECT_EQ(own.get(), 43);
  if (child == 0) {
    g.reset();
    end_child();
  }
  EXPECT_EQ(wait_for(child), 0);
  queue.run();
  EXPECT_EQ(queued.get(), 42);
}

TEST(Fork, LeavesTheChildNothingOfACallWhoseTaskItDrops) {
  singleflight::group<std::shared_ptr<int>, int> g;
  support::task_queue queue;
  auto key = std::make_shared<int>(1);
  auto captured = std::make_shared<int>(2);
  const std::weak_ptr<int> of_key = key;
  const std::weak_ptr<int> of_loader = captured;
  const auto future =
      g.do_async(std::move(key), std::ref(queue), [keep = std::move(captured)] { return *keep; });
  in_child([&] {
    EXPECT_FALSE(of_key.expired());
    EXPECT_FALSE(of_loader.expired());
    queue.drop();
    EXPECT_TRUE(of_key.expired());
    EXPECT_TRUE(of_loader.expired());
  });
  queue.run();
  EXPECT_EQ(future.get(), 2);
}

// A thread of the parent has ended the call, and destroys its key, when the process forks.
TEST(Fork, LeavesTheChildNothingOfACallThatHasJustEnded) {
  std::promise<void> destroys, end;
  singleflight::group<std::shared_ptr<int>, int> g;
  support::task_queue queue;
  const pid_t parent = getpid();
  std::shared_ptr<int> key(new int(1), [&](const int* p) {
    delete p;
    if (getpid() != parent) return;
    destroys.set_value();
    end.get_future().wait();
  });
  const auto future = g.do_async(std::move(key), std::ref(queue), [] { return 42; });
  auto tasks = queue.take();
  support::threads worker;
  worker.start([&] { tasks.front()(); });
  destroys.get_future().wait();
  in_child([&] {
    tasks.clear();
    EXPECT_EQ(future.get(), 42);
  });
  end.set_value();
  worker.join();
  EXPECT_EQ(future.get(), 42);
}

TEST(Fork, FailsTheFuturesThatTheChildHasOfCallsOfOtherThreads) {
  group g;
  support::task_queue queue;
  std::promise<void> begun, end;
  support::thread_executor executor;
  held_call in_parent(g);
  const auto queued = g.do_async(1, std::ref(queue), [] { return 42; });
  const auto running = g.do_async(2, std::ref(executor), [&] {
    begun.set_value();
    end.get_future().wait();
    return 42;
  });
  const auto joined = g.do_async(0, std::ref(queue), [] { return -1; });
  begun.get_future().wait();
  in_child([&] {
    for (const auto& future : {queued, running, joined}) {
      const auto thrown = support::thrown_by([&] { (void)future.get(); });
      EXPECT_EQ(support::call_error_of(thrown), dead);
      EXPECT_NE(support::text_of(thrown).find("child"), std::string::npos);
    }
  });
  end.set_value();
  in_parent.end(42);
  queue.run();
  for (const auto& future : {queued, running, joined}) EXPECT_EQ(future.get(), 42);
}

#endif

// --- fork: locks, lists and the wait graph ---------------------------------------------------------

// Where other threads allocate while this one forks.
#if defined(SINGLEFLIGHT_TESTS_ASAN)
#define SINGLEFLIGHT_TESTS_SKIP_FORK_BESIDE() \
  GTEST_SKIP() << "AddressSanitizer's allocator may be locked in the child"
#else
#define SINGLEFLIGHT_TESTS_SKIP_FORK_BESIDE() static_cast<void>(0)
#endif

// Threads that hold and release locks all the time, while this one forks.
void fork_beside(const std::function<void()>& work, const std::function<void()>& in_the_child) {
  SINGLEFLIGHT_TESTS_SKIP_FORK_BESIDE();
  std::atomic<bool> over = false;
  support::threads busy(2, [&](std::size_t) {
    while (!over) work();
  });
  for (int i = 0; i < 50 && !testing::Test::HasFailure(); ++i) in_child(in_the_child);
  over = true;
}

TEST(Fork, LeavesTheChildNoLockThatAnotherThreadHolds) {
  group g({.shards = 1});
  const auto enter = [&] { EXPECT_EQ(*g.do_call(0, [] { return 42; }), 42); };
  fork_beside(enter, enter);
}

TEST(Fork, LeavesTheChildNoLockOfAnExecutorCallThatAnotherThreadHolds) {
  group g({.shards = 1});
  const auto enter = [&] {
    EXPECT_EQ(g.do_async(0, support::inline_executor, [] { return 42; }).get(), 42);
  };
  fork_beside(enter, [&] {
    enter();
    expect_idle(g);
  });
}

TEST(Fork, LeavesTheChildNoLockOfTheWaitGraphThatAnotherThreadHolds) {
  SINGLEFLIGHT_TESTS_SKIP_FORK_BESIDE();
  group g({.shards = 1});
  const auto enter = [&] {
    std::atomic<bool> inside = false;
    support::threads other;
    (void)g.do_call(0, [&] {
      other.start([&] {
        (void)g.do_call(1, [&] {
          inside = true;
          return *g.do_call(0, [] { return -1; });
        });
      });
      await([&] { return inside || g.stats().waiting > 0; }, "the other one to wait");
      return 42;
    });
  };
  std::atomic<bool> over = false;
  support::threads busy(1, [&](std::size_t) {
    while (!over) enter();
  });
  for (int i = 0; i < 50 && !HasFailure(); ++i) {
    in_child([&] {
      (void)g.do_call(0, [&] {
        EXPECT_THROW((void)g.do_call(0, [] { return -1; }), singleflight::call_error);
        return *g.do_call(1, [] { return 42; });
      });
    });
  }
  over = true;
}

#if !defined(SINGLEFLIGHT_TESTS_TSAN)  // which sees a mutex that belongs to two threads

// Nobody locks the lists of waiters before a fork: they are many, and each belongs to a call.
TEST(Fork, LeavesTheChildNoLockOfAListOfWaitersThatAnotherThreadHolds) {
  singleflight::detail::waiter_list list;
  std::promise<void> locked, forked;
  support::threads other;
  other.start([&] {
    const singleflight::detail::lock guard(list.mutex);
    locked.set_value();
    forked.get_future().wait();
  });
  locked.get_future().wait();
  in_child([&] {
    list.forget_all();
    EXPECT_TRUE(list.mutex.standard().try_lock());
  });
  forked.set_value();
}

#if defined(__linux__) && defined(__GLIBC__)  // whose condition variables wait for their waiters

// Whether that thread sleeps.
bool sleeps(pid_t thread) {
  std::ifstream stat("/proc/self/task/" + std::to_string(thread) + "/stat");
  std::string all;
  std::getline(stat, all);
  return all.find(") S ") != std::string::npos;
}

// A thread of the parent waits for the calls of its group as the group's destructor does.
TEST(Fork, LeavesTheChildCallsThatItCanDestroyWhileAThreadOfTheParentWaitsForThem) {
  struct call final : singleflight::detail::owned_calls::member {
    void drop() noexcept override {}
  };
  std::optional<singleflight::detail::owned_calls> calls(std::in_place);
  call queued;
  calls->add(queued);
  std::atomic<pid_t> thread = 0;
  support::threads other;
  other.start([&] {
    thread = gettid();
    EXPECT_TRUE(calls->wait());
  });
  await([&] { return thread != 0 && sleeps(thread); }, "the other thread to wait");
  calls->lock_before_fork();
  in_child([&] {
    calls->forget_other_threads();
    calls.reset();
  });
  calls->unlock_after_fork();
  calls->remove(queued);
}

#endif
#endif

TEST(Fork, MayHappenWhileGroupsAreMadeAndDestroyed) {
  const auto make = [] {
    group g({.shards = 1});
    EXPECT_EQ(*g.do_call(0, [] { return 42; }), 42);
  };
  fork_beside(make, make);
}

// ThreadSanitizer lets no thread hold more than 64 mutexes.
TEST(Fork, MayHappenWithGroupsOfManyShards) {
  std::vector<std::unique_ptr<group>> groups;
  for (int i = 0; i < 10; ++i) {
    groups.push_back(std::make_unique<group>(singleflight::group_options{.shards = 64}));
  }
  const auto enter_all = [&] {
    for (auto& g : groups) EXPECT_EQ(*g->do_call(0, [] { return 42; }), 42);
  };
  in_child(enter_all);
  std::promise<void> end;  // before the threads, which use it until they are joined
  support::threads another;
  another.start([&] { end.get_future().wait(); });
  in_child(enter_all);
  end.set_value();
  enter_all();
}

#if !defined(SINGLEFLIGHT_TESTS_TSAN)

// Threads of the child have the numbers and stacks of those that the parent's had.
TEST(Fork, LeavesTheChildNothingThatShowsThreadsOfTheParent) {
  constexpr int threads = 12;  // more than the parent has and `reuse_stacks` makes
  group g;
  support::threads parents;
  held_call in_parent(g);
  for (int i = 0; i < 2; ++i) {
    parents.start([&] {
      group in_a_frame;  // in the list of groups: grandchildren must not look for it in this frame
      (void)in_a_frame.do_call(0, [&] { return *g.do_call(0, [] { return -1; }); });
    });
  }
  support::await_followers(g, 2);
  in_child([&] {
    reuse_stacks();
    (void)g.do_call(0, [&] {
      std::promise<void> ends[threads];
      support::threads fresh(threads, [&](std::size_t i) {
        (void)g.do_call(static_cast<int>(i) + 1, [&] {
          ends[i].get_future().wait();
          return 42;
        });
      });
      await([&] { return g.stats().in_flight == threads + 1; }, "the calls to run");
      for (int i = 0; i < threads; ++i) {
        std::thread ender([&] {
          support::await_followers(g, 1);
          ends[i].set_value();
        });
        EXPECT_EQ(*g.do_call(i + 1, [] { return -1; }), 42);
        ender.join();
      }
      return 42;
    });
    in_child([&] { expect_idle(g); });
  });
  in_parent.end(42);
}

#endif

// --- exit --------------------------------------------------------------------------------------------

// Groups that the end of the process destroys, however it comes by them.
group plain;
std::optional<group> in_an_optional(std::in_place);
std::unique_ptr<group> on_the_heap = std::make_unique<group>();
std::map<int, std::unique_ptr<group>> in_a_map;

group& local_to_a_function() {
  static group g;
  return g;
}

std::map<std::string, std::function<group&()>> owners() {
  return {
      {"static", []() -> group& { return plain; }},
      {"static optional", []() -> group& { return *in_an_optional; }},
      {"static unique_ptr", []() -> group& { return *on_the_heap; }},
      {"static map",
       []() -> group& {
         return *in_a_map.try_emplace(1, std::make_unique<group>()).first->second;
       }},
      {"local static", local_to_a_function},
  };
}

// Expects that a process ends with status 3 by `end()`.
void expect_status(const std::function<void()>& end, const std::string& what = {}) {
  const pid_t child = fork_process();
  if (child == 0) {
    end();
    _exit(4);  // not reached
  }
  EXPECT_EQ(wait_for(child), 3) << what;
}

// The same with a group of each kind of owner.
void expect_status(const std::function<void(group&)>& end) {
  for (const auto& [name, owner] : owners()) {
    expect_status([&, &get = owner] { end(get()); }, name);
  }
}

int exit_loader() { std::exit(3); }

void await_the_end() {
  for (;;) pause();
}

// Has a detached thread lead a call that does not end.
void lead_without_end(group& g) {
  std::thread([&g] {
    (void)g.do_call(0, [] {
      await_the_end();
      return 42;
    });
  }).detach();
  await([&] { return g.stats().in_flight == 1; }, "the call to run");
}

// https://github.com/WebAssembly/binaryen/issues/1721: exit in a worker hangs in a static destructor.
TEST(Exit, InALoaderEndsTheProcessWithItsStatus) {
  expect_status([](group& g) { (void)g.do_call(0, exit_loader); });
}

TEST(Exit, InALoaderOfAnotherThreadEndsTheProcessWithItsStatus) {
  expect_status([](group& g) { std::thread([&] { (void)g.do_call(0, exit_loader); }).join(); });
}

TEST(Exit, InALoaderOnAnExecutorEndsTheProcessWithItsStatus) {
  expect_status([](group& g) {
    (void)g.do_async(
        0, [](auto task) { std::thread(std::move(task)).detach(); }, exit_loader);
    await_the_end();
  });
}

TEST(Exit, InAnExecutorEndsTheProcessWithItsStatus) {
  expect_status([](group& g) {
    (void)g.do_async(
        0, [](const auto&) { std::exit(3); }, [] { return 42; });
  });
}

// The same of many keys.
TEST(Exit, InABulkLoaderOnAnExecutorEndsTheProcessWithItsStatus) {
  expect_status([](group& g) {
    (void)g.do_many_on(
        {0, 1}, [](auto task) { std::thread(std::move(task)).detach(); }, {},
        [](auto&) { std::exit(3); });
  });
}

TEST(Exit, InTheExecutorOfManyKeysEndsTheProcessWithItsStatus) {
  expect_status([](group& g) {
    (void)g.do_many_on(
        {0, 1}, [](const auto&) { std::exit(3); }, {}, [](auto&) {});
  });
}

TEST(Exit, OfTheThreadThatWouldRunABatchThatIsQueuedEndsTheProcessWithItsStatus) {
  expect_status([](group& g) {
    static auto& queue = *new support::task_queue;
    std::thread([&g] {
      (void)g.do_many_on({0, 1}, std::ref(queue), {}, [](auto&) {});
      await_the_end();
    }).detach();
    await([&] { return g.stats().waiting == 2; }, "the batch to be queued");
    std::exit(3);
  });
}

// The process ends while another thread gives a call to its executor: it is queued when the group's
// destructor waits already.
TEST(Exit, WhileCallsAreGivenToTheirExecutorEndsTheProcessWithItsStatus) {
  for (const bool many : {false, true}) {
    expect_status([many](group& g) {
      static auto& queue = *new support::task_queue;
      static std::atomic<bool> gives = false;
      static std::atomic<bool> exits = false;
      static const auto executor = [](auto task) {
        gives = true;
        await([] { return exits.load(); }, "the process to end");
        for (int i = 0; i < 50; ++i) std::this_thread::yield();
        queue(std::move(task));
      };
      std::thread([&g, many] {
        if (many) {
          (void)g.do_many_on({0, 1}, executor, {}, [](auto&) {});
        } else {
          (void)support::thrown_by([&] { (void)g.do_call_on(0, executor, {}, [] { return 0; }); });
        }
        await_the_end();
      }).detach();
      await([] { return gives.load(); }, "the executor");
      (void)std::atexit([] { exits = true; });
      std::exit(3);
    });
  }
}

TEST(Exit, WhileAnotherThreadLeadsEndsTheProcessWithItsStatus) {
  expect_status([](group& g) {
    lead_without_end(g);
    std::exit(3);
  });
}

// As by a thread that waits for signals.
TEST(Exit, OfAThreadThatHasUsedNoGroupEndsTheProcessWithItsStatus) {
  expect_status([](group& g) {
    lead_without_end(g);
    std::thread([] { std::exit(3); }).join();
  });
}

TEST(Exit, WhileThreadsWaitForTheLoaderThatExitsEndsTheProcessWithItsStatus) {
  expect_status([](group& g) {
    static group other;
    std::thread([&] {
      (void)g.do_call(0, [&] {
        await([&] { return g.stats().waiting == 1; }, "the other loader to wait");
        return exit_loader();
      });
    }).detach();
    await([&] { return g.stats().in_flight == 1; }, "the call to run");
    (void)other.do_async(
        0, [](auto task) { std::thread(std::move(task)).detach(); },
        [&] { return *g.do_call(0, [] { return -1; }); });
    await_the_end();
  });
}

// As by a handler of an event loop on which calls are queued.
TEST(Exit, OfTheThreadThatWouldRunWhatIsQueuedEndsTheProcessWithItsStatus) {
  expect_status([](group& g) {
    static auto& queue = *new support::task_queue;
    (void)g.do_async(0, std::ref(queue), [] { return 42; });
    (void)g.do_async(1, std::ref(queue), [] { return 43; });
    std::exit(3);
  });
}

// --- exit under the lock of a shard ----------------------------------------------------------------

// A key whose copy, or whose comparison, ends the process, or does not return.
struct exiting_key {
  enum class place { nowhere, copy, comparison };
  inline static place exits = place::nowhere;
  inline static place stays = place::nowhere;
  inline static std::atomic<bool> has_come = false;
  static void come_to(place here) {
    if (exits == here) std::exit(3);
    if (stays == here) {
      has_come = true;
      await_the_end();
    }
  }

  explicit exiting_key(int n) : number(n) {}
  exiting_key(const exiting_key& other) : number(other.number) { come_to(place::copy); }
  exiting_key& operator=(const exiting_key&) = delete;
  ~exiting_key() = default;
  bool operator==(const exiting_key& other) const {
    come_to(place::comparison);
    return number == other.number;
  }

  int number;
};
struct hash_of_exiting_key {
  std::size_t operator()(const exiting_key& k) const { return static_cast<std::size_t>(k.number); }
};
using exiting_group = singleflight::group<exiting_key, int, hash_of_exiting_key>;

// Has a process exit in that place, while a call is queued on an executor.
void exit_under_a_lock(exiting_key::place place, const std::function<void(exiting_group&)>& ask) {
  const auto exit_in = [&](exiting_group& g) {
    static auto& queue = *new support::task_queue;
    const exiting_key queued(0);
    (void)g.do_async(queued, std::ref(queue), [] { return 42; });
    exiting_key::exits = place;
    ask(g);
  };
  expect_status([&] {
    static exiting_group g;
    exit_in(g);
  });
  expect_status([&] {
    static const auto g = std::make_unique<exiting_group>();
    exit_in(*g);
  });
  expect_status([&] {
    static exiting_group g;
    std::thread([&] { exit_in(g); }).join();
  });
}

TEST(Exit, InTheCopyOfAKeyEndsTheProcessWithItsStatus) {
  const exiting_key key(1);
  exit_under_a_lock(exiting_key::place::copy,
                    [&](exiting_group& g) { (void)g.do_call(key, [] { return 42; }); });
}

TEST(Exit, InTheComparisonOfKeysEndsTheProcessWithItsStatus) {
  const exiting_key key(0);
  exit_under_a_lock(exiting_key::place::comparison,
                    [&](exiting_group& g) { (void)g.do_call(key, [] { return 42; }); });
}

TEST(Exit, WhileAnotherThreadComparesKeysEndsTheProcessWithItsStatus) {
  expect_status([] {
    static exiting_group g;
    static auto& queue = *new support::task_queue;
    static const exiting_key key(0);
    (void)g.do_async(key, std::ref(queue), [] { return 42; });
    exiting_key::stays = exiting_key::place::comparison;
    std::thread([] { (void)g.do_call(key, [] { return 42; }); }).detach();
    await([] { return exiting_key::has_come.load(); }, "the other thread to have the lock");
    std::exit(3);
  });
}

#if !defined(SINGLEFLIGHT_TESTS_KEEP_NEW)

// As a program does that prints "out of memory" and ends.
void exit_when_memory_is_short(const std::function<void(const std::function<void()>&)>& body) {
  expect_status([&] {
    std::set_new_handler([] {
      support::grants_allocation = nullptr;
      std::exit(3);
    });
    body([] { support::grants_allocation = []() noexcept { return false; }; });
  });
}

TEST(Exit, InANewHandlerThatTheCopyOfAKeyCallsEndsTheProcessWithItsStatus) {
  exit_when_memory_is_short([](const auto& memory_is_short) {
    static singleflight::group<std::string, int> g;
    const std::string key(200, 'k');
    memory_is_short();
    (void)g.do_call(key, [] { return 42; });
  });
}

// A call without a caller that waits in its future makes that under the lock.
TEST(Exit, InANewHandlerThatAFollowerCallsEndsTheProcessWithItsStatus) {
  exit_when_memory_is_short([](const auto& memory_is_short) {
    lead_without_end(plain);
    memory_is_short();
    (void)plain.do_call(0, [] { return -1; });
  });
}

TEST(Exit, InANewHandlerThatAWaitForTheLastCallCallsEndsTheProcessWithItsStatus) {
  exit_when_memory_is_short([](const auto& memory_is_short) {
    static auto& token = *new auto(std::get<singleflight::leader<int>>(plain.lead_or_follow(0)));
    static_cast<void>(token);
    memory_is_short();
    plain.wait_drained();
  });
}

#endif

// --- exit: observers and calls that go on ------------------------------------------------------------

// An observer that knows whether it has been destroyed.
struct mortal_observer {
  inline static std::atomic<bool> destroyed = false;
  std::shared_ptr<void> life{nullptr, [](void*) { destroyed = true; }};
  void call_ended(const auto&, const auto&) const noexcept {
    if (destroyed) _exit(6);
  }
};
using mortal_group =
    singleflight::group<int, int, std::hash<int>, std::equal_to<int>, mortal_observer>;

TEST(Exit, DestroysTheObserverOfAGroupWithNothingLeft) {
  expect_status([] {
    static const struct last {
      ~last() {
        if (!mortal_observer::destroyed) _exit(5);
      }
    } destroyed_after_the_task;
    static support::task_queue queue;
    static mortal_group g;
    (void)g.do_async(0, std::ref(queue), [] { return 42; });
    std::exit(3);
  });
}

TEST(Exit, LeavesTheObserverToACallThatGoesOn) {
  expect_status([] {
    static std::atomic<bool> gone = false;
    static const struct last {
      ~last() {
        gone = true;
        await_the_end();
      }
    } destroyed_after_the_group;
    static mortal_group g;
    std::thread([] {
      (void)g.do_call(0, [] {
        await([] { return gone.load(); }, "the group to be gone");
        return 42;
      });
      _exit(3);
    }).detach();
    await([] { return g.stats().in_flight == 1; }, "the call to run");
    std::exit(4);
  });
}

TEST(Exit, WaitsForALoaderThatAnotherThreadRunsOnAnExecutor) {
  expect_status([] {
    static std::atomic<bool> exits = false, ended = false;
    static const struct last {
      ~last() {
        if (!ended) _exit(5);
      }
    } destroyed_after_a_local_static_group;
    static group later;
    std::promise<void> begun;
    (void)later.do_async(
        0,
        [&](auto task) {
          std::thread(std::move(task)).detach();
          begun.get_future().wait();
        },
        [&] {
          begun.set_value();
          await([] { return exits.load(); }, "the process to end");
          ended = true;
          return 42;
        });
    static const struct first {
      ~first() { exits = true; }
    } destroyed_before_the_group;
    std::exit(3);
  });
}

// In memory that stays: AddressSanitizer would see that it does not.
TEST(Exit, LetsCallsEndAfterTheirGroupIsDestroyed) {
  expect_status([] {
    static std::atomic<bool> destroyed = false;
    static std::atomic<int> running = 2;
    std::atexit([] {
      destroyed = true;
      await([] { return running == 0; }, "the calls to end");
    });
    static const auto made_after_that = std::make_unique<group>();
    static group& g = *made_after_that;
    const auto await_destruction = [] {
      await([] { return destroyed.load(); }, "the group to be destroyed");
      return 42;
    };
    std::thread([=] {
      (void)g.do_call(0, await_destruction);
      --running;
    }).detach();
    std::thread([=] {
      (void)g.do_call(1, [&] {
        await([] { return g.stats().in_flight == 3; }, "all calls to run");
        std::exit(3);
        return 42;
      });
    }).detach();
    (void)g.do_async(
        2,
        [](auto task) {
          std::thread([task]() mutable {
            task();
            --running;
          }).detach();
        },
        await_destruction);
    await_the_end();
  });
}

struct observer_of_ends {
  std::unique_ptr<int> status = std::make_unique<int>(3);
  void call_ended(const auto&, const auto&) const noexcept { _exit(*status); }
};

// It stays, too.
TEST(Exit, LetsTheObserverBeToldOfCallsThatEndAfterTheirGroupIsDestroyed) {
  expect_status([] {
    static std::atomic<bool> destroyed = false;
    std::atexit([] {
      destroyed = true;
      await_the_end();
    });
    static const auto g = std::make_unique<
        singleflight::group<int, int, std::hash<int>, std::equal_to<int>, observer_of_ends>>();
    std::thread([] {
      (void)g->do_call(0, [] {
        await([] { return destroyed.load(); }, "the group to be destroyed");
        return 42;
      });
    }).detach();
    await([] { return g->stats().in_flight == 1; }, "the call to run");
    std::exit(0);
  });
}

#if defined(__GLIBC__)
TEST(Exit, WithoutDestructorsEndsTheProcessWithItsStatus) {
  expect_status([](group& g) { (void)g.do_call(0, []() -> int { std::quick_exit(3); }); });
}
#endif

TEST(Exit, OfAForkedChildWaitsForNoThreadOfTheParent) {
  support::task_queue queue;
  const auto queued = plain.do_async(1, std::ref(queue), [] { return 42; });
  held_call in_parent(plain);
  const pid_t child = fork_process();
  if (child == 0) std::exit(3);
  EXPECT_EQ(wait_for(child), 3);
  queue.run();
  EXPECT_EQ(queued.get(), 42);
}

}  // namespace
