// SPDX-License-Identifier: MIT
// Circles of waits through asynchronous calls whose loaders say inside which call they ask.
#include <gtest/gtest.h>

#include <atomic>
#include <chrono>
#include <exception>
#include <functional>
#include <optional>
#include <singleflight/coroutine.hpp>
#include <singleflight/group.hpp>
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
#include "tasks.hpp"

namespace {

using namespace support;
using singleflight::async_options;
using singleflight::call_context;
using singleflight::leader;
using singleflight::outcome;
using singleflight::resume_inline;

constexpr std::errc circle = std::errc::resource_deadlock_would_occur;

/// An asynchronous call that the test ends, and what its first caller was answered.
struct open_call {
  open_call(group& g, int key, async_options options = {}) {
    g.async_call(key, resume_inline, options, keep(lead), std::ref(said));
  }
  [[nodiscard]] async_options inside() const { return {.inside = &lead->context()}; }

  std::optional<leader<int>> lead;
  seen said;
};

/// What a thread is told that asks for a key and blocks.
std::error_code refusal(group& flights, int key) {
  try {
    static_cast<void>(flights.do_call(key, [] { return 0; }));
    return {};
  } catch (const singleflight::call_error& error) {
    return error.code();
  }
}

TEST(AsyncCircle, OfACallThatAsksForItsOwnKeyIsRefused) {
  group flights;
  open_call a(flights, 1);
  seen self;
  flights.async_call(1, resume_inline, a.inside(), never, std::ref(self));
  EXPECT_EQ(self.code(), circle);
  EXPECT_FALSE(a.said.came());
  EXPECT_EQ(flights.stats().rejected, 1U);
  std::move(*a.lead).set_value(1);
  EXPECT_EQ(a.said.value(), 1);
  expect_idle(flights);
}

// In its loader, before it is suspended, and after.
TEST(AsyncCircle, OfALoaderThatAsksForItsOwnKeyIsRefused) {
  for (const bool suspended : {false, true}) {
    group flights;
    gate<int> opens;
    seen self;
    seen first;
    const frame waits = [](group& g, bool later, gate<int>& until, seen& in, seen& out) -> frame {
      try {
        out.set(co_await g.co_call(
            1, resume_inline, [&g, later, &until, &in](const call_context& c) -> lazy_task<int> {
              if (later) co_await until;
              try {
                in.set(co_await g.co_call(1, resume_inline, async_options{.inside = &c},
                                          [] { return 0; }));
              } catch (...) {
                in.fail(std::current_exception());
              }
              co_return 3;
            }));
      } catch (...) {
        out.fail(std::current_exception());
      }
    }(flights, suspended, opens, self, first);
    if (suspended) opens.open(1);
    EXPECT_EQ(self.code(), circle);
    EXPECT_EQ(first.value(), 3);
    expect_idle(flights);
  }
}

TEST(AsyncCircle, ThroughOtherKeysIsRefused) {
  group flights;
  open_call a(flights, 1);
  open_call b(flights, 2);
  open_call c(flights, 3);
  seen a_waits;
  seen b_waits;
  seen c_waits;
  flights.async_call(2, resume_inline, a.inside(), never, std::ref(a_waits));
  flights.async_call(3, resume_inline, b.inside(), never, std::ref(b_waits));
  EXPECT_FALSE(b_waits.came());
  flights.async_call(1, resume_inline, c.inside(), never, std::ref(c_waits));
  EXPECT_EQ(c_waits.code(), circle);
  std::move(*c.lead).set_value(1);
  std::move(*b.lead).set_value(1);
  std::move(*a.lead).set_value(1);
  EXPECT_EQ(a_waits.value(), 1);
  EXPECT_EQ(b_waits.value(), 1);
}

TEST(AsyncCircle, ThroughGroupsOfDifferentTypesIsRefused) {
  group flights;
  singleflight::group<std::string, std::string> texts;
  open_call a(flights, 1);
  std::optional<leader<std::string>> b;
  seen in_a;
  texts.async_call("b", resume_inline, a.inside(), keep(b), [](const auto&) {});
  flights.async_call(1, resume_inline, {.inside = &b->context()}, never, std::ref(in_a));
  EXPECT_EQ(in_a.code(), circle);
  std::move(*b).set_value("x");
  std::move(*a.lead).set_value(1);
}

// Each attempt waits for a call of its own: the caller waits for that of the second attempt alone.
TEST(AsyncCircle, ThroughTheSecondAttemptOfACallerIsRefused) {
  group flights;
  open_call a(flights, 1);
  open_call b(flights, 2);
  open_call c(flights, 3);
  async_options twice = a.inside();
  twice.attempts = 2;
  seen a_waits;
  std::optional<leader<int>> again;
  flights.async_call(2, resume_inline, twice, keep(again), std::ref(a_waits));
  seen other;
  flights.async_call(3, resume_inline, a.inside(), never, std::ref(other));
  std::move(*b.lead).set_exception(std::make_exception_ptr(42));
  ASSERT_TRUE(again.has_value());
  seen b_waits;
  flights.async_call(1, resume_inline, {.inside = &again->context()}, never, std::ref(b_waits));
  EXPECT_EQ(b_waits.code(), circle);
  seen c_waits;
  flights.async_call(1, resume_inline, c.inside(), never, std::ref(c_waits));
  EXPECT_EQ(c_waits.code(), circle);
  std::move(*again).set_value(5);
  EXPECT_EQ(a_waits.value(), 5);
  std::move(*c.lead).set_value(6);
  EXPECT_EQ(other.value(), 6);
  seen last;
  open_call d(flights, 4);
  flights.async_call(1, resume_inline, d.inside(), never, std::ref(last));
  EXPECT_FALSE(last.came());
  std::move(*a.lead).set_value(1);
  std::move(*d.lead).set_value(1);
  expect_idle(flights);
}

// A call that is begun inside another is waited for by that one from its first moment.
TEST(AsyncCircle, ThroughACallThatIsBegunInsideIsRefused) {
  group flights;
  open_call a(flights, 1);
  open_call b(flights, 2, a.inside());
  open_call c(flights, 3, b.inside());
  seen refused;
  flights.async_call(1, resume_inline, c.inside(), never, std::ref(refused));
  EXPECT_EQ(refused.code(), circle);
  for (open_call* o : {&c, &b, &a}) std::move(*o->lead).set_value(1);
}

// One call waits for two others at once: the circle goes through either.
TEST(AsyncCircle, OfACallWithTwoWaitsIsRefusedThroughBoth) {
  group flights;
  open_call a(flights, 1);
  open_call b(flights, 2);
  open_call c(flights, 3);
  seen one;
  seen two;
  seen via_b;
  seen via_c;
  flights.async_call(2, resume_inline, a.inside(), never, std::ref(one));
  flights.async_call(3, resume_inline, a.inside(), never, std::ref(two));
  flights.async_call(1, resume_inline, b.inside(), never, std::ref(via_b));
  flights.async_call(1, resume_inline, c.inside(), never, std::ref(via_c));
  EXPECT_EQ(via_b.code(), circle);
  EXPECT_EQ(via_c.code(), circle);
  std::move(*b.lead).set_value(2);
  EXPECT_EQ(one.value(), 2);
  // One wait is over; the other still counts.
  seen again;
  flights.async_call(1, resume_inline, c.inside(), never, std::ref(again));
  EXPECT_EQ(again.code(), circle);
  std::move(*c.lead).set_value(3);
  std::move(*a.lead).set_value(1);
}

// --- With threads --------------------------------------------------------------------------------------

// A thread that leads a call asks for a key whose asynchronous call waits for it.
TEST(AsyncCircle, ThatAThreadWouldCloseIsRefused) {
  group flights;
  open_call b(flights, 2);
  seen b_waits;
  std::exception_ptr refused;
  std::ignore = flights.do_call(1, [&] {
    flights.async_call(1, resume_inline, b.inside(), never, std::ref(b_waits));
    EXPECT_FALSE(b_waits.came());
    refused = thrown_by([&] { std::ignore = flights.do_call(2, [] { return 0; }); });
    return 1;
  });
  EXPECT_EQ(call_error_of(refused), circle);
  EXPECT_EQ(b_waits.value(), 1);
  std::move(*b.lead).set_value(2);
}

// The asynchronous call asks for a key whose leader, a thread, waits for it.
TEST(AsyncCircle, ThroughAThreadThatWaitsIsRefused) {
  group flights;
  open_call b(flights, 2);
  threads other;
  other.start([&] {
    EXPECT_EQ(*flights.do_call(1, [&] { return *flights.do_call(2, [] { return 0; }) + 1; }), 6);
  });
  await_followers(flights, 2);
  seen b_waits;
  flights.async_call(1, resume_inline, b.inside(), never, std::ref(b_waits));
  EXPECT_EQ(b_waits.code(), circle);
  std::move(*b.lead).set_value(5);
  other.join();
}

// The loader of a thread's call hands its context to an asynchronous caller.
TEST(AsyncCircle, OfAThreadsLoaderThatPassesItsContextOnIsRefused) {
  group flights;
  seen self;
  seen through;
  std::optional<leader<int>> b;
  std::ignore = flights.do_call(1, [&](const call_context& c) {
    flights.async_call(1, resume_inline, {.inside = &c}, never, std::ref(self));
    flights.async_call(2, resume_inline, {.inside = &c}, keep(b), [](const auto&) {});
    flights.async_call(1, resume_inline, {.inside = &b->context()}, never, std::ref(through));
    return 1;
  });
  EXPECT_EQ(self.code(), circle);
  EXPECT_EQ(through.code(), circle);
  std::move(*b).set_value(2);
}

// A loader of a coroutine that blocks its thread in a call of its own key, before it is suspended.
TEST(AsyncCircle, OfAStartThatBlocksForItsOwnKeyIsRefused) {
  group flights;
  std::exception_ptr refused;
  seen first;
  flights.async_call(
      1, resume_inline, {},
      [&](leader<int> mine) {
        refused = thrown_by([&] { std::ignore = flights.do_call(1, [] { return 0; }); });
        std::move(mine).set_value(1);
      },
      std::ref(first));
  EXPECT_EQ(call_error_of(refused), circle);
  EXPECT_EQ(first.value(), 1);
}

// On an executor.
TEST(AsyncCircle, OfAThreadThatBlocksForTheCallThatItEndsIsRefused) {
  group flights;
  auto lead = std::get<leader<int>>(flights.lead_or_follow(1));
  support::threads follower;
  follower.start([&] { EXPECT_EQ(*flights.do_call(1, [] { return 0; }), 42); });
  await_followers(flights, 1);
  std::error_code inside;
  std::thread([&] {
    std::move(lead).set_from([&] {
      inside = refusal(flights, 1);
      return 42;
    });
  }).join();
  EXPECT_EQ(inside, circle);
  follower.join();
  expect_idle(flights);
}

// The thread that has given the call away returns while the other leads it already.
TEST(AsyncCircle, OfAThreadThatEndsACallWhileItIsBegunIsRefused) {
  group flights;
  seen got;
  support::latch leads(1);
  support::latch begun(1);
  std::error_code inside;
  support::threads other;
  flights.async_call(
      1, resume_inline, {},
      [&](leader<int> lead) {
        other.start([&, mine = std::move(lead)]() mutable {
          std::move(mine).set_from([&] {
            leads.count_down();
            begun.wait();
            inside = refusal(flights, 1);
            return 42;
          });
        });
        leads.wait();
      },
      std::ref(got));
  begun.count_down();
  other.join();
  EXPECT_EQ(inside, circle);
  EXPECT_EQ(got.value(), 42);
  expect_idle(flights);
}

TEST(AsyncCircle, ThroughTwoThreadsThatEndTheirCallsIsRefusedInOne) {
  group flights;
  std::vector<std::optional<leader<int>>> leads(2);
  for (int k : {0, 1}) {
    leads[static_cast<std::size_t>(k)].emplace(std::get<leader<int>>(flights.lead_or_follow(k)));
  }
  std::atomic<int> refused = 0;
  {
    support::latch both(2);
    const support::threads ends(2, [&](std::size_t k) {
      std::move(*leads[k]).set_from([&] {
        both.arrive_and_wait();
        const auto other = static_cast<int>(1 - k);
        if (refusal(flights, other) == circle) ++refused;
        return 42;
      });
    });
  }
  EXPECT_EQ(refused, 1);
  expect_idle(flights);
}

TEST(NoAsyncCircle, IsSeenWhereAThreadHasEndedItsCall) {
  group flights;
  std::move(std::get<leader<int>>(flights.lead_or_follow(1))).set_from([] { return 42; });
  EXPECT_EQ(*flights.do_call(1, [] { return 43; }), 43);
}

// The starting thread fails the call, and then somebody ends it who was given the leader.
TEST(Leader, ThatEndsACallWhichHasFailedDoesNothing) {
  group flights;
  std::optional<leader<int>> lead;
  seen failed;
  flights.async_call(
      1, resume_inline, {},
      [&](leader<int> mine) {
        lead.emplace(std::move(mine));
        throw 42;
      },
      std::ref(failed));
  EXPECT_TRUE(failed.came());
  std::move(*lead).set_from([&] { return *flights.do_call(1, [] { return 43; }); });
  EXPECT_EQ(failed.times(), 1);
  expect_idle(flights);
}

// The caller that asks inside the inner call holds up the thread that leads both.
TEST(AsyncCircle, ThroughTheInnerOfTwoCallsOfAThreadIsRefusedToAskForTheOuter) {
  group flights;
  seen through;
  std::optional<leader<int>> b;
  std::ignore = flights.do_call(1, [&] {
    return *flights.do_call(2, [&](const call_context& c) {
      flights.async_call(3, resume_inline, {.inside = &c}, keep(b), [](const auto&) {});
      flights.async_call(1, resume_inline, {.inside = &b->context()}, never, std::ref(through));
      return 1;
    });
  });
  EXPECT_EQ(through.code(), circle);
  std::move(*b).set_value(2);
}

TEST(AsyncCircle, ThroughACallOnAnExecutorIsRefused) {
  group flights;
  seen refused;
  std::optional<leader<int>> b;
  const auto future = flights.do_async(1, inline_executor, [&](const call_context& c) {
    flights.async_call(2, resume_inline, {.inside = &c}, keep(b), [](const auto&) {});
    flights.async_call(1, resume_inline, {.inside = &b->context()}, never, std::ref(refused));
    return 1;
  });
  EXPECT_EQ(future.get(), 1);
  EXPECT_EQ(refused.code(), circle);
  std::move(*b).set_value(2);
}

// --- No false alarms -----------------------------------------------------------------------------------

TEST(NoAsyncCircle, IsSeenWhereTheWaitIsOver) {
  group flights;
  open_call a(flights, 1);
  open_call b(flights, 2);
  seen a_waits;
  flights.async_call(2, resume_inline, a.inside(), never, std::ref(a_waits));
  std::move(*b.lead).set_value(1);
  EXPECT_TRUE(a_waits.came());
  open_call again(flights, 2);
  seen b_waits;
  flights.async_call(1, resume_inline, again.inside(), never, std::ref(b_waits));
  EXPECT_FALSE(b_waits.came());
  std::move(*a.lead).set_value(7);
  EXPECT_EQ(b_waits.value(), 7);
  std::move(*again.lead).set_value(1);
}

// It is over when the call has ended, though its executor resumes the caller late.
TEST(NoAsyncCircle, IsSeenWhereTheCallHasEndedAndTheCallerIsNotYetResumed) {
  group flights;
  task_queue queue;
  open_call a(flights, 1);
  open_call b(flights, 2);
  seen a_waits;
  flights.async_call(2, std::ref(queue), a.inside(), never, std::ref(a_waits));
  std::move(*b.lead).set_value(1);
  open_call again(flights, 2);
  seen b_waits;
  flights.async_call(1, resume_inline, again.inside(), never, std::ref(b_waits));
  EXPECT_FALSE(b_waits.came());
  queue.run();
  std::move(*a.lead).set_value(7);
  std::move(*again.lead).set_value(1);
}

#if defined(__cpp_lib_jthread)
TEST(NoAsyncCircle, IsSeenWhereTheCallerHasLeft) {
  for (const bool by_executor : {false, true}) {
    group flights;
    task_queue queue;
    std::stop_source stop;
    open_call a(flights, 1);
    open_call b(flights, 2);
    seen a_waits;
    const async_options options{.stop = stop.get_token(), .inside = &a.lead->context()};
    if (by_executor) {
      flights.async_call(2, std::ref(queue), options, never, std::ref(a_waits));
    } else {
      flights.async_call(2, resume_inline, options, never, std::ref(a_waits));
    }
    stop.request_stop();
    seen b_waits;
    flights.async_call(1, resume_inline, b.inside(), never, std::ref(b_waits));
    EXPECT_FALSE(b_waits.came());
    queue.run();
    std::move(*a.lead).set_value(7);
    EXPECT_EQ(b_waits.value(), 7);
    std::move(*b.lead).set_value(1);
  }
}

// A caller that leaves as the last waits for the call no more when the call's loader is told to stop.
TEST(NoAsyncCircle, IsSeenByTheStopCallbackOfTheCallThatWasLeft) {
  enum class left { by_a_stop_request, by_destruction };
  for (const left how : {left::by_a_stop_request, left::by_destruction}) {
    group flights;
    std::stop_source stop;
    open_call a(flights, 1);
    held_loader b;
    seen a_waits;
    seen b_waits;
    frame waits = ask_leading(flights, 2, resume_inline,
                              {.stop = stop.get_token(), .inside = &a.lead->context()}, a_waits, b);
    ASSERT_NE(b.call, nullptr);
    const std::stop_callback ask_for_a(b.told, [&] {
      flights.async_call(1, resume_inline, {.inside = b.call}, never, std::ref(b_waits));
    });
    if (how == left::by_a_stop_request) {
      stop.request_stop();
      EXPECT_EQ(a_waits.code(), std::errc::operation_canceled);
    } else {
      waits.destroy();
    }
    EXPECT_FALSE(b_waits.came());
    std::move(*a.lead).set_value(7);
    EXPECT_EQ(b_waits.value(), 7);
    b.end.open(1);
  }
}

// A caller that was refused, for any reason, waits for nothing.
TEST(NoAsyncCircle, IsSeenWhereTheCallerWasRefused) {
  group flights({.max_waiters = 1});
  std::stop_source stop;
  stop.request_stop();
  open_call a(flights, 1);
  open_call b(flights, 2);
  task_queue queue;
  seen stopped;
  seen follower;
  seen full;
  flights.async_call(2, std::ref(queue), {.stop = stop.get_token(), .inside = &a.lead->context()},
                     never, std::ref(stopped));
  flights.async_call(2, resume_inline, {}, never, std::ref(follower));
  flights.async_call(2, std::ref(queue), a.inside(), never, std::ref(full));
  seen b_waits;
  flights.async_call(1, resume_inline, b.inside(), never, std::ref(b_waits));
  EXPECT_FALSE(b_waits.came());
  std::move(*a.lead).set_value(1);
  std::move(*b.lead).set_value(1);
  queue.run();
  EXPECT_EQ(stopped.code(), std::errc::operation_canceled);
  EXPECT_EQ(full.code(), std::errc::resource_unavailable_try_again);
}
#endif

TEST(NoAsyncCircle, IsSeenWhereTheFrameIsGone) {
  group flights;
  open_call a(flights, 1);
  open_call b(flights, 2);
  seen a_waits;
  frame waits = [](group& g, const call_context& c, seen& said) -> frame {
    said.set(co_await g.co_call(2, resume_inline, async_options{.inside = &c}, [] { return 0; }));
  }(flights, a.lead->context(), a_waits);
  waits.destroy();
  seen b_waits;
  flights.async_call(1, resume_inline, b.inside(), never, std::ref(b_waits));
  EXPECT_FALSE(b_waits.came());
  std::move(*a.lead).set_value(7);
  EXPECT_EQ(b_waits.value(), 7);
  std::move(*b.lead).set_value(1);
}

// The callers that a loader has made wait on when its call has ended. Nothing waits for them then: not
// the thread that ran the loader, which leads another call now,
TEST(NoAsyncCircle, IsSeenWhereAThreadHasLeftACallBehindThatItMadeInsideItsLoader) {
  group flights;
  std::optional<leader<int>> b;
  std::ignore = flights.do_call(1, [&](const call_context& c) {
    flights.async_call(2, resume_inline, {.inside = &c}, keep(b), [](const auto&) {});
    return 1;
  });
  seen b_waits;
  std::ignore = flights.do_call(3, [&] {
    flights.async_call(3, resume_inline, {.inside = &b->context()}, never, std::ref(b_waits));
    return 3;
  });
  EXPECT_EQ(b_waits.value(), 3);
  std::move(*b).set_value(2);
}

// nor a caller that tries again, and finds a call of that thread,
TEST(NoAsyncCircle, IsSeenByACallerThatTriesAgainWhenTheCallInsideWhichItAskedHasEnded) {
  group flights;
  task_queue queue;
  std::optional<leader<int>> b;
  seen said;
  std::ignore = flights.do_call(1, [&](const call_context& c) {
    flights.async_call(2, resume_inline, {}, keep(b), [](const auto&) {});
    flights.async_call(2, std::ref(queue), {.attempts = 2, .inside = &c}, never, std::ref(said));
    return 1;
  });
  std::move(*b).set_exception(std::make_exception_ptr(42));
  std::ignore = flights.do_call(2, [&] {
    queue.run();
    return 3;
  });
  queue.run();
  EXPECT_EQ(said.value(), 3);
}

// nor a caller that has asked for that call and is not yet resumed.
TEST(NoAsyncCircle, IsSeenThroughACallerOfTheEndedCallThatIsNotYetResumed) {
  group flights;
  task_queue again;
  task_queue late;
  open_call x(flights, 1);
  open_call first(flights, 2);
  async_options twice = x.inside();
  twice.attempts = 2;
  seen x_waits;
  flights.async_call(2, std::ref(again), twice, never, std::ref(x_waits));
  std::move(*first.lead).set_exception(std::make_exception_ptr(42));
  open_call y(flights, 2);
  seen y_waits;
  flights.async_call(1, std::ref(late), y.inside(), never, std::ref(y_waits));
  std::move(*x.lead).set_value(1);
  again.run();
  EXPECT_FALSE(x_waits.came());
  late.run();
  EXPECT_EQ(y_waits.value(), 1);
  std::move(*y.lead).set_value(2);
  again.run();
  EXPECT_EQ(x_waits.value(), 2);
}

// The caller has left while it began the call, and its executor drops what would tell it so.
#if defined(__cpp_lib_jthread)
TEST(NoAsyncCircle, IsSeenWhereTheCallerHasLeftAndIsDropped) {
  group flights;
  std::stop_source stop;
  open_call a(flights, 1);
  std::optional<leader<int>> b;
  flights.async_call(
      2, [](const auto&) {}, {.stop = stop.get_token(), .inside = &a.lead->context()},
      [&](leader<int> mine) {
        b.emplace(std::move(mine));
        stop.request_stop();
      },
      [](const auto&) { ADD_FAILURE() << "was called back"; });
  seen b_waits;
  const frame waits =
      ask(flights, 1, resume_inline, async_options{.inside = &b->context()}, b_waits);
  EXPECT_FALSE(b_waits.came());
  std::move(*a.lead).set_value(7);
  EXPECT_EQ(b_waits.value(), 7);
  std::move(*b).set_value(1);
}
#endif

// Many calls that wait for one, and one that waits for many, are no circle.
TEST(NoAsyncCircle, IsSeenInADiamond) {
  group flights;
  open_call top(flights, 0);
  open_call left(flights, 1, top.inside());
  open_call right(flights, 2, top.inside());
  std::optional<leader<int>> bottom;
  seen from_left;
  seen from_right;
  flights.async_call(3, resume_inline, left.inside(), keep(bottom), std::ref(from_left));
  flights.async_call(3, resume_inline, right.inside(), never, std::ref(from_right));
  EXPECT_FALSE(from_right.came());
  std::move(*bottom).set_value(1);
  EXPECT_EQ(from_left.value(), 1);
  EXPECT_EQ(from_right.value(), 1);
  for (open_call* o : {&left, &right, &top}) std::move(*o->lead).set_value(1);
}

TEST(NoAsyncCircle, LeavesAnythingBehindAThousandTimesOver) {
  group flights;
  for (int i = 0; i < 1000; ++i) {
    open_call a(flights, 1);
    open_call b(flights, 2, a.inside());
    seen refused;
    flights.async_call(1, resume_inline, b.inside(), never, std::ref(refused));
    EXPECT_EQ(refused.code(), circle);
    std::move(*b.lead).set_value(1);
    std::move(*a.lead).set_value(1);
  }
  EXPECT_EQ(flights.stats().rejected, 1000U);
  expect_idle(flights);
}

// --- max_age and max_waiters ---------------------------------------------------------------------------

/// Lets the clock go on, so that every call is too old that has begun.
void grow_old() {
  const auto now = std::chrono::steady_clock::now();
  await([&] { return std::chrono::steady_clock::now() > now; }, "the clock");
}

// To begin a call anew inside itself would be a recursion without end.
TEST(AsyncCircle, OfACallThatIsTooOldIsRefusedAndNotBegunAnew) {
  group flights({.max_age = std::chrono::nanoseconds(1)});
  open_call a(flights, 1);
  grow_old();
  seen self;
  flights.async_call(1, resume_inline, a.inside(), never, std::ref(self));
  EXPECT_EQ(self.code(), circle);
  open_call b(flights, 2, a.inside());
  grow_old();
  seen through;
  flights.async_call(1, resume_inline, b.inside(), never, std::ref(through));
  EXPECT_EQ(through.code(), circle);
  EXPECT_EQ(flights.stats().superseded, 0U);
  std::move(*b.lead).set_value(1);
  std::move(*a.lead).set_value(1);
}

// Nobody has joined the call that is too old, so that the graph does not know it. The thread that leads
// it waits for the call inside which the caller asks.
TEST(AsyncCircle, OfACallThatIsTooOldAndThatNobodyHasJoinedIsRefusedAndNotBegunAnew) {
  group aging({.max_age = std::chrono::nanoseconds(1)});
  group flights;
  open_call b(flights, 2);
  threads other;
  other.start([&] {
    EXPECT_EQ(*aging.do_call(1, [&] { return *flights.do_call(2, [] { return 0; }) + 1; }), 6);
  });
  await_followers(flights, 2);
  grow_old();
  seen b_waits;
  aging.async_call(1, resume_inline, b.inside(), never, std::ref(b_waits));
  EXPECT_EQ(b_waits.code(), circle);
  EXPECT_EQ(aging.stats().superseded, 0U);
  std::move(*b.lead).set_value(5);
}

// A call that waits for nothing is begun anew.
TEST(NoAsyncCircle, IsSeenInACallThatIsTooOldAndThatNobodyHasJoined) {
  group flights({.max_age = std::chrono::nanoseconds(1)});
  open_call a(flights, 1);
  std::optional<leader<int>> again;
  seen said;
  std::ignore = flights.do_call(2, [&] {
    grow_old();
    threads(1, [&](std::size_t) {
      flights.async_call(2, resume_inline, a.inside(), keep(again), std::ref(said));
    });
    return 1;
  });
  ASSERT_TRUE(again.has_value());
  EXPECT_EQ(flights.stats().superseded, 1U);
  std::move(*again).set_value(2);
  EXPECT_EQ(said.value(), 2);
  std::move(*a.lead).set_value(1);
}

TEST(AsyncCircle, OfACallThatIsFullIsRefusedAndDoesNotRunAlone) {
  group flights({.max_waiters = 0, .when_full = singleflight::group_options::run_alone});
  open_call a(flights, 1);
  seen self;
  flights.async_call(1, resume_inline, a.inside(), never, std::ref(self));
  EXPECT_EQ(self.code(), circle);
  open_call b(flights, 2, a.inside());
  seen through;
  flights.async_call(1, resume_inline, b.inside(), never, std::ref(through));
  EXPECT_EQ(through.code(), circle);
  // Others run alone.
  std::optional<leader<int>> alone;
  flights.async_call(1, resume_inline, {}, keep(alone), [](const auto&) {});
  EXPECT_TRUE(alone.has_value());
  alone.reset();
  std::move(*b.lead).set_value(1);
  std::move(*a.lead).set_value(1);
}

}  // namespace
