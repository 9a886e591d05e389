// SPDX-License-Identifier: MIT
// Asynchronous callers that leave: told to stop before, while and after they enter, or destroyed.
#include <gtest/gtest.h>

#include <atomic>
#include <cstddef>
#include <exception>
#include <functional>
#include <future>
#include <memory>
#include <optional>
#include <singleflight/coroutine.hpp>
#include <singleflight/group.hpp>
#include <stdexcept>
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

#if defined(__cpp_lib_jthread)
#include <stop_token>

namespace {

using namespace support;
using singleflight::async_options;
using singleflight::leader;
using singleflight::outcome;
using singleflight::resume_inline;

// --- Stopped ---------------------------------------------------------------------------------------

TEST(StoppedCallback, IsCalledInlineByWhoRequestsTheStop) {
  group flights;
  std::stop_source stop;
  std::optional<leader<int>> lead;
  answers got;
  flights.async_call(1, resume_inline, {.stop = stop.get_token()}, keep(lead), got.add());
  EXPECT_EQ(got.size(), 0U);
  stop.request_stop();
  ASSERT_EQ(got.size(), 1U);
  EXPECT_EQ(got.code(0), std::errc::operation_canceled);
  EXPECT_TRUE(lead->stop_token().stop_requested());
  EXPECT_EQ(flights.stats().cancelled, 1U);
  EXPECT_EQ(flights.stats().waiting, 0U);
  std::move(*lead).set_value(2);
  EXPECT_EQ(got.size(), 1U);
  expect_idle(flights);
}

TEST(StoppedFollower, IsCalledInlineByWhoRequestsTheStop) {
  group flights;
  std::stop_source stop;
  std::optional<leader<int>> lead;
  answers got;
  answers stopped;
  flights.async_call(1, resume_inline, {}, keep(lead), got.add());
  flights.async_call(1, resume_inline, {.stop = stop.get_token()}, never, stopped.add());
  stop.request_stop();
  ASSERT_EQ(stopped.size(), 1U);
  EXPECT_EQ(stopped.code(0), std::errc::operation_canceled);
  EXPECT_FALSE(lead->stop_token().stop_requested());
  std::move(*lead).set_value(2);
  EXPECT_EQ(got.value(0), 2);
  EXPECT_EQ(stopped.size(), 1U);
  expect_idle(flights);
}

// A frame that was stopped and waits for its turn to be resumed has left already.
TEST(StoppedFollower, ThatIsDestroyedBeforeItIsResumedHasLeftOnce) {
  group flights;
  std::stop_source stop;
  std::optional<leader<int>> first;
  std::optional<leader<int>> second;
  answers got;
  flights.async_call(2, resume_inline, {}, keep(second), got.add());
  seen dead;
  frame waits = ask(flights, 2, resume_inline, {.stop = stop.get_token()}, dead);
  flights.async_call(1, resume_inline, {}, keep(first), [&](const outcome<int>&) {
    stop.request_stop();  // inside the loop that resumes waiters, which resumes that one later
    EXPECT_FALSE(dead.came());
    waits.destroy();
  });
  std::move(*first).set_value(1);
  EXPECT_FALSE(dead.came());
  EXPECT_EQ(flights.stats().waiting, 1U);
  EXPECT_FALSE(second->stop_token().stop_requested());
  std::move(*second).set_value(3);
  EXPECT_EQ(got.value(0), 3);
  expect_idle(flights);
}

// Each of two threads resumes the caller that it has stopped, and not the other's: it would wait there
// for the end of the other's stop callback, which may do the same.
TEST(StoppedFollowers, AreResumedEachByTheThreadThatStopsIt) {
  group flights;
  std::optional<leader<int>> first;
  std::optional<leader<int>> lead;
  std::vector<std::stop_source> stops(2);
  std::vector<std::thread::id> resumed(2);
  answers got;
  flights.async_call(2, resume_inline, {}, keep(lead), got.add());
  for (std::size_t i = 0; i < 2; ++i) {
    flights.async_call(2, resume_inline, {.stop = stops[i].get_token()}, never,
                       [&resumed, i](const outcome<int>& o) {
                         EXPECT_EQ(call_error_of(o.error()), std::errc::operation_canceled);
                         resumed[i] = std::this_thread::get_id();
                       });
  }
  // libstdc++ forgets about a stop callback that has run in a process of one thread: the thread comes
  // first (`__is_single_threaded` in <stop_token>).
  std::promise<void> go;
  std::thread stopper([&] {
    go.get_future().wait();
    stops[1].request_stop();
  });
  const std::thread::id other = stopper.get_id();
  flights.async_call(1, resume_inline, {}, keep(first), [&](const outcome<int>&) {
    stops[0].request_stop();  // resumed when this has returned
    go.set_value();
    stopper.join();
    EXPECT_EQ(resumed[0], std::thread::id());
    EXPECT_EQ(resumed[1], other);
  });
  std::move(*first).set_value(1);
  EXPECT_EQ(resumed[0], std::this_thread::get_id());
  EXPECT_EQ(resumed[1], other);
  std::move(*lead).set_value(2);
  EXPECT_EQ(got.value(0), 2);
}

// The same, where the thread that was first has more to resume: what waits for its turn there stays there.
TEST(StoppedFollowers, OfOtherCallsAreResumedByTheThreadThatStopsThem) {
  group flights;
  std::vector<std::optional<leader<int>>> leads(3);
  answers got;
  for (int k : {0, 1, 2}) {
    const auto i = static_cast<std::size_t>(k);
    if (k > 0) flights.async_call(k, resume_inline, {}, keep(leads[i]), got.add());
  }
  std::vector<std::stop_source> stops(4);
  std::vector<std::thread::id> resumed(4);
  for (std::size_t i = 0; i < 4; ++i) {
    flights.async_call(
        i < 3 ? 1 : 2, resume_inline, {.stop = stops[i].get_token()}, never,
        [&resumed, i](const outcome<int>&) { resumed[i] = std::this_thread::get_id(); });
  }
  std::promise<void> go;
  std::thread stopper([&] {
    go.get_future().wait();
    stops[1].request_stop();
    stops[2].request_stop();
  });
  const std::thread::id other = stopper.get_id();
  flights.async_call(0, resume_inline, {}, keep(leads[0]), [&](const outcome<int>&) {
    stops[0].request_stop();  // of the call that the other thread stops callers of, too
    stops[3].request_stop();  // of the next
    go.set_value();
    stopper.join();
    EXPECT_EQ(resumed[0], std::thread::id());
    EXPECT_EQ(resumed[1], other);
    EXPECT_EQ(resumed[2], other);
    EXPECT_EQ(resumed[3], std::thread::id());
  });
  std::move(*leads[0]).set_value(1);
  EXPECT_EQ(resumed[0], std::this_thread::get_id());
  EXPECT_EQ(resumed[3], std::this_thread::get_id());
  for (int k : {1, 2}) std::move(*leads[static_cast<std::size_t>(k)]).set_value(k);
  EXPECT_EQ(got.size(), 2U);
  expect_idle(flights);
}

// A resumed caller ends other calls, and the first of those the next: each caller is resumed, in order.
TEST(ResumedWaiter, OfACallThatEndsWhileOthersWaitForTheirTurnIsResumedAfterThem) {
  group flights;
  std::vector<std::optional<leader<int>>> leads(5);
  std::vector<int> order;
  const auto end = [&](int k) { std::move(*leads[static_cast<std::size_t>(k)]).set_value(k); };
  for (int k = 0; k < 5; ++k) {
    flights.async_call(k, resume_inline, {}, keep(leads[static_cast<std::size_t>(k)]),
                       [&, k](const outcome<int>&) {
                         order.push_back(k);
                         if (k == 0) {
                           for (const int other : {1, 2, 3}) end(other);
                         }
                         if (k == 1) end(4);
                       });
  }
  end(0);
  EXPECT_EQ(order, (std::vector<int>{0, 1, 2, 3, 4}));
}

TEST(StoppedBeforeItEnters, LeavesNoTraceButInTheCounters) {
  group flights;
  std::stop_source stop;
  stop.request_stop();
  answers got;
  flights.async_call(1, resume_inline, {.stop = stop.get_token()}, never, got.add());
  task_queue queue;
  flights.async_call(1, std::ref(queue), {.stop = stop.get_token()}, never, got.add());
  ASSERT_EQ(got.size(), 1U);
  queue.run();
  ASSERT_EQ(got.size(), 2U);
  seen coroutine;
  const frame done = ask(flights, 1, resume_inline, {.stop = stop.get_token()}, coroutine);
  EXPECT_TRUE(done.done());
  EXPECT_EQ(got.code(0), std::errc::operation_canceled);
  EXPECT_EQ(got.code(1), std::errc::operation_canceled);
  EXPECT_EQ(coroutine.code(), std::errc::operation_canceled);
  EXPECT_EQ(flights.stats().rejected, 3U);
  EXPECT_EQ(flights.stats().cancelled, 3U);
  EXPECT_EQ(flights.stats().led, 0U);
  expect_idle(flights);
}

// The reason is the same whatever else would have refused it.
TEST(StoppedBeforeItEnters, IsToldSoThoughTheCallIsFull) {
  group flights({.max_waiters = 0});
  std::stop_source stop;
  stop.request_stop();
  std::optional<leader<int>> lead;
  answers got;
  flights.async_call(1, resume_inline, {}, keep(lead), got.add());
  answers stopped;
  flights.async_call(1, resume_inline, {.stop = stop.get_token()}, never, stopped.add());
  EXPECT_EQ(stopped.code(0), std::errc::operation_canceled);
  EXPECT_EQ(flights.stats().cancelled, 1U);
  std::move(*lead).set_value(1);
}

TEST(StoppedBeforeItEnters, SupersedesNoCall) {
  group flights({.max_age = std::chrono::nanoseconds(1)});
  std::stop_source stop;
  stop.request_stop();
  std::optional<leader<int>> lead;
  answers got;
  flights.async_call(1, resume_inline, {}, keep(lead), got.add());
  std::this_thread::yield();
  answers stopped;
  flights.async_call(1, resume_inline, {.stop = stop.get_token()}, never, stopped.add());
  EXPECT_EQ(stopped.code(0), std::errc::operation_canceled);
  EXPECT_EQ(flights.stats().superseded, 0U);
  EXPECT_EQ(flights.in_flight().size(), 1U);
  std::move(*lead).set_value(1);
}

/// Compares keys, and does `then` while it does.
struct hooked_equal {
  std::shared_ptr<std::function<void()>> then = std::make_shared<std::function<void()>>([] {});
  bool operator()(int a, int b) const {
    (*then)();
    return a == b;
  }
};
struct one_hash {
  std::size_t operator()(int) const { return 0; }
};

// The stop request comes while the caller looks for a call that it can join: it neither joins the one
// that it finds nor begins the one that is missing.
TEST(StoppedWhileItEnters, LeavesNoTraceButInTheCounters) {
  for (const int asked : {1, 2}) {
    const hooked_equal equal;
    singleflight::group<int, int, one_hash, hooked_equal> flights({}, {}, equal);
    std::stop_source stop;
    std::optional<leader<int>> lead;
    answers got;
    answers stopped;
    flights.async_call(1, resume_inline, {}, keep(lead), got.add());
    *equal.then = [&] { stop.request_stop(); };
    flights.async_call(asked, resume_inline, {.stop = stop.get_token()}, never, stopped.add());
    ASSERT_EQ(stopped.size(), 1U);
    EXPECT_EQ(stopped.code(0), std::errc::operation_canceled);
    EXPECT_EQ(flights.stats().rejected, 1U);
    EXPECT_EQ(flights.stats().cancelled, 1U);
    EXPECT_EQ(flights.stats().led, 1U);
    EXPECT_EQ(flights.stats().joined, 0U);
    EXPECT_EQ(flights.stats().waiting, 1U);
    std::move(*lead).set_value(2);
    EXPECT_EQ(got.value(0), 2);
    EXPECT_EQ(stopped.size(), 1U);
    EXPECT_EQ(flights.stats().in_flight, 0U);
    EXPECT_EQ(flights.stats().waiting, 0U);
  }
}

TEST(StoppedWhileItStarts, IsToldSoAndItsLoaderToo) {
  group flights;
  std::stop_source stop;
  std::optional<leader<int>> lead;
  answers got;
  flights.async_call(
      1, resume_inline, {.stop = stop.get_token()},
      [&](leader<int> mine) {
        const std::stop_token told = mine.stop_token();
        stop.request_stop();
        EXPECT_TRUE(told.stop_requested());
        EXPECT_EQ(got.size(), 0U);
        lead.emplace(std::move(mine));
      },
      got.add());
  ASSERT_EQ(got.size(), 1U);
  EXPECT_EQ(got.code(0), std::errc::operation_canceled);
  EXPECT_TRUE(flights.in_flight().empty());
  EXPECT_EQ(flights.stats().in_flight, 1U);
  std::move(*lead).set_value(1);
  EXPECT_EQ(got.size(), 1U);
  expect_idle(flights);
}

TEST(StoppedWhileItStarts, HasLeftThoughItsCallEndsThere) {
  group flights;
  std::stop_source stop;
  answers got;
  flights.async_call(
      1, resume_inline, {.stop = stop.get_token()},
      [&](leader<int> mine) {
        stop.request_stop();
        std::move(mine).set_value(1);
      },
      got.add());
  ASSERT_EQ(got.size(), 1U);
  EXPECT_EQ(got.code(0), std::errc::operation_canceled);
  EXPECT_EQ(flights.stats().cancelled, 1U);
  expect_idle(flights);
}

TEST(StoppedAfterTheEnd, GetsTheValue) {
  group flights;
  std::stop_source stop;
  std::optional<leader<int>> lead;
  task_queue queue;
  answers got;
  flights.async_call(1, std::ref(queue), {.stop = stop.get_token()}, keep(lead), got.add());
  std::move(*lead).set_value(5);
  stop.request_stop();
  EXPECT_EQ(got.size(), 0U);
  queue.run();
  EXPECT_EQ(got.value(0), 5);
  EXPECT_EQ(flights.stats().cancelled, 0U);
}

/// Its call has ended, and it is to be called back when the one that begins it returns.
TEST(StoppedAfterTheEnd, GetsTheValueThoughItIsStillToBeCalledBack) {
  group flights;
  std::stop_source stop;
  std::optional<leader<int>> outer;
  answers got;
  const auto begin_another = [&](const outcome<int>&) {
    flights.async_call(
        2, resume_inline, {.stop = stop.get_token()},
        [](leader<int> mine) { std::move(mine).set_value(5); }, got.add());
    EXPECT_EQ(got.size(), 0U);
    stop.request_stop();
  };
  flights.async_call(1, resume_inline, {}, keep(outer), begin_another);
  std::move(*outer).set_value(1);
  ASSERT_EQ(got.size(), 1U);
  EXPECT_EQ(got.value(0), 5);
  EXPECT_EQ(flights.stats().cancelled, 0U);
  expect_idle(flights);
}

// The loader's stop callback ends the call, inside the stop request of the last caller.
TEST(StoppedLast, MayHaveTheLoaderEndTheCallInItsStopCallback) {
  for (const bool with_executor : {false, true}) {
    group flights;
    std::stop_source stop;
    task_queue queue;
    answers got;
    std::optional<leader<int>> lead;
    const auto enter = [&](auto on) {
      flights.async_call(1, on, {.stop = stop.get_token()}, keep(lead), got.add());
    };
    if (with_executor) {
      enter(std::ref(queue));
    } else {
      enter(resume_inline);
    }
    const std::stop_callback end(lead->stop_token(), [&] { std::move(*lead).set_value(1); });
    stop.request_stop();
    queue.run();
    ASSERT_EQ(got.size(), 1U);
    EXPECT_EQ(got.code(0), std::errc::operation_canceled);
    expect_idle(flights);
  }
}

// The same, and it destroys the frame of the caller that is being stopped.
TEST(StoppedLast, MayBeDestroyedByTheLoadersStopCallback) {
  group flights;
  std::stop_source stop;
  task_queue queue;
  held_loader load;
  seen first;
  frame waits = ask_leading(flights, 1, std::ref(queue), {.stop = stop.get_token()}, first, load);
  const std::stop_callback end(load.told, [&] { waits.destroy(); });
  stop.request_stop();
  EXPECT_EQ(queue.size(), 0U);
  EXPECT_FALSE(first.came());
  load.end.open(1);
  expect_idle(flights);
}

TEST(Stop, OfOneOfManyIsNoticedByNobodyElse) {
  group flights;
  std::stop_source stop;
  task_queue queue;
  std::optional<leader<int>> lead;
  answers got;
  flights.async_call(1, resume_inline, {}, keep(lead), got.add());
  seen inlined;
  seen bound;
  const frame one = ask(flights, 1, resume_inline, {.stop = stop.get_token()}, inlined);
  const frame two = ask(flights, 1, std::ref(queue), {.stop = stop.get_token()}, bound);
  EXPECT_EQ(flights.stats().waiting, 3U);
  stop.request_stop();
  EXPECT_EQ(inlined.code(), std::errc::operation_canceled);
  EXPECT_FALSE(bound.came());
  queue.run();
  EXPECT_EQ(bound.code(), std::errc::operation_canceled);
  EXPECT_EQ(flights.stats().waiting, 1U);
  EXPECT_EQ(flights.stats().cancelled, 2U);
  std::move(*lead).set_value(4);
  EXPECT_EQ(got.value(0), 4);
  expect_idle(flights);
}

// All leave, then one comes: it is not given the dying call.
TEST(Stop, OfAllLetsNoNewcomerJoinTheDyingCall) {
  group flights;
  std::vector<std::stop_source> stops(3);
  std::optional<leader<int>> dying;
  std::vector<answers> left(3);
  flights.async_call(1, resume_inline, {.stop = stops[0].get_token()}, keep(dying), left[0].add());
  for (std::size_t i = 1; i < 3; ++i) {
    flights.async_call(1, resume_inline, {.stop = stops[i].get_token()}, never, left[i].add());
  }
  for (std::stop_source& s : stops) s.request_stop();
  EXPECT_TRUE(dying->stop_token().stop_requested());
  answers got;
  std::optional<leader<int>> fresh;
  flights.async_call(1, resume_inline, {}, keep(fresh), got.add());
  ASSERT_TRUE(fresh.has_value());
  std::move(*dying).set_value(1);
  std::move(*fresh).set_value(2);
  EXPECT_EQ(got.value(0), 2);
}

// All followers leave, then one joins the same call: that nobody waits does not mean that it is over.
TEST(Stop, OfAllFollowersLeavesACallThatCanBeJoined) {
  group flights;
  std::stop_source stop;
  std::optional<leader<int>> lead;
  answers got;
  answers left;
  flights.async_call(1, resume_inline, {}, keep(lead), got.add());
  flights.async_call(1, resume_inline, {.stop = stop.get_token()}, never, left.add());
  stop.request_stop();
  answers joined;
  flights.async_call(1, resume_inline, {}, never, joined.add());
  std::move(*lead).set_value(3);
  EXPECT_EQ(joined.value(0), 3);
}

// --- Destroyed -------------------------------------------------------------------------------------

TEST(DestroyedFrame, IsOneCallerLess) {
  group flights;
  held_loader load;
  seen first;
  seen second;
  frame began = ask_leading(flights, 1, resume_inline, {}, first, load);
  frame joined = ask(flights, 1, resume_inline, {}, second);
  EXPECT_EQ(flights.stats().waiting, 2U);
  began.destroy();
  EXPECT_EQ(flights.stats().waiting, 1U);
  EXPECT_FALSE(load.told.stop_requested());
  joined.destroy();
  EXPECT_TRUE(load.told.stop_requested());
  EXPECT_TRUE(flights.in_flight().empty());
  load.end.open(1);
  EXPECT_FALSE(first.came());
  EXPECT_FALSE(second.came());
  EXPECT_EQ(flights.stats().cancelled, 0U);
  expect_idle(flights);
}

TEST(DestroyedFrame, OfTheFirstCallerLeavesTheOthersTheValue) {
  group flights;
  held_loader load;
  seen first;
  answers got;
  frame began = ask_leading(flights, 1, resume_inline, {}, first, load);
  flights.async_call(1, resume_inline, {}, never, got.add());
  began.destroy();
  load.end.open(7);
  EXPECT_EQ(got.value(0), 7);
}

// The task is posted already: it must not resume what is gone.
TEST(DestroyedFrame, IsNotResumedByTheTaskThatWasPosted) {
  for (const bool stopped : {false, true}) {
    group flights;
    std::stop_source stop;
    task_queue queue;
    held_loader load;
    seen first;
    frame began = ask_leading(flights, 1, std::ref(queue), {.stop = stop.get_token()}, first, load);
    if (stopped) stop.request_stop();
    load.end.open(1);
    ASSERT_EQ(queue.size(), 1U);
    began.destroy();
    queue.run();
    EXPECT_FALSE(first.came());
    expect_idle(flights);
  }
}

// The thread that stops the last caller runs the loader's stop callbacks when the thread of the
// caller destroys its frame, which waits for that. ThreadSanitizer sees a frame that does not.
TEST(DestroyedFrame, IsGoneWhenTheStopRequestIsDoneWithIt) {
  group flights;
  std::stop_source stop;
  task_queue queue;
  held_loader load;
  seen first;
  frame waits = ask_leading(flights, 1, std::ref(queue), {.stop = stop.get_token()}, first, load);
  std::atomic<bool> stops = false;
  const std::stop_callback tell(load.told, [&] {
    stops.store(true, std::memory_order_relaxed);
    for (int i = 0; i < 100; ++i) std::this_thread::yield();
  });
  threads stopper;
  stopper.start([&] { stop.request_stop(); });
  while (!stops.load(std::memory_order_relaxed)) std::this_thread::yield();
  waits.destroy();
  stopper.join();
  queue.run();
  EXPECT_FALSE(first.came());
  load.end.open(1);
  expect_idle(flights);
}

// The call ends and resumes one that destroys, stops or ends the others.
TEST(ResumedWaiter, MayDestroyStopAndEndAnyOther) {
  group flights;
  std::stop_source stop;
  std::optional<leader<int>> lead;
  std::optional<leader<int>> other;
  answers got;
  answers of_other;
  seen destroyed;
  seen stopped;
  flights.async_call(2, resume_inline, {}, keep(other), of_other.add());
  frame victim;
  frame left;
  flights.async_call(1, resume_inline, {}, keep(lead), [&](const outcome<int>& o) {
    got.add()(o);
    stop.request_stop();
    victim.destroy();
    std::move(*other).set_value(20);
  });
  victim = ask(flights, 1, resume_inline, {}, destroyed);
  left = ask(flights, 1, resume_inline, {.stop = stop.get_token()}, stopped);
  // The one that began the call is put into the list when its loader has been started: it is first.
  std::move(*lead).set_value(10);
  EXPECT_EQ(got.value(0), 10);
  EXPECT_FALSE(destroyed.came());
  EXPECT_EQ(of_other.value(0), 20);
  EXPECT_TRUE(stopped.came());
  EXPECT_EQ(stopped.value(), std::nullopt);
  EXPECT_EQ(stopped.code(), std::errc::operation_canceled);
  expect_idle(flights);
}

// Nothing of a caller that has left stays on its executor.
TEST(StoppedFollower, LeavesNothingOnItsExecutor) {
  group flights;
  std::stop_source stop;
  task_queue queue;
  std::optional<leader<int>> lead;
  answers got;
  answers stopped;
  flights.async_call(1, resume_inline, {}, keep(lead), got.add());
  flights.async_call(1, std::ref(queue), {.stop = stop.get_token()}, never, stopped.add());
  stop.request_stop();
  queue.run();
  std::move(*lead).set_value(1);
  EXPECT_EQ(queue.size(), 0U);
}

// A stop source that resumes one caller, which destroys another that it is about to stop.
TEST(StopRequest, MayResumeACallerThatDestroysTheNext) {
  group flights;
  std::stop_source stop;
  std::optional<leader<int>> lead;
  answers got;
  flights.async_call(1, resume_inline, {}, keep(lead), got.add());
  std::vector<seen> said(2);
  std::vector<frame> waits(2);
  const auto destroy_other = [&](std::size_t me) { waits[1 - me].destroy(); };
  for (std::size_t i = 0; i < 2; ++i) {
    waits[i] = ask(flights, 1, resume_inline, {.stop = stop.get_token()}, said[i],
                   [&, i] { destroy_other(i); });
  }
  stop.request_stop();
  EXPECT_NE(said[0].came(), said[1].came());
  EXPECT_EQ(flights.stats().waiting, 1U);
  std::move(*lead).set_value(1);
}

}  // namespace

#endif
