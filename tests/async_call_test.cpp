// SPDX-License-Identifier: MIT
// Callbacks: who leads, who is called back, where, and with what.
#include <gtest/gtest.h>

#include <atomic>
#include <chrono>
#include <exception>
#include <functional>
#include <future>
#include <memory>
#include <optional>
#include <singleflight/group.hpp>
#include <stdexcept>
#include <string>
#include <system_error>
#include <thread>
#include <tuple>
#include <utility>
#include <variant>
#include <vector>

#include "async_callers.hpp"
#include "executors.hpp"
#include "support.hpp"
#if !defined(_WIN32)
#include <pthread.h>
#endif

namespace {

using namespace support;
using singleflight::async_options;
using singleflight::call_context;
using singleflight::leader;
using singleflight::outcome;
using singleflight::result;
using singleflight::resume_inline;

// --- One call for all kinds --------------------------------------------------------------------------

TEST(AsyncCall, IsLedByOneAndFollowedByTheOthers) {
  group flights;
  std::optional<leader<int>> lead;
  seen first;
  seen second;
  flights.async_call(1, resume_inline, {}, keep(lead), std::ref(first));
  flights.async_call(1, resume_inline, {}, never, std::ref(second));
  EXPECT_EQ(flights.stats().waiting, 2U);
  EXPECT_EQ(flights.stats().in_flight, 1U);
  EXPECT_FALSE(first.came());
  std::move(*lead).set_value(7);
  EXPECT_EQ(first.value(), 7);
  EXPECT_EQ(second.value(), 7);
  EXPECT_TRUE(first.led());
  EXPECT_FALSE(second.led());
  EXPECT_TRUE(first.shared());
  EXPECT_TRUE(second.shared());
  EXPECT_EQ(flights.stats().led, 1U);
  EXPECT_EQ(flights.stats().joined, 1U);
  expect_idle(flights);
}

TEST(AsyncCall, ThatNobodyJoinsIsNotShared) {
  group flights;
  seen only;
  flights.async_call(
      1, resume_inline, {}, [](leader<int> lead) { std::move(lead).set_value(3); }, std::ref(only));
  EXPECT_EQ(only.value(), 3);
  EXPECT_TRUE(only.led());
  EXPECT_FALSE(only.shared());
  expect_idle(flights);
}

TEST(AsyncCall, IsJoinedByThreadsAndFutures) {
  group flights;
  std::optional<leader<int>> lead;
  seen first;
  flights.async_call(1, resume_inline, {}, keep(lead), std::ref(first));
  const std::shared_future<int> future =
      flights.do_async(1, inline_executor, []() -> int { throw std::logic_error("began a call"); });
  int of_thread = 0;
  threads callers;
  callers.start([&] {
    const auto r = flights.do_call(1, []() -> int { throw std::logic_error("began a call"); });
    of_thread = *r;
    EXPECT_FALSE(r.led());
  });
  await_followers(flights, 3);
  std::move(*lead).set_value(5);
  callers.join();
  EXPECT_EQ(of_thread, 5);
  EXPECT_EQ(future.get(), 5);
  EXPECT_EQ(first.value(), 5);
  expect_idle(flights);
}

TEST(AsyncCall, JoinsTheCallOfAThread) {
  group flights;
  task_queue queue;
  seen inlined;
  seen bound;
  const auto r = flights.do_call(1, [&] {
    flights.async_call(1, resume_inline, {}, never, std::ref(inlined));
    flights.async_call(1, std::ref(queue), {}, never, std::ref(bound));
    return 4;
  });
  EXPECT_TRUE(r.shared());
  EXPECT_EQ(inlined.value(), 4);
  EXPECT_FALSE(bound.came());
  queue.run();
  EXPECT_EQ(bound.value(), 4);
  expect_idle(flights);
}

TEST(AsyncCall, JoinsTheCallOnAnExecutor) {
  group flights;
  task_queue pool;
  seen follower;
  const std::shared_future<int> future = flights.do_async(1, std::ref(pool), [] { return 6; });
  flights.async_call(1, resume_inline, {}, never, std::ref(follower));
  EXPECT_FALSE(follower.came());
  pool.run();
  EXPECT_EQ(follower.value(), 6);
  EXPECT_EQ(future.get(), 6);
  expect_idle(flights);
}

// All share the object, and the exception.
TEST(AsyncCall, GivesEverybodyOneValue) {
  singleflight::group<int, std::string> flights;
  std::optional<leader<std::string>> lead;
  std::vector<const std::string*> where;
  std::vector<outcome<std::string>> kept;
  const auto note = [&](outcome<std::string> o) {
    kept.push_back(std::move(o));
    where.push_back(&kept.back().value());
  };
  kept.reserve(3);
  flights.async_call(1, resume_inline, {}, keep(lead), note);
  flights.async_call(1, resume_inline, {}, never, note);
  flights.async_call(1, resume_inline, {}, never, note);
  std::move(*lead).set_value("one");
  ASSERT_EQ(where.size(), 3U);
  EXPECT_EQ(where[0], where[1]);
  EXPECT_EQ(where[1], where[2]);
  EXPECT_EQ(*where[0], "one");
}

TEST(AsyncCall, GivesEverybodyOneException) {
  group flights;
  std::optional<leader<int>> lead;
  answers got;
  for (int i = 0; i < 3; ++i) {
    if (i == 0) flights.async_call(1, resume_inline, {}, keep(lead), got.add());
    if (i > 0) flights.async_call(1, resume_inline, {}, never, got.add());
  }
  const auto why = std::make_exception_ptr(std::runtime_error("broken"));
  std::move(*lead).set_exception(why);
  ASSERT_EQ(got.size(), 3U);
  for (std::size_t i = 0; i < 3; ++i) expect_same(got.error(i), why);
  EXPECT_EQ(flights.stats().failed, 1U);
  expect_idle(flights);
}

TEST(AsyncCall, OfAVoidGroup) {
  singleflight::group<int, void> flights;
  std::optional<leader<void>> lead;
  int called = 0;
  const auto done = [&](const outcome<void>& o) { called += o.has_value() ? 1 : 10; };
  flights.async_call(1, resume_inline, {}, keep(lead), done);
  flights.async_call(1, resume_inline, {}, never, done);
  std::move(*lead).set_value();
  EXPECT_EQ(called, 2);
}

TEST(AsyncCall, OfAMoveOnlyValue) {
  singleflight::group<int, std::unique_ptr<int>> flights;
  std::optional<leader<std::unique_ptr<int>>> lead;
  int sum = 0;
  const auto done = [&](const outcome<std::unique_ptr<int>>& o) { sum += *o.value(); };
  flights.async_call(1, resume_inline, {}, keep(lead), done);
  flights.async_call(1, resume_inline, {}, never, done);
  std::move(*lead).set_value(std::make_unique<int>(21));
  EXPECT_EQ(sum, 42);
}

// --- Where -------------------------------------------------------------------------------------------

// By an executor: never inside the function that enters, whatever becomes of the caller.
TEST(BoundCallback, IsNeverCalledInsideAsyncCall) {
  group flights({.max_waiters = 1});
  task_queue queue;
  std::optional<leader<int>> lead;
  seen refused;
  seen at_once;
  seen failed;
  flights.async_call(
      2, std::ref(queue), {}, [](leader<int> mine) { std::move(mine).set_value(1); },
      std::ref(at_once));
  EXPECT_FALSE(at_once.came());
  flights.async_call(
      3, std::ref(queue), {}, [](const leader<int>&) { throw std::runtime_error("no"); },
      std::ref(failed));
  EXPECT_FALSE(failed.came());
  seen first;
  seen second;
  flights.async_call(1, std::ref(queue), {}, keep(lead), std::ref(first));
  flights.async_call(1, std::ref(queue), {}, never, std::ref(second));
  flights.async_call(1, std::ref(queue), {}, never, std::ref(refused));
  EXPECT_FALSE(refused.came());
  EXPECT_EQ(queue.size(), 3U);
  queue.run();
  EXPECT_EQ(at_once.value(), 1);
  EXPECT_EQ(text_of(failed.error()), "no");
  EXPECT_EQ(refused.code(), std::errc::resource_unavailable_try_again);
  std::move(*lead).set_value(2);
  EXPECT_FALSE(first.came());
  queue.run();
  EXPECT_EQ(first.value(), 2);
  EXPECT_EQ(second.value(), 2);
}

// Inline ones run on the thread that ends the call, after threads were woken and tasks posted.
TEST(InlineCallback, RunsOnTheThreadThatEndsTheCallAfterAllPosts) {
  group flights;
  task_queue queue;
  std::optional<leader<int>> lead;
  std::thread::id ran_on;
  std::size_t posted = 0;
  flights.async_call(1, resume_inline, {}, keep(lead), [&](const outcome<int>&) {
    ran_on = std::this_thread::get_id();
    posted = queue.size();
  });
  seen first;
  seen second;
  flights.async_call(1, std::ref(queue), {}, never, std::ref(first));
  flights.async_call(1, std::ref(queue), {}, never, std::ref(second));
  std::thread ends([&] { std::move(*lead).set_value(1); });
  const std::thread::id there = ends.get_id();
  ends.join();
  EXPECT_EQ(ran_on, there);
  EXPECT_EQ(posted, 2U);
  queue.run();
  EXPECT_EQ(first.value(), 1);
  EXPECT_EQ(second.value(), 1);
}

// A thread that waits in the future can go on while an inline callback still runs.
TEST(InlineCallback, RunsAfterThreadsWereWoken) {
  group flights;
  std::optional<leader<int>> lead;
  std::promise<void> thread_is_back;
  flights.async_call(1, resume_inline, {}, keep(lead),
                     [&](const outcome<int>&) { thread_is_back.get_future().wait(); });
  threads callers;
  callers.start([&] {
    EXPECT_EQ(*flights.do_call(1, [] { return 0; }), 3);
    thread_is_back.set_value();
  });
  await_followers(flights, 2);
  std::move(*lead).set_value(3);
}

TEST(Callbacks, AreCalledInTheOrderInWhichTheyJoined) {
  group flights;
  std::optional<leader<int>> lead;
  std::vector<int> order;
  const auto note = [&](int i) { return [&order, i](const outcome<int>&) { order.push_back(i); }; };
  flights.async_call(1, resume_inline, {}, keep(lead), note(0));
  for (int i = 1; i < 5; ++i) flights.async_call(1, resume_inline, {}, never, note(i));
  std::move(*lead).set_value(1);
  EXPECT_EQ(order, (std::vector<int>{0, 1, 2, 3, 4}));
}

// --- Executors that fail -----------------------------------------------------------------------------

TEST(ExecutorOfACallback, ThatThrowsHasItCalledWhereItWasCalled) {
  group flights;
  const auto throws = [](const auto&) { throw std::runtime_error("full"); };
  std::optional<leader<int>> lead;
  seen first;
  seen second;
  flights.async_call(1, throws, {}, keep(lead), std::ref(first));
  flights.async_call(1, throws, {}, never, std::ref(second));
  std::move(*lead).set_value(9);
  EXPECT_EQ(first.value(), 9);
  EXPECT_EQ(second.value(), 9);
}

// It may throw when it has run the task already, or run it twice.
TEST(ExecutorOfACallback, HasItCalledOnceWhateverItDoes) {
  group flights;
  const auto runs_then_throws = [](const auto& task) {
    task();
    task();
    throw std::runtime_error("late");
  };
  std::optional<leader<int>> lead;
  seen first;
  flights.async_call(1, runs_then_throws, {}, keep(lead), std::ref(first));
  std::move(*lead).set_value(9);
  EXPECT_EQ(first.times(), 1);
}

// A copy of the first task that comes late must not call back who waits for its next attempt.
TEST(ExecutorOfACallback, MayRunATaskAgainWhenTheNextAttemptHasBegun) {
  group flights;
  std::vector<std::function<void()>> tasks;
  const auto keeps = [&](auto task) { tasks.emplace_back(std::move(task)); };
  std::optional<leader<int>> first;
  std::optional<leader<int>> second;
  seen follower;
  flights.async_call(1, resume_inline, {}, keep(first), [](const outcome<int>&) {});
  flights.async_call(1, keeps, {.attempts = 2}, keep(second), std::ref(follower));
  std::move(*first).set_exception(std::make_exception_ptr(std::runtime_error("once")));
  ASSERT_EQ(tasks.size(), 1U);
  tasks[0]();
  ASSERT_TRUE(second.has_value());
  tasks[0]();
  EXPECT_FALSE(follower.came());
  EXPECT_EQ(flights.stats().waiting, 1U);
  std::move(*second).set_value(2);
  ASSERT_EQ(tasks.size(), 2U);
  tasks[0]();
  EXPECT_FALSE(follower.came());
  tasks[1]();
  tasks[1]();
  EXPECT_EQ(follower.value(), 2);
  EXPECT_EQ(follower.times(), 1);
  expect_idle(flights);
}

TEST(ExecutorOfACallback, ThatDropsTheTaskDropsTheCallback) {
  group flights;
  task_queue queue;
  std::optional<leader<int>> lead;
  const auto alive = std::make_shared<int>(0);
  flights.async_call(1, std::ref(queue), {}, keep(lead),
                     [alive](const outcome<int>&) { FAIL() << "was called"; });
  std::move(*lead).set_value(1);
  EXPECT_EQ(alive.use_count(), 2);
  queue.drop();
  EXPECT_EQ(alive.use_count(), 1);
  expect_idle(flights);
}

// --- Starting ----------------------------------------------------------------------------------------

TEST(Start, IsCalledOnThisThreadAndOnlyByWhoBeginsTheCall) {
  group flights;
  std::optional<leader<int>> lead;
  std::thread::id where;
  seen first;
  flights.async_call(
      1, resume_inline, {},
      [&](leader<int> mine) {
        where = std::this_thread::get_id();
        lead.emplace(std::move(mine));
      },
      std::ref(first));
  EXPECT_EQ(where, std::this_thread::get_id());
  flights.async_call(1, resume_inline, {}, never, [](const auto&) {});
  std::move(*lead).set_value(1);
}

TEST(Start, ThatThrowsFailsTheCallForEverybody) {
  group flights;
  seen first;
  seen second;
  flights.async_call(
      1, resume_inline, {},
      [&](const leader<int>&) {
        flights.async_call(1, resume_inline, {}, never, std::ref(second));
        throw std::runtime_error("refused");
      },
      std::ref(first));
  EXPECT_EQ(text_of(first.error()), "refused");
  expect_same(first.error(), second.error());
  EXPECT_EQ(flights.stats().failed, 1U);
  expect_idle(flights);
}

// The leader had been dropped when it threw: its exception says more than `owner_dead`.
TEST(Start, ThatDropsTheLeaderAndThrowsFailsWithWhatItThrew) {
  group flights;
  seen first;
  flights.async_call(
      1, resume_inline, {},
      [](leader<int> lead) {
        { const leader<int> dropped = std::move(lead); }
        throw std::runtime_error("why");
      },
      std::ref(first));
  EXPECT_EQ(text_of(first.error()), "why");
}

TEST(Start, ThatDropsTheLeaderFailsTheCallForEverybody) {
  group flights;
  seen first;
  seen follower;
  flights.async_call(
      1, resume_inline, {},
      [&](leader<int> lead) {
        flights.async_call(1, resume_inline, {}, never, std::ref(follower));
        const leader<int> dropped = std::move(lead);
      },
      std::ref(first));
  EXPECT_EQ(first.code(), std::errc::owner_dead);
  expect_same(first.error(), follower.error());
  EXPECT_EQ(flights.stats().failed, 1U);
  expect_idle(flights);
}

TEST(Start, ThatHasEndedTheCallMayThrow) {
  group flights;
  seen first;
  flights.async_call(
      1, resume_inline, {},
      [](leader<int> lead) {
        std::move(lead).set_value(8);
        throw std::runtime_error("late");
      },
      std::ref(first));
  EXPECT_EQ(first.value(), 8);
  EXPECT_EQ(first.times(), 1);
}

/// Moving it, once it is the value of a call that has ended, takes until the test lets it go on.
struct slow_to_move {
  slow_to_move(int v, std::function<void()> f) : value(v), moves(std::move(f)) {}
  slow_to_move(slow_to_move&& other) : value(other.value), moves(std::move(other.moves)) {
    if (moves) moves();
  }
  int value;
  std::function<void()> moves;
};

TEST(Start, MayReturnWhileAnotherThreadEndsTheCall) {
  singleflight::group<int, slow_to_move> flights;
  std::promise<void> ends;
  std::promise<void> begun;
  std::optional<int> got;
  bool waited = false;
  const auto wait_once = [&] {
    if (waited || !flights.in_flight().empty()) return;
    waited = true;
    ends.set_value();
    begun.get_future().wait();
  };
  threads other;
  flights.async_call(
      1, resume_inline, {},
      [&](leader<slow_to_move> lead) {
        other.start([&, mine = std::move(lead)]() mutable {
          std::move(mine).set_value(slow_to_move(7, wait_once));
        });
        ends.get_future().wait();
      },
      [&](const outcome<slow_to_move>& o) { got = o.value().value; });
  begun.set_value();
  other.join();
  EXPECT_EQ(got, 7);
}

#if defined(SINGLEFLIGHT_TESTS_THREAD_EXIT_UNWINDS)
TEST(Start, WhoseThreadEndsFailsTheCallForEverybody) {
  group flights;
  task_queue queue;
  seen inlined;
  seen bound;
  seen follower;
  for (const bool by_executor : {false, true}) {
    std::thread([&] {
      const auto start = [&](const leader<int>&) {
        if (by_executor) flights.async_call(1, resume_inline, {}, never, std::ref(follower));
        pthread_exit(nullptr);
      };
      if (by_executor) {
        flights.async_call(1, std::ref(queue), {}, start, std::ref(bound));
      } else {
        flights.async_call(1, resume_inline, {}, start, std::ref(inlined));
      }
    }).join();
  }
  EXPECT_EQ(inlined.code(), std::errc::owner_dead);
  EXPECT_EQ(follower.code(), std::errc::owner_dead);
  EXPECT_FALSE(bound.came());
  queue.run();
  EXPECT_EQ(bound.code(), std::errc::owner_dead);
  expect_idle(flights);
}

// The other thread is moving the value when the one ends that starts the loader.
TEST(Start, WhoseThreadEndsLeavesTheCallerToTheThreadThatEndsTheCall) {
  singleflight::group<int, slow_to_move> flights;
  std::promise<void> ends, gone;
  std::optional<int> got;
  bool waited = false;
  const auto wait_once = [&] {
    if (waited || !flights.in_flight().empty()) return;
    waited = true;
    ends.set_value();
    gone.get_future().wait();
  };
  threads other;
  std::thread([&] {
    flights.async_call(
        1, resume_inline, {},
        [&](leader<slow_to_move> lead) {
          other.start([&, mine = std::move(lead)]() mutable {
            std::move(mine).set_value(slow_to_move(7, wait_once));
          });
          ends.get_future().wait();
          pthread_exit(nullptr);
        },
        [&](const outcome<slow_to_move>& o) { got = o.value().value; });
  }).join();
  EXPECT_FALSE(got);
  gone.set_value();
  other.join();
  EXPECT_EQ(got, 7);
}
#endif

// --- Attempts and limits -----------------------------------------------------------------------------

TEST(Attempts, MakeAFollowerOfAFailedCallBeginTheNext) {
  group flights;
  std::optional<leader<int>> first;
  std::optional<leader<int>> second;
  seen one;
  seen two;
  seen three;
  flights.async_call(1, resume_inline, {}, keep(first), std::ref(one));
  flights.async_call(1, resume_inline, {.attempts = 2}, keep(second), std::ref(two));
  flights.async_call(1, resume_inline, {.attempts = 2}, never, std::ref(three));
  std::move(*first).set_exception(std::make_exception_ptr(std::runtime_error("once")));
  EXPECT_EQ(text_of(one.error()), "once");
  EXPECT_FALSE(two.came());
  EXPECT_FALSE(three.came());
  ASSERT_TRUE(second.has_value());
  std::move(*second).set_value(2);
  EXPECT_EQ(two.value(), 2);
  EXPECT_TRUE(two.led());
  EXPECT_EQ(three.value(), 2);
  EXPECT_EQ(flights.stats().led, 1U);  // entries, not calls
  EXPECT_EQ(flights.stats().joined, 2U);
  EXPECT_EQ(flights.stats().failed, 1U);
  expect_idle(flights);
}

TEST(Attempts, MakeAFollowerOfAThreadsFailedCallBeginTheNext) {
  group flights;
  std::optional<leader<int>> second;
  seen follower;
  const auto load = [&]() -> int {
    flights.async_call(1, resume_inline, {.attempts = 2}, keep(second), std::ref(follower));
    throw std::runtime_error("once");
  };
  EXPECT_THROW((void)flights.do_call(1, load), std::runtime_error);
  ASSERT_TRUE(second.has_value());
  std::move(*second).set_value(2);
  EXPECT_EQ(follower.value(), 2);
  expect_idle(flights);
}

// The follower is resumed when the group is gone.
TEST(Attempts, EndWithTheGroupOfAThreadsFailedCall) {
  std::optional<group> flights(std::in_place);
  task_queue queue;
  seen follower;
  const auto load = [&]() -> int {
    flights->async_call(1, std::ref(queue), {.attempts = 2}, never, std::ref(follower));
    throw std::runtime_error("only");
  };
  EXPECT_THROW((void)flights->do_call(1, load), std::runtime_error);
  flights.reset();
  queue.run();
  EXPECT_EQ(text_of(follower.error()), "only");
}

TEST(Attempts, EndWithTheLastFailure) {
  group flights;
  seen follower;
  std::optional<leader<int>> first;
  seen leads;
  flights.async_call(1, resume_inline, {}, keep(first), std::ref(leads));
  std::optional<leader<int>> second;
  task_queue queue;
  flights.async_call(1, std::ref(queue), {.attempts = 2}, never, std::ref(follower));
  std::move(*first).set_exception(std::make_exception_ptr(std::runtime_error("first")));
  seen leads_again;
  flights.async_call(1, resume_inline, {}, keep(second), std::ref(leads_again));
  queue.run();  // joins the second
  EXPECT_FALSE(follower.came());
  std::move(*second).set_exception(std::make_exception_ptr(std::runtime_error("second")));
  queue.run();
  EXPECT_EQ(text_of(follower.error()), "second");
}

// The group is gone: there is nothing to try again with.
TEST(Attempts, EndWithTheGroup) {
  std::optional<group> flights(std::in_place);
  std::optional<leader<int>> lead;
  seen first;
  seen follower;
  flights->async_call(1, resume_inline, {}, keep(lead), std::ref(first));
  flights->async_call(1, resume_inline, {.attempts = 5}, never, std::ref(follower));
  flights.reset();
  std::move(*lead).set_exception(std::make_exception_ptr(std::runtime_error("only")));
  EXPECT_EQ(text_of(follower.error()), "only");
}

// What the failed call leaves is destroyed outside all locks.
TEST(Attempts, DestroyTheFirstFailureOutsideAllLocks) {
  group flights({.shards = 1});
  struct failure {
    group* in;
    explicit failure(group* g) : in(g) {}
    failure(const failure& other) = default;
    failure& operator=(const failure&) = default;
    ~failure() { (void)in->stats(); }
  };
  std::optional<leader<int>> first;
  std::optional<leader<int>> second;
  seen follower;
  task_queue queue;  // by then, nobody else has it
  flights.async_call(1, resume_inline, {}, keep(first), [](const outcome<int>&) {});
  flights.async_call(1, std::ref(queue), {.attempts = 2}, keep(second), std::ref(follower));
  std::move(*first).set_exception(std::make_exception_ptr(failure(&flights)));
  queue.run();
  ASSERT_TRUE(second.has_value());
  std::move(*second).set_value(1);
  queue.run();
  EXPECT_EQ(follower.value(), 1);
}

TEST(Attempts, EndWhereTheCallerCannotEnterAgain) {
  bool fails = false;
  moody_group flights({}, moody_hash{&fails});
  std::optional<leader<int>> lead;
  seen follower;
  flights.async_call(1, resume_inline, {}, keep(lead), [](const outcome<int>&) {});
  flights.async_call(1, resume_inline, {.attempts = 2}, never, std::ref(follower));
  fails = true;
  std::move(*lead).set_exception(std::make_exception_ptr(std::runtime_error("once")));
  EXPECT_EQ(text_of(follower.error()), "hash");
  EXPECT_EQ(follower.times(), 1);
  fails = false;
  expect_idle(flights);
}

TEST(Attempts, MustBeAtLeastOne) {
  group flights;
  EXPECT_THROW(flights.async_call(1, resume_inline, {.attempts = 0}, never, [](const auto&) {}),
               std::invalid_argument);
  EXPECT_THROW(std::ignore = flights.co_call(1, resume_inline, {.attempts = 0}, [] { return 1; }),
               std::invalid_argument);
}

TEST(MaxWaiters, RefuseTheFollowerPastThem) {
  group flights({.max_waiters = 1});
  std::optional<leader<int>> lead;
  seen first;
  seen second;
  seen third;
  flights.async_call(1, resume_inline, {}, keep(lead), std::ref(first));
  flights.async_call(1, resume_inline, {}, never, std::ref(second));
  flights.async_call(1, resume_inline, {}, never, std::ref(third));
  EXPECT_EQ(third.code(), std::errc::resource_unavailable_try_again);
  EXPECT_EQ(flights.stats().rejected, 1U);
  std::move(*lead).set_value(1);
  EXPECT_EQ(second.value(), 1);
}

TEST(MaxWaiters, MayHaveTheFollowerPastThemRunAlone) {
  group flights({.max_waiters = 0, .when_full = singleflight::group_options::run_alone});
  std::optional<leader<int>> first;
  std::optional<leader<int>> alone;
  seen one;
  seen two;
  flights.async_call(1, resume_inline, {}, keep(first), std::ref(one));
  flights.async_call(1, resume_inline, {}, keep(alone), std::ref(two));
  ASSERT_TRUE(alone.has_value());
  EXPECT_EQ(flights.in_flight().size(), 1U);
  EXPECT_EQ(flights.stats().in_flight, 2U);
  std::move(*alone).set_value(2);
  EXPECT_EQ(two.value(), 2);
  EXPECT_FALSE(one.came());
  std::move(*first).set_value(1);
  EXPECT_EQ(one.value(), 1);
  EXPECT_EQ(flights.stats().rejected, 1U);
  expect_idle(flights);
}

// --- Identity and age --------------------------------------------------------------------------------

TEST(Forget, LetsAnAsynchronousCallEndWithoutTouchingANewerOne) {
  group flights;
  std::optional<leader<int>> old;
  std::optional<leader<int>> fresh;
  seen one;
  seen two;
  flights.async_call(1, resume_inline, {}, keep(old), std::ref(one));
  EXPECT_FALSE(old->forgotten());
  EXPECT_TRUE(flights.forget(1));
  EXPECT_TRUE(old->forgotten());
  flights.async_call(1, resume_inline, {}, keep(fresh), std::ref(two));
  EXPECT_FALSE(fresh->forgotten());
  std::move(*old).set_value(1);
  EXPECT_EQ(one.value(), 1);
  EXPECT_EQ(flights.in_flight().size(), 1U);
  std::move(*fresh).set_value(2);
  EXPECT_EQ(two.value(), 2);
}

TEST(MaxAge, SupersedesAnAsynchronousCall) {
  group flights({.max_age = std::chrono::nanoseconds(1)});
  std::optional<leader<int>> old;
  std::optional<leader<int>> fresh;
  seen one;
  seen two;
  flights.async_call(1, resume_inline, {}, keep(old), std::ref(one));
  const auto begun = std::chrono::steady_clock::now();
  await([&] { return std::chrono::steady_clock::now() > begun; }, "the clock");
  flights.async_call(1, resume_inline, {}, keep(fresh), std::ref(two));
  ASSERT_TRUE(fresh.has_value());
  EXPECT_TRUE(old->forgotten());
  EXPECT_EQ(flights.stats().superseded, 1U);
  std::move(*fresh).set_value(2);
  EXPECT_EQ(two.value(), 2);
  std::move(*old).set_value(1);
  EXPECT_EQ(one.value(), 1);
}

// The call is unlisted before anybody is told: whoever asks again in there gets a new call.
TEST(InlineCallback, ThatAsksForTheSameKeyBeginsANewCall) {
  group flights;
  std::optional<leader<int>> first;
  std::optional<leader<int>> second;
  seen again;
  flights.async_call(1, resume_inline, {}, keep(first), [&](const outcome<int>&) {
    flights.async_call(1, resume_inline, {}, keep(second), std::ref(again));
  });
  std::move(*first).set_value(1);
  ASSERT_TRUE(second.has_value());
  EXPECT_FALSE(again.came());
  std::move(*second).set_value(2);
  EXPECT_EQ(again.value(), 2);
}

// The callback and what it holds are gone when it has been called.
TEST(Callback, IsDestroyedWhenItHasBeenCalled) {
  group flights;
  const auto alive = std::make_shared<int>(0);
  std::optional<leader<int>> lead;
  flights.async_call(1, resume_inline, {}, keep(lead), [alive](const outcome<int>&) {});
  flights.async_call(
      1, resume_inline, {}, [alive](const leader<int>&) {}, [alive](const outcome<int>&) {});
  EXPECT_EQ(alive.use_count(), 4);
  std::move(*lead).set_value(1);
  EXPECT_EQ(alive.use_count(), 1);
}

// --- User code that calls the group --------------------------------------------------------------------

// Values whose move throws fail the call, for who began it and for those who joined.
struct throws_when_moved {
  explicit throws_when_moved(int countdown) : moves_left(countdown) {}
  throws_when_moved(throws_when_moved&& other) : moves_left(other.moves_left - 1) {
    if (moves_left <= 0) throw std::runtime_error("the move");
  }
  int moves_left;
};

#if !defined(SINGLEFLIGHT_TESTS_CALL_ONCE_HANGS)
TEST(AsyncCall, WhoseValueThrowsWhenMovedFails) {
  for (const bool joined : {false, true}) {
    for (int moves = 1; moves < 6; ++moves) {
      singleflight::group<int, throws_when_moved> flights;
      std::optional<leader<throws_when_moved>> lead;
      int answered = 0;
      std::vector<std::string> texts;
      const auto done = [&](const outcome<throws_when_moved>& o) {
        ++answered;
        if (!o.has_value()) texts.push_back(text_of(o.error()));
      };
      flights.async_call(1, resume_inline, {}, keep(lead), done);
      if (joined) flights.async_call(1, resume_inline, {}, never, done);
      const auto thrown = thrown_by([&] { std::move(*lead).set_value(throws_when_moved(moves)); });
      lead.reset();  // where it was thrown before the call was ended
      EXPECT_EQ(answered, joined ? 2 : 1);
      EXPECT_EQ(flights.stats().failed == 1, !texts.empty() && moves < 3);
      for (const std::string& t : texts) {
        EXPECT_TRUE(t == "the move" || thrown != nullptr) << t;
      }
      expect_idle(flights);
    }
  }
}
#endif

}  // namespace
