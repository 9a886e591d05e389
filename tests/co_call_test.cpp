// SPDX-License-Identifier: MIT
// Coroutines: any task type as the caller and as the loader's result, and where they are resumed.
#include <gtest/gtest.h>

#include <atomic>
#include <exception>
#include <functional>
#include <future>
#include <memory>
#include <optional>
#include <singleflight/coroutine.hpp>
#include <stdexcept>
#include <string>
#include <system_error>
#include <thread>
#include <tuple>
#include <utility>
#include <vector>

#include "async_callers.hpp"
#include "executors.hpp"
#include "support.hpp"
#include "tasks.hpp"
#include "thread_pool.hpp"

namespace {

using namespace support;
using singleflight::async_options;
using singleflight::call_context;
using singleflight::leader;
using singleflight::outcome;
using singleflight::result;
using singleflight::resume_inline;

using text_group = singleflight::group<std::string, int>;

/// Runs a task from a thread until it is done.
template <class Task>
auto get(Task task) {
  using value = detail::awaited<Task>;
  std::promise<value> done;
  [](Task t, std::promise<value>& promise) -> detached {
    try {
      if constexpr (std::is_void_v<value>) {
        co_await std::move(t);
        promise.set_value();
      } else {
        promise.set_value(co_await std::move(t));
      }
    } catch (...) {
      promise.set_exception(std::current_exception());
    }
  }(std::move(task), done);
  return done.get_future().get();
}

// --- Any awaitable ---------------------------------------------------------------------------------

template <template <class> class Task>
Task<int> caller(text_group& flights, std::string key, const route& /*where*/) {
  co_return *co_await flights.co_call(
      key, resume_inline, [](const std::string& k) { return static_cast<int>(k.size()); });
}

template <template <class> class Caller, template <class> class Loader>
Caller<int> caller_and_loader(text_group& flights, std::string key, const route& where) {
  co_return *co_await flights.co_call(
      key, resume_inline, [&where](const std::string& k) -> Loader<int> {
        return [](const std::string& own, const route&) -> Loader<int> {
          co_return static_cast<int>(own.size());
        }(k, where);
      });
}

const route here = [](const std::function<void()>& resume) { resume(); };

TEST(CoCall, IsAwaitedByTasksOfAnyStyle) {
  text_group flights;
  EXPECT_EQ(get(caller<lazy_task>(flights, "four", here)), 4);
  EXPECT_EQ(get(caller<eager_task>(flights, "three", here)), 5);
  EXPECT_EQ(get(caller<routed_task>(flights, "routed", here)), 6);
  EXPECT_EQ(flights.stats().led, 3U);
  expect_idle(flights);
}

TEST(CoCall, TakesTasksOfAnyStyleFromItsLoader) {
  text_group flights;
  EXPECT_EQ(get(caller_and_loader<lazy_task, lazy_task>(flights, "1", here)), 1);
  EXPECT_EQ(get(caller_and_loader<lazy_task, eager_task>(flights, "12", here)), 2);
  EXPECT_EQ(get(caller_and_loader<lazy_task, routed_task>(flights, "123", here)), 3);
  EXPECT_EQ(get(caller_and_loader<eager_task, lazy_task>(flights, "1", here)), 1);
  EXPECT_EQ(get(caller_and_loader<eager_task, routed_task>(flights, "12", here)), 2);
  EXPECT_EQ(get(caller_and_loader<routed_task, eager_task>(flights, "123", here)), 3);
  EXPECT_EQ(get(caller_and_loader<routed_task, lazy_task>(flights, "1234", here)), 4);
  expect_idle(flights);
}

// A task type that re-routes what it awaits is resumed by its own executor, whoever ends the call.
TEST(CoCall, LeavesATaskThatReRoutesOnItsOwnExecutor) {
  group flights;
  task_queue queue;
  const route by_queue = [&](const std::function<void()>& resume) { queue(resume); };
  held_loader load;
  std::optional<int> got;
  std::atomic<bool> done = false;
  std::thread::id ran_on;
  const auto ask_routed = [](group& g, held_loader& l, std::thread::id& on,
                             const route& /*where*/) -> routed_task<int> {
    const auto r = co_await g.co_call(1, resume_inline,
                                      [&l]() -> lazy_task<int> { co_return co_await l.end; });
    on = std::this_thread::get_id();
    co_return *r;
  };
  [](routed_task<int> t, std::optional<int>& into, std::atomic<bool>& flag) -> detached {
    into = co_await std::move(t);
    flag = true;
  }(ask_routed(flights, load, ran_on, by_queue), got, done);
  std::thread([&] { load.end.open(3); }).join();
  EXPECT_FALSE(done);
  queue.run();
  EXPECT_TRUE(done);
  EXPECT_EQ(got, 3);
  EXPECT_EQ(ran_on, std::this_thread::get_id());
}

// An awaiter, an object with operator co_await, and another co_call.
TEST(CoCall, TakesAnythingThatCanBeAwaited) {
  group flights;
  group inner;
  gate<int> opens;
  seen of_gate;
  const frame waits = [](group& g, gate<int>& until, seen& said) -> frame {
    said.set(co_await g.co_call(1, resume_inline, [&until]() -> gate<int>& { return until; }));
  }(flights, opens, of_gate);
  EXPECT_FALSE(of_gate.came());
  opens.open(8);
  EXPECT_EQ(of_gate.value(), 8);

  struct at_once {
    [[nodiscard]] bool await_ready() const { return true; }
    void await_suspend(std::coroutine_handle<>) const {}
    [[nodiscard]] short await_resume() const { return 9; }  // converts to the Value
  };
  seen of_awaiter;
  const frame done = [](group& g, seen& said) -> frame {
    said.set(co_await g.co_call(1, resume_inline, [] { return at_once(); }));
  }(flights, of_awaiter);
  EXPECT_EQ(of_awaiter.value(), 9);

  seen of_call;
  const frame nested = [](group& g, group& in, seen& said) -> frame {
    said.set(co_await g.co_call(1, resume_inline,
                                [&in] { return in.co_call(2, resume_inline, [] { return 10; }); }));
  }(flights, inner, of_call);
  EXPECT_EQ(of_call.value(), 10);
  expect_idle(flights);
  expect_idle(inner);
}

// --- What the loader takes ---------------------------------------------------------------------------

TEST(LoaderOfCoCall, TakesWhatThatOfDoCallTakes) {
  text_group flights;
  const auto run = [&](auto load) {
    return get([](text_group& g, auto loader) -> lazy_task<int> {
      co_return *co_await g.co_call("key", resume_inline, std::move(loader));
    }(flights, load));
  };
  EXPECT_EQ(run([] { return 1; }), 1);
  EXPECT_EQ(run([](const std::string& k) { return static_cast<int>(k.size()); }), 3);
  EXPECT_EQ(run([](const call_context& c) { return c.forgotten() ? 1 : 2; }), 2);
  EXPECT_EQ(run([](const std::string& k, const call_context& c) {
              return static_cast<int>(k.size()) + (c.forgotten() ? 1 : 2);
            }),
            5);
#if defined(__cpp_lib_jthread)
  EXPECT_EQ(run([](std::stop_token t) { return t.stop_possible() ? 4 : 5; }), 4);
  EXPECT_EQ(run([](const std::string& k, std::stop_token t) {
              return static_cast<int>(k.size()) + (t.stop_possible() ? 4 : 5);
            }),
            7);
#endif
}

// The key that it is given, and the loader itself, live until the call has ended.
TEST(LoaderOfCoCall, HasTheCallsOwnKeyAndItsCapturesUntilTheCallEnds) {
  text_group flights;
  gate<int> opens;
  std::optional<std::string> callers_key = "a key that is too long for its own buffer";
  std::string seen_key;
  int sum = 0;
  const frame waits = [](text_group& g, const std::string& key, gate<int>& until, std::string& said,
                         int& total) -> frame {
    // With a name: g++ 12 destroys a temporary twice that captures by move in a co_await.
    auto load = [&until, &said,
                 five = std::make_unique<int>(5)](const std::string& k) -> lazy_task<int> {
      const int came = co_await until;
      said = k;
      co_return came + *five;
    };
    total = *co_await g.co_call(key, resume_inline, std::move(load));
  }(flights, *callers_key, opens, seen_key, sum);
  callers_key.reset();
  opens.open(10);
  EXPECT_EQ(seen_key, "a key that is too long for its own buffer");
  EXPECT_EQ(sum, 15);
}

TEST(LoaderOfCoCall, ThatThrowsFailsTheCallBeforeAndAfterItIsSuspended) {
  group flights;
  seen plain;
  seen task;
  const frame one = [](group& g, seen& said) -> frame {
    try {
      said.set(
          co_await g.co_call(1, resume_inline, []() -> int { throw std::runtime_error("plain"); }));
    } catch (...) {
      said.fail(std::current_exception());
    }
  }(flights, plain);
  EXPECT_EQ(text_of(plain.error()), "plain");
  held_loader load;
  const frame two = ask_leading(flights, 1, resume_inline, {}, task, load);
  load.end.fail(std::make_exception_ptr(std::runtime_error("later")));
  EXPECT_EQ(text_of(task.error()), "later");
  EXPECT_EQ(flights.stats().failed, 2U);
  expect_idle(flights);
}

TEST(LoaderOfCoCall, ThatReturnsNothingEndsACallWithoutAValue) {
  singleflight::group<int, void> flights;
  int loads = 0;
  bool led = false;
  const frame asks = [](singleflight::group<int, void>& g, int& count, bool& flag) -> frame {
    const auto r = co_await g.co_call(1, resume_inline, [&count] { ++count; });
    flag = r.led();
  }(flights, loads, led);
  EXPECT_EQ(loads, 1);
  EXPECT_TRUE(led);
  expect_idle(flights);
}

TEST(CoCall, OfAVoidGroupAndOfAMoveOnlyValue) {
  singleflight::group<int, void> nothing;
  gate<void> opens;
  bool done = false;
  const frame one = [](singleflight::group<int, void>& g, gate<void>& until, bool& flag) -> frame {
    const auto r =
        co_await g.co_call(1, resume_inline, [&until]() -> lazy_task<> { co_await until; });
    flag = r.led();
  }(nothing, opens, done);
  opens.open();
  EXPECT_TRUE(done);

  singleflight::group<int, std::unique_ptr<int>> owners;
  EXPECT_EQ(get([](singleflight::group<int, std::unique_ptr<int>>& g) -> lazy_task<int> {
              const auto r = co_await g.co_call(
                  1, resume_inline,
                  []() -> lazy_task<std::unique_ptr<int>> { co_return std::make_unique<int>(6); });
              co_return **r;
            }(owners)),
            6);
}

// --- Lazy --------------------------------------------------------------------------------------------

TEST(CoCall, DoesNothingBeforeItIsAwaited) {
  group flights;
  {
    [[maybe_unused]] const auto unused = flights.co_call(1, resume_inline, [] { return 1; });
  }
  EXPECT_EQ(flights.stats().led, 0U);
  EXPECT_EQ(get([](group& g) -> lazy_task<int> {
              auto later = g.co_call(1, resume_inline, [] { return 2; });
              EXPECT_EQ(g.stats().led, 0U);
              co_return *co_await std::move(later);
            }(flights)),
            2);
  EXPECT_EQ(flights.stats().led, 1U);
}

// --- Where -------------------------------------------------------------------------------------------

// By an executor: never inside the co_await, also where the call ends while it is begun.
TEST(BoundCoroutine, IsResumedByItsExecutorAndNeverInsideTheCoAwait) {
  group flights({.max_waiters = 0});
  task_queue queue;
  seen at_once;
  seen refused;
  const frame one = [](group& g, task_queue& q, seen& said) -> frame {
    said.set(co_await g.co_call(1, std::ref(q), [] { return 5; }));
  }(flights, queue, at_once);
  EXPECT_FALSE(at_once.came());
  EXPECT_EQ(queue.size(), 1U);
  queue.run();
  EXPECT_EQ(at_once.value(), 5);

  held_loader load;
  seen first;
  const frame two = ask_leading(flights, 1, std::ref(queue), {}, first, load);
  const frame three = ask(flights, 1, std::ref(queue), {}, refused);
  EXPECT_FALSE(refused.came());
  queue.run();
  EXPECT_EQ(refused.code(), std::errc::resource_unavailable_try_again);
  std::thread([&] { load.end.open(1); }).join();
  EXPECT_FALSE(first.came());
  queue.run();
  EXPECT_EQ(first.value(), 1);
}

TEST(InlineCoroutine, IsResumedOnTheThreadThatEndsTheCallAfterAllPosts) {
  group flights;
  task_queue queue;
  held_loader load;
  seen first;
  seen inlined;
  seen bound;
  std::thread::id ran_on;
  std::size_t posted = 0;
  const frame one = ask_leading(flights, 1, resume_inline, {}, first, load);
  const frame two = ask(flights, 1, resume_inline, {}, inlined, [&] {
    ran_on = std::this_thread::get_id();
    posted = queue.size();
  });
  const frame three = ask(flights, 1, std::ref(queue), {}, bound);
  std::thread ends([&] { load.end.open(1); });
  const std::thread::id there = ends.get_id();
  ends.join();
  EXPECT_EQ(ran_on, there);
  EXPECT_EQ(posted, 1U);
  EXPECT_EQ(first.value(), 1);
  EXPECT_EQ(inlined.value(), 1);
  queue.run();
  EXPECT_EQ(bound.value(), 1);
}

TEST(ExecutorOfACoroutine, ThatThrowsHasItResumedWhereItWasCalled) {
  group flights;
  const auto throws = [](const auto&) { throw std::runtime_error("full"); };
  held_loader load;
  seen first;
  seen second;
  const frame one = ask_leading(flights, 1, throws, {}, first, load);
  const frame two = ask(flights, 1, throws, {}, second);
  load.end.open(4);
  EXPECT_EQ(first.value(), 4);
  EXPECT_EQ(second.value(), 4);
}

// The coroutine stays suspended, and is its owner's to destroy.
TEST(ExecutorOfACoroutine, MayDropTheTask) {
  group flights;
  task_queue queue;
  held_loader load;
  seen first;
  frame waits = ask_leading(flights, 1, std::ref(queue), {}, first, load);
  load.end.open(4);
  queue.drop();
  EXPECT_FALSE(waits.done());
  waits.destroy();
  EXPECT_FALSE(first.came());
  expect_idle(flights);
}

TEST(ExecutorOfACoroutine, HasItResumedOnceWhateverItDoes) {
  group flights;
  const auto runs_twice = [](const auto& task) {
    task();
    task();
    throw std::runtime_error("late");
  };
  held_loader load;
  seen first;
  const frame one = ask_leading(flights, 1, runs_twice, {}, first, load);
  load.end.open(4);
  EXPECT_EQ(first.times(), 1);
}

// --- One call for all kinds --------------------------------------------------------------------------

TEST(CoCall, SharesOneCallWithEveryOtherKind) {
  group flights;
  held_loader load;
  seen first;
  seen follower;
  seen callback;
  const frame one = ask_leading(flights, 1, resume_inline, {}, first, load);
  const frame two = ask(flights, 1, resume_inline, {}, follower);
  flights.async_call(1, resume_inline, {}, never, std::ref(callback));
  const auto future = flights.do_async(1, inline_executor, [] { return 0; });
  int of_thread = 0;
  threads callers;
  callers.start([&] { of_thread = flights.do_call(1, [] { return 0; }); });
  await_followers(flights, 5);
  load.end.open(11);
  callers.join();
  EXPECT_EQ(load.runs, 1);
  EXPECT_EQ(first.value(), 11);
  EXPECT_EQ(follower.value(), 11);
  EXPECT_EQ(callback.value(), 11);
  EXPECT_EQ(future.get(), 11);
  EXPECT_EQ(of_thread, 11);
  EXPECT_EQ(flights.stats().led, 1U);
  EXPECT_EQ(flights.stats().joined, 4U);
  expect_idle(flights);
}

TEST(CoCall, FollowsTheCallOfAThread) {
  group flights;
  seen follower;
  frame waits;
  const auto r = flights.do_call(1, [&] {
    waits = ask(flights, 1, resume_inline, {}, follower);
    return 12;
  });
  EXPECT_TRUE(r.shared());
  EXPECT_EQ(follower.value(), 12);
}

// The coroutine that began the call is suspended for good, where nobody polls it: the others finish.
TEST(Leader, WhoseCoroutineIsNeverResumedHoldsUpNobody) {
  group flights;
  task_queue never_run;
  held_loader load;
  seen first;
  seen follower;
  const frame parked = ask_leading(flights, 1, std::ref(never_run), {}, first, load);
  const frame waits = ask(flights, 1, resume_inline, {}, follower);
  load.end.open(2);
  EXPECT_EQ(follower.value(), 2);
  EXPECT_FALSE(first.came());
  EXPECT_TRUE(flights.in_flight().empty());
}

// The loader of the coroutine that is gone goes on for the others.
TEST(Leader, WhoseCoroutineIsDestroyedHoldsUpNobody) {
  group flights;
  held_loader load;
  seen first;
  seen follower;
  frame began = ask_leading(flights, 1, resume_inline, {}, first, load);
  const frame waits = ask(flights, 1, resume_inline, {}, follower);
  began.destroy();
  load.end.open(2);
  EXPECT_EQ(follower.value(), 2);
}

// Leader, loader and follower on one pool of one thread.
TEST(CoCall, NeedsNoSecondThreadOfAPool) {
  group flights;
  std::optional<thread_pool> pool(std::in_place, 1);
  const route by_pool = [&](std::function<void()> resume) { pool->post(std::move(resume)); };
  const auto on = [&](auto task) { pool->post(std::move(task)); };
  std::vector<seen> said(3);
  std::vector<frame> all(3);
  std::promise<void> done;
  std::atomic<int> left = 3;
  for (std::size_t i = 0; i < 3; ++i) {
    pool->post([&, i] {
      all[i] = [](group& g, auto where, const route& hop, seen& out, std::atomic<int>& n,
                  std::promise<void>& last) -> frame {
        out.set(co_await g.co_call(1, where, [&hop]() -> routed_task<int> {
          return [](const route&) -> routed_task<int> {
            co_await std::suspend_never();  // goes through the pool
            co_return 1;
          }(hop);
        }));
        if (--n == 0) last.set_value();
      }(flights, on, by_pool, said[i], left, done);
    });
  }
  done.get_future().wait();
  pool.reset();  // a frame is destroyed when it does not run any more
  for (const seen& s : said) EXPECT_EQ(s.value(), 1);
}

// --- Attempts ----------------------------------------------------------------------------------------

TEST(AttemptsOfACoroutine, BeginTheNextCallWithItsOwnLoader) {
  for (const bool by_executor : {false, true}) {
    group flights;
    task_queue queue;
    held_loader first;
    held_loader second;
    seen one;
    seen two;
    seen three;
    const frame leads = ask_leading(flights, 1, resume_inline, {}, one, first);
    const frame tries = by_executor
                            ? ask_leading(flights, 1, std::ref(queue), {.attempts = 2}, two, second)
                            : ask_leading(flights, 1, resume_inline, {.attempts = 2}, two, second);
    const frame joins = ask(flights, 1, resume_inline, {}, three);
    first.end.fail(std::make_exception_ptr(std::runtime_error("once")));
    EXPECT_EQ(text_of(one.error()), "once");
    EXPECT_EQ(text_of(three.error()), "once");
    queue.run();
    EXPECT_EQ(second.runs, 1);
    EXPECT_FALSE(two.came());
    second.end.open(2);
    queue.run();
    EXPECT_EQ(two.value(), 2);
    EXPECT_TRUE(two.led());
    expect_idle(flights);
  }
}

TEST(AttemptsOfACoroutine, EndWhereItCannotEnterAgain) {
  bool fails = false;
  moody_group flights({}, moody_hash{&fails});
  auto lead = std::get<leader<int>>(flights.lead_or_follow(1));
  seen said;
  const frame asks = [](moody_group& g, seen& in) -> frame {
    try {
      const async_options options{.attempts = 2};
      in.set(co_await g.co_call(1, resume_inline, options, [] { return 0; }));
    } catch (...) {
      in.fail(std::current_exception());
    }
  }(flights, said);
  fails = true;
  std::move(lead).set_exception(std::make_exception_ptr(std::runtime_error("once")));
  EXPECT_EQ(text_of(said.error()), "hash");
  EXPECT_EQ(said.times(), 1);
  fails = false;
  expect_idle(flights);
}

TEST(AttemptsOfACoroutine, EndWithTheLastFailure) {
  group flights;
  held_loader first;
  seen one;
  seen two;
  const frame leads = ask_leading(flights, 1, resume_inline, {}, one, first);
  const frame tries = [](group& g, seen& said) -> frame {
    try {
      said.set(co_await g.co_call(1, resume_inline, async_options{.attempts = 2},
                                  []() -> int { throw std::runtime_error("twice"); }));
    } catch (...) {
      said.fail(std::current_exception());
    }
  }(flights, two);
  EXPECT_FALSE(two.came());
  first.end.fail(std::make_exception_ptr(std::runtime_error("once")));
  EXPECT_EQ(text_of(two.error()), "twice");
  EXPECT_EQ(flights.stats().failed, 2U);
}

}  // namespace
