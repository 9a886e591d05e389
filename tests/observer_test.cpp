// SPDX-License-Identifier: MIT
// What the observer of a group is told: each event once, in every way that a call, a wait or an entry
// ends, and in sum what `stats()` says.
#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstddef>
#include <functional>
#include <future>
#include <map>
#include <memory>
#include <mutex>
#include <singleflight/coroutine.hpp>
#include <singleflight/group.hpp>
#include <singleflight/observer.hpp>
#include <stdexcept>
#include <string>
#include <string_view>
#include <thread>
#include <utility>
#include <variant>
#include <vector>

#if defined(__unix__)
#include <pthread.h>
#include <sys/wait.h>
#include <unistd.h>
#endif

#include "executors.hpp"
#include "recorder.hpp"
#include "support.hpp"
#include "tasks.hpp"

namespace {

using namespace std::chrono_literals;

using support::recorder;
using support::span_of_this_thread;
using support::watched;
using support::words;

class Observer : public support::observed {
 protected:
  using observed::observed;
};
class ObserverOfAging : public Observer {
 protected:
  ObserverOfAging() : Observer({.max_age = 1ns}) {}
};
class ObserverOfFull : public Observer {
 protected:
  ObserverOfFull() : Observer({.max_waiters = 0}) {}
};
class ObserverOfAlone : public Observer {
 protected:
  ObserverOfAlone()
      : Observer({.max_waiters = 0, .when_full = singleflight::group_options::run_alone}) {}
};

// --- do_call ---------------------------------------------------------------------------------------

TEST_F(Observer, IsToldOfAnUnsharedCall) {
  (void)g.do_call(1, [] { return 42; });
  EXPECT_EQ(events(), (words{"began 1", "ended 1 value 0"}));
}

TEST_F(Observer, IsToldOfACallThatFails) {
  EXPECT_THROW((void)g.do_call(1, []() -> int { throw std::runtime_error("no"); }),
               std::runtime_error);
  EXPECT_EQ(events(), (words{"began 1", "ended 1 exception 0"}));
}

TEST_F(Observer, IsToldOfAFollowerAndOfTheSpanOfItsLeader) {
  support::threads follower;
  span_of_this_thread = 7;
  follower.start([&] {
    support::await([&] { return told.to->count("began 1 of 7") == 1; }, "the call");
    span_of_this_thread = 8;
    (void)g.do_call(1, [] { return 0; });
  });
  lead_until(1, [] { return 42; });
  follower.join();
  span_of_this_thread = 0;
  EXPECT_EQ(events()[0], "began 1 of 7");
  EXPECT_EQ(events()[1], "joined 1 1 of 7");
  EXPECT_EQ(told.to->count("ended 1 value 1 of 7"), 1);
  EXPECT_EQ(told.to->count("wait_ended 1 value of 7"), 1);
  EXPECT_EQ(events().size(), 4U);
}

TEST_F(Observer, IsToldOfAFollowerThatGetsTheException) {
  support::threads follower;
  follower.start([&] {
    support::await([&] { return g.stats().led == 1; }, "the call");
    EXPECT_ANY_THROW((void)g.do_call(1, [] { return 0; }));
  });
  EXPECT_ANY_THROW(lead_until(1, []() -> int { throw std::runtime_error("no"); }));
  follower.join();
  EXPECT_EQ(told.to->count("wait_ended 1 exception"), 1);
  EXPECT_EQ(told.to->count("ended 1 exception 1"), 1);
}

TEST_F(Observer, IsToldOfAFollowerThatTriesAgainOnceMoreButCountsItOnce) {
  support::threads follower;
  follower.start([&] {
    support::await([&] { return g.stats().led == 1; }, "the call");
    EXPECT_EQ(*g.do_call(1, {.attempts = 2}, [] { return 43; }), 43);
  });
  EXPECT_ANY_THROW(lead_until(1, []() -> int { throw std::runtime_error("no"); }));
  follower.join();
  EXPECT_EQ(told.to->count("wait_ended 1 exception"), 1);
  EXPECT_EQ(told.to->count("began 1 again"), 1);
  EXPECT_EQ(g.stats().led, 1U);
}

TEST_F(Observer, IsToldWhoLeavesAtItsDeadline) {
  lead_until(0, [&] {
    support::threads(1, [&](std::size_t) {
      EXPECT_ANY_THROW((void)g.do_call(1, {.timeout = 100ms}, [] { return 0; }));
    });
    return 42;
  });
  EXPECT_EQ(events(), (words{"began 1", "joined 1 1", "left 1 deadline", "ended 1 value 0"}));
}

TEST_F(Observer, IsToldWhoComesAfterItsDeadline) {
  EXPECT_ANY_THROW((void)g.do_call(1, {.timeout = -1s}, [] { return 0; }));
  EXPECT_EQ(events(), words{"rejected 1 deadline"});
}

#if defined(__cpp_lib_jthread)
TEST_F(Observer, IsToldWhoLeavesAtItsStopRequest) {
  std::stop_source stop;
  support::threads follower;
  follower.start([&] {
    support::await([&] { return told.to->count("began 1") == 1; }, "the call");
    EXPECT_ANY_THROW((void)g.do_call(1, {.stop = stop.get_token()}, [] { return 0; }));
  });
  lead_until(1, [&] {
    stop.request_stop();
    support::await_followers(g, 0);
    follower.join();
    return 42;
  });
  EXPECT_ANY_THROW((void)g.do_call(1, {.stop = stop.get_token()}, [] { return 0; }));
  EXPECT_EQ(events(),
            (words{"began 1", "joined 1 1", "left 1 stop", "ended 1 value 0", "rejected 1 stop"}));
}

// Its observer has it stopped between its two attempts.
TEST(ObserverOfRetries, IsToldWhoIsRefusedTheSecond) {
  const auto load = [] { return 43; };
  const std::function<void(watched&, const singleflight::call_options&)> ways[] = {
      [&](watched& g, const auto& options) { (void)g.do_call(1, options, load); },
      [&](watched& g, const auto& options) {
        (void)g.do_call_on(1, support::inline_executor, options, load);
      },
      [&](watched& g, const auto& options) { (void)g.lead_or_follow(1, options); }};
  for (const auto& enter : ways) {
    const recorder told;
    watched g({}, {}, {}, told);
    std::stop_source stop;
    told.to->then([&] {
      if (told.to->count("wait_ended") != 0) stop.request_stop();
    });
    support::threads follower;
    follower.start([&] {
      support::await([&] { return g.stats().led == 1; }, "the call");
      EXPECT_ANY_THROW(enter(g, {.stop = stop.get_token(), .attempts = 2}));
    });
    EXPECT_ANY_THROW((void)g.do_call(1, [&]() -> int {
      support::await_followers(g, 1);
      throw std::runtime_error("no");
    }));
    follower.join();
    EXPECT_EQ(told.to->count("rejected 1 stop again"), 1);
  }
}

TEST_F(Observer, IsToldThatALeaderWithdrawsBeforeItsLoaderIsStopped) {
  std::stop_source stop;
  (void)g.do_call(1, {.stop = stop.get_token()}, [&](const std::stop_token& token) {
    const std::stop_callback look(token, [&] { EXPECT_EQ(told.to->count("left"), 1); });
    stop.request_stop();
    EXPECT_TRUE(token.stop_requested());
    return 42;
  });
}

TEST_F(Observer, IsToldOfALeaderThatWithdraws) {
  std::stop_source stop;
  (void)g.do_call(1, {.stop = stop.get_token()}, [&] {
    stop.request_stop();
    return 42;
  });
  EXPECT_EQ(events(), (words{"began 1", "left 1 stop its own", "ended 1 value 0"}));
}
#endif

TEST_F(ObserverOfFull, IsToldWhoIsRefused) {
  (void)g.do_call(1, [&] {
    support::threads(1, [&](std::size_t) {
      EXPECT_ANY_THROW((void)g.do_call(1, [] { return 0; }));
      EXPECT_ANY_THROW((void)g.do_async(1, support::inline_executor, [] { return 0; }));
      EXPECT_ANY_THROW((void)g.lead_or_follow(1));
    });
    return 42;
  });
  EXPECT_EQ(events(), (words{"began 1", "rejected 1 full", "rejected 1 full", "rejected 1 full",
                             "ended 1 value 0"}));
}

TEST_F(ObserverOfAlone, IsToldWhoRunsItsOwnLoader) {
  (void)g.do_call(1, [&] {
    support::threads(1, [&](std::size_t) { (void)g.do_call(1, [] { return 0; }); });
    return 42;
  });
  EXPECT_EQ(events(), (words{"began 1", "began 1 alone", "ended 1 value 0", "ended 1 value 0"}));
}

TEST_F(Observer, IsToldOfACircle) {
  (void)g.do_call(1, [&] {
    EXPECT_ANY_THROW((void)g.do_call(1, [] { return 0; }));
    return 42;
  });
  EXPECT_EQ(events(), (words{"began 1", "rejected 1 circle", "ended 1 value 0"}));
}

TEST_F(ObserverOfAging, IsToldOfACallThatIsTooOldForANewCaller) {
  (void)g.do_call(1, [&] {
    support::threads(1, [&](std::size_t) { (void)g.do_call(1, [] { return 0; }); });
    return 42;
  });
  EXPECT_EQ(events(),
            (words{"began 1", "superseded 1", "began 1", "ended 1 value 0", "ended 1 value 0"}));
}

TEST(ObserverOfWaiting, IsToldWhoLeavesForANewerCall) {
  recorder told;
  watched g({.max_age = 200ms}, {}, {}, told);
  (void)g.do_call(1, [&] {
    support::threads(1, [&](std::size_t) { (void)g.do_call(1, [] { return 0; }); });
    return 42;
  });
  const words all = told.to->events();
  if (told.to->count("joined") == 1) {  // else that thread was late
    EXPECT_EQ(all, (words{"began 1", "joined 1 1", "superseded 1", "left 1 newer_call",
                          "began 1 again", "ended 1 value 0", "ended 1 value 0"}));
  }
  EXPECT_EQ(g.stats().superseded, 1U);
}

#if defined(SINGLEFLIGHT_TESTS_THREAD_EXIT_UNWINDS)
TEST_F(Observer, IsToldOfALeaderWhoseThreadExits) {
  support::threads(
      1, [&](std::size_t) { (void)g.do_call(1, []() -> int { pthread_exit(nullptr); }); });
  EXPECT_EQ(events(), (words{"began 1", "ended 1 exception 0"}));
}

#if defined(__cpp_lib_jthread)
TEST_F(Observer, IsToldOfAFollowerWhoseThreadIsCancelled) {
  const std::stop_source stop;  // its wait is one that can be cancelled
  lead_until(0, [&] {
    std::thread follower([&] { (void)g.do_call(1, {.stop = stop.get_token()}, [] { return 0; }); });
    support::await_followers(g, 1);
    support::await([&] { return told.sum->joins == 1; }, "the follower to be told of");
    pthread_cancel(follower.native_handle());
    follower.join();
    return 42;
  });
  EXPECT_EQ(events(), (words{"began 1", "joined 1 1", "left 1 gone", "ended 1 value 0"}));
}
#endif
#endif

// --- Executors -------------------------------------------------------------------------------------

TEST_F(Observer, IsToldOfCallsOnExecutors) {
  (void)g.do_call_on(1, support::inline_executor, {}, [] { return 42; });
  EXPECT_ANY_THROW((void)g.do_call_on(2, support::inline_executor, {}, []() -> int { throw 42; }));
  (void)g.do_async(3, support::inline_executor, [] { return 42; });
  EXPECT_ANY_THROW((void)g.do_call_on(
      4, [](auto) {}, {}, [] { return 42; }));  // dropped
  EXPECT_EQ(events(), (words{"began 1", "ended 1 value 0", "began 2", "ended 2 exception 0",
                             "began 3", "ended 3 value 0", "began 4", "ended 4 exception 0"}));
}

TEST_F(Observer, IsToldOfTheEndOfACallBeforeItsLoaderIsDestroyed) {
  std::shared_ptr<void> captured(nullptr, [to = told.to](void*) { to->add("destroyed"); });
  (void)g.do_async(1, support::inline_executor, [keep = std::move(captured)] { return 42; });
  EXPECT_EQ(events(), (words{"began 1", "ended 1 value 0", "destroyed"}));
}

TEST_F(Observer, IsToldWhoBeginsACallElsewhereAndLeavesIt) {
  support::task_queue queue;
  EXPECT_ANY_THROW((void)g.do_call_on(
      1, [&](auto t) { queue(std::move(t)); }, {.timeout = 100ms}, [] { return 42; }));
  EXPECT_EQ(events(), (words{"began 1", "left 1 deadline its own"}));
  queue.run();
  EXPECT_EQ(events().back(), "ended 1 exception 0");  // nobody wants it any more
}

TEST_F(Observer, IsToldWhoJoinsInAFuture) {
  (void)g.do_call(1, [&] {
    (void)g.do_async(1, support::inline_executor, [] { return 0; });
    return 42;
  });
  EXPECT_EQ(events(), (words{"began 1", "joined 1 1 in_future", "ended 1 value 1"}));
}

// --- Asynchronous callers --------------------------------------------------------------------------

TEST_F(Observer, IsToldOfALeaderThatIsGivenAway) {
  (void)std::get<1>(g.lead_or_follow(1));  // given up
  std::move(std::get<1>(g.lead_or_follow(1))).set_value(42);
  std::move(std::get<1>(g.lead_or_follow(1))).set_exception(std::make_exception_ptr(42));
  EXPECT_EQ(events(), (words{"began 1", "ended 1 exception 0", "began 1", "ended 1 value 0",
                             "began 1", "ended 1 exception 0"}));
}

TEST_F(Observer, IsToldOfCallbacks) {
  const auto never = [](singleflight::leader<int>&&) {};
  const auto done = [](singleflight::outcome<int>&&) {};
  auto lead = std::get<1>(g.lead_or_follow(1));
  g.async_call(1, singleflight::resume_inline, {}, never, done);
  g.async_call(1, support::inline_executor, {}, never, done);
  std::move(lead).set_value(42);
  EXPECT_EQ(events(), (words{"began 1", "joined 1 1", "joined 1 2", "wait_ended 1 value",
                             "wait_ended 1 value", "ended 1 value 2"}));
}

TEST_F(Observer, IsToldOfACallbackWhoseCallIsBegunAndEndedAtOnce) {
  g.async_call(
      1, singleflight::resume_inline, {},
      [](singleflight::leader<int>&& l) { std::move(l).set_value(42); },
      [](singleflight::outcome<int>&&) {});
  EXPECT_EQ(events(), (words{"began 1", "ended 1 value 0"}));
}

// The hook is told of a caller that has joined a call, which another thread ends meanwhile. That one
// is resuming the callers when this one finds the call ended and goes on by itself.
TEST_F(Observer, IsToldOfACallbackThatIsNotCalledAgainByTheThreadThatEndsTheCall) {
  std::optional<singleflight::leader<int>> lead;
  std::promise<void> resumes, answered;
  g.async_call(
      1, singleflight::resume_inline, {},
      [&](singleflight::leader<int>&& l) { lead.emplace(std::move(l)); },
      [&](singleflight::outcome<int>&&) {
        resumes.set_value();
        answered.get_future().wait();
      });
  std::thread ends;
  told.to->then([&] {
    if (told.to->count("joined") == 0 || ends.joinable()) return;
    ends = std::thread([&] { std::move(*lead).set_value(42); });
    resumes.get_future().wait();
  });
  int times = 0;
  g.async_call(
      1, singleflight::resume_inline, {}, [](singleflight::leader<int>&&) {},
      [&](singleflight::outcome<int>&& o) {
        EXPECT_EQ(o.value(), 42);
        ++times;
      });
  answered.set_value();
  ends.join();
  EXPECT_EQ(times, 1);
}

#if defined(__cpp_lib_jthread)
TEST_F(Observer, IsNotToldThatACallbackLeavesWhoseCallIsBegunAndEndedAtOnce) {
  const std::stop_source stop;
  g.async_call(
      1, singleflight::resume_inline, {.stop = stop.get_token()},
      [](singleflight::leader<int>&& l) { std::move(l).set_value(42); },
      [](singleflight::outcome<int>&&) {});
  EXPECT_EQ(events(), (words{"began 1", "ended 1 value 0"}));
}

TEST_F(Observer, IsToldOfCallbacksThatLeave) {
  const auto never = [](singleflight::leader<int>&&) {};
  const auto done = [](singleflight::outcome<int>&&) {};
  std::stop_source stop;
  auto lead = std::get<1>(g.lead_or_follow(1));
  g.async_call(1, singleflight::resume_inline, {.stop = stop.get_token()}, never, done);
  stop.request_stop();
  g.async_call(1, singleflight::resume_inline, {.stop = stop.get_token()}, never, done);
  std::move(lead).set_value(42);
  EXPECT_EQ(events(),
            (words{"began 1", "joined 1 1", "left 1 stop", "rejected 1 stop", "ended 1 value 0"}));
}

TEST_F(Observer, IsToldOfACallbackThatBeginsACallAndLeavesIt) {
  std::stop_source stop;
  std::optional<singleflight::leader<int>> lead;
  g.async_call(
      1, singleflight::resume_inline, {.stop = stop.get_token()},
      [&](singleflight::leader<int>&& l) { lead.emplace(std::move(l)); },
      [](singleflight::outcome<int>&&) {});
  stop.request_stop();
  lead.reset();
  EXPECT_EQ(events(), (words{"began 1", "left 1 stop its own", "ended 1 exception 0"}));
}

// What a callback tells is settled by the thread that stops it; the one that starts the loader waits
// for that. Before it did, ThreadSanitizer saw both use what is told.
TEST(ObserverOfARace, IsToldOfCallbacksThatOtherThreadsStopWhileTheirLoadersAreStarted) {
  for (int round = 0; round < 200; ++round) {
    const recorder told;
    watched g({}, {}, {}, told);
    std::stop_source stop;
    std::atomic<bool> starts = false;
    support::threads stopper(1, [&](std::size_t) {
      support::await([&] { return starts.load(std::memory_order_relaxed); },
                     "the loader to be started");
      stop.request_stop();
    });
    std::optional<singleflight::leader<int>> lead;
    g.async_call(
        1, singleflight::resume_inline, {.stop = stop.get_token()},
        [&](singleflight::leader<int>&& l) {
          lead.emplace(std::move(l));
          starts.store(true, std::memory_order_relaxed);  // orders nothing that the code does not
          if (round % 2 == 0) support::await([&] { return stop.stop_requested(); }, "the request");
        },
        [](singleflight::outcome<int>&&) {});
    stopper.join();
    lead.reset();
    EXPECT_EQ(told.to->events(), (words{"began 1", "left 1 stop its own", "ended 1 exception 0"}));
  }
}

TEST_F(Observer, IsToldOfACallbackThatIsStoppedWhileItsLoaderIsStarted) {
  std::stop_source stop;
  g.async_call(
      1, singleflight::resume_inline, {.stop = stop.get_token()},
      [&](singleflight::leader<int>&& l) {
        stop.request_stop();
        std::move(l).set_value(42);
      },
      [](singleflight::outcome<int>&&) {});
  EXPECT_EQ(events(), (words{"began 1", "ended 1 value 0", "left 1 stop its own"}));
}

// The hook joins the call that its caller has just left.
TEST_F(Observer, MayJoinTheCallThatACallbackLeavesWhileItsLoaderIsStarted) {
  const auto never = [](singleflight::leader<int>&&) {};
  const auto done = [](singleflight::outcome<int>&&) {};
  std::stop_source stop;
  std::optional<singleflight::leader<int>> lead;
  std::optional<int> got;
  bool joined = false;
  told.to->then([&] {
    if (told.to->count("left") == 0 || std::exchange(joined, true)) return;
    g.async_call(1, singleflight::resume_inline, {}, never,
                 [&](singleflight::outcome<int>&& o) { got = o.value(); });
  });
  g.async_call(
      1, singleflight::resume_inline, {.stop = stop.get_token()},
      [&](singleflight::leader<int>&& l) {
        lead.emplace(std::move(l));
        g.async_call(1, singleflight::resume_inline, {}, never, done);
        stop.request_stop();
      },
      done);
  std::move(*lead).set_value(42);
  EXPECT_EQ(got, 42);
  EXPECT_EQ(told.to->count("joined"), 2);
}

// The hook asks, inside the call that its caller leaves, for the call inside which that caller was: no
// circle is seen, since the caller waits no more.
TEST_F(Observer, MayAskInsideTheCallThatACallbackLeavesForTheCallInsideWhichItWas) {
  const auto never = [](singleflight::leader<int>&&) {};
  const auto done = [](singleflight::outcome<int>&&) {};
  std::stop_source stop;
  auto outer = std::get<1>(g.lead_or_follow(1));
  auto inner = std::get<1>(g.lead_or_follow(2));
  std::optional<bool> got;
  told.to->then([&] {
    if (told.to->count("left") == 0 || told.to->count("joined 1") != 0) return;
    g.async_call(1, singleflight::resume_inline, {.inside = &inner.context()}, never,
                 [&](singleflight::outcome<int>&& o) { got = o.has_value(); });
  });
  g.async_call(2, singleflight::resume_inline,
               {.stop = stop.get_token(), .inside = &outer.context()}, never, done);
  stop.request_stop();
  EXPECT_EQ(got, std::nullopt);
  std::move(outer).set_value(1);
  EXPECT_EQ(got, true);
  std::move(inner).set_value(2);
}

// The hook has the loader take its token, which triggers it where all callers have left: the loader's
// stop callback, which calls the group, runs under no lock.
TEST_F(Observer, MayHaveTheLoaderTakeItsTokenWhenTheLastCallerLeaves) {
  std::stop_source stop;
  std::optional<singleflight::leader<int>> lead;
  bool called = false;
  g.async_call(
      1, singleflight::resume_inline, {.stop = stop.get_token()},
      [&](singleflight::leader<int>&& l) { lead.emplace(std::move(l)); },
      [](singleflight::outcome<int>&&) {});
  const std::stop_callback look(lead->stop_token(), [&] { called = g.in_flight().empty(); });
  told.to->then([&] {
    if (told.to->count("left") != 1 || called) return;
    EXPECT_TRUE(lead->stop_token().stop_requested());
    EXPECT_TRUE(called);
  });
  stop.request_stop();
  EXPECT_TRUE(called);
  lead.reset();
}

// The stop callback destroys the caller that is being stopped: that it has left was told before.
TEST_F(Observer, IsToldWhyACoroutineLeavesThatTheStopCallbackOfItsLoaderDestroys) {
  std::stop_source stop;
  std::stop_token of_loader;
  support::gate<int> ends;
  const auto enter = [&](singleflight::async_options options) -> support::frame {
    (void)co_await g.co_call(1, singleflight::resume_inline, options,
                             [&](std::stop_token token) -> support::lazy_task<int> {
                               of_loader = std::move(token);
                               co_return co_await ends;
                             });
  };
  support::frame waits = enter({.stop = stop.get_token()});
  const std::stop_callback destroy(of_loader, [&] { waits.destroy(); });
  stop.request_stop();
  ends.open(42);
  EXPECT_EQ(events(), (words{"began 1", "left 1 stop its own", "ended 1 value 0"}));
}
#endif

TEST_F(Observer, IsToldOfACallbackWhoseExecutorDropsIt) {
  auto lead = std::get<1>(g.lead_or_follow(1));
  g.async_call(
      1, [](auto) {}, {}, [](singleflight::leader<int>&&) {}, [](singleflight::outcome<int>&&) {});
  std::move(lead).set_value(42);
  EXPECT_EQ(events(), (words{"began 1", "joined 1 1", "left 1 gone", "ended 1 value 1"}));
}

TEST_F(Observer, IsToldOfCoroutines) {
  auto lead = std::get<1>(g.lead_or_follow(1));
  const auto enter = [&]() -> support::frame {
    (void)co_await g.co_call(1, singleflight::resume_inline, [] { return 0; });
  };
  const auto stays = enter();
  { const auto destroyed = enter(); }
  std::move(lead).set_value(42);
  const auto begins = enter();
  EXPECT_EQ(events(),
            (words{"began 1", "joined 1 1", "joined 1 2", "left 1 gone", "wait_ended 1 value",
                   "ended 1 value 1", "began 1", "ended 1 value 0"}));
}

// A hook ends the call that its caller has joined and does not wait for yet.
TEST_F(Observer, MayEndTheCallThatACoroutineHasJoinedAndItTriesAgain) {
  std::optional<singleflight::leader<int>> lead(std::get<1>(g.lead_or_follow(1)));
  int got = 0;
  told.to->then([&] {
    if (told.to->count("joined") == 0 || !lead) return;
    auto ends = std::exchange(lead, std::nullopt);
    std::move(*ends).set_exception(std::make_exception_ptr(42));
  });
  const auto enter = [&]() -> support::frame {
    got = *co_await g.co_call(1, singleflight::resume_inline, {.attempts = 2}, [] { return 43; });
  };
  const auto tries = enter();
  EXPECT_EQ(got, 43);
  EXPECT_EQ(events(), (words{"began 1", "joined 1 1", "ended 1 exception 1",
                             "wait_ended 1 exception", "began 1 again", "ended 1 value 0"}));
}

TEST(ObserverOfCallsThatOutliveTheirGroup, LivesAsLongAsThey) {
  const recorder told;
  std::optional<singleflight::leader<int>> lead;
  {
    watched g({}, {}, {}, told);
    lead.emplace(std::get<1>(g.lead_or_follow(1)));
  }
  std::move(*lead).set_value(42);
  EXPECT_EQ(told.to->events(), (words{"began 1", "ended 1 value 0"}));
}

// --- Re-entry --------------------------------------------------------------------------------------

// Every hook calls every kind of member.
TEST_F(Observer, MayCallTheGroup) {
  static thread_local bool inside = false;
  told.to->then([&] {
    if (std::exchange(inside, true)) return;
    (void)g.stats();
    (void)g.in_flight();
    (void)g.forget(2);
    (void)g.do_call(3, [] { return 0; });
    (void)g.do_async(4, support::inline_executor, [] { return 0; });
    inside = false;
  });
  support::threads follower;
  follower.start([&] {
    support::await([&] { return g.stats().waiting == 0 && told.to->count("began 1") == 1; },
                   "a call");
    (void)g.do_call(1, [] { return 0; });
  });
  lead_until(1, [&] {
    support::threads(1, [&](std::size_t) {
      EXPECT_ANY_THROW((void)g.do_call(1, {.timeout = 100ms}, [] { return 0; }));
      EXPECT_ANY_THROW((void)g.do_call(1, {.timeout = -1s}, [] { return 0; }));
    });
    return 42;
  });
  follower.join();
  for (const char* event : {"began 1", "joined 1 1", "left 1 deadline", "rejected 1 deadline",
                            "wait_ended 1 value", "ended 1 value 1"}) {
    EXPECT_EQ(told.to->count(event), 1) << event;
  }
}

// Whichever way a caller enters, and whatever becomes of it: no hook is called under a lock.
class ObserverThatLooks : public Observer {
 protected:
  explicit ObserverThatLooks(const singleflight::group_options& options = {}) : Observer(options) {
    told.to->then([this] { (void)g.stats(); });
  }

  static constexpr int ways = 5;

  /// Has a caller of one of five kinds ask for key 1, on this thread.
  void ask(int way) {
    const auto load = [] { return 42; };
    const auto ends = [](singleflight::leader<int>&& l) { std::move(l).set_value(42); };
    const auto done = [](const singleflight::outcome<int>&) {};
    try {
      switch (way) {
        case 0:
          return (void)g.do_call(1, load);
        case 1:
          return (void)g.do_call_on(1, support::inline_executor, {}, load);
        case 2:
          return (void)g.do_async(1, support::inline_executor, load);
        case 3:
          return (void)g.lead_or_follow(1);
        default:
          return g.async_call(1, singleflight::resume_inline, {}, ends, done);
      }
    } catch (const singleflight::call_error&) {
    }
  }
};
class ObserverThatLooksAtFull : public ObserverThatLooks {
 protected:
  ObserverThatLooksAtFull() : ObserverThatLooks({.max_waiters = 0}) {}
};

TEST_F(ObserverThatLooks, IsToldOfCallsThatBegin) {
  for (int way = 0; way < ways; ++way) ask(way);
  EXPECT_EQ(told.to->count("began 1"), ways);
}

TEST_F(ObserverThatLooks, IsToldOfCallsThatAreJoined) {
  support::threads followers;
  lead_until(0, [&] {
    for (int way = 0; way < ways; ++way) followers.start([this, way] { ask(way); });
    support::await_followers(g, ways);
    return 42;
  });
  followers.join();
  EXPECT_EQ(told.to->count("joined 1"), ways);
}

TEST_F(ObserverThatLooksAtFull, IsToldWhoIsRefused) {
  lead_until(0, [&] {
    support::threads(ways, [&](std::size_t way) { ask(static_cast<int>(way)); });
    return 42;
  });
  EXPECT_EQ(told.to->count("rejected 1 full"), ways);
}

#if defined(__cpp_lib_jthread)
TEST_F(ObserverThatLooks, IsToldOfALeaderThatWithdraws) {
  std::stop_source stop;
  (void)g.do_call(1, {.stop = stop.get_token()}, [&] {
    stop.request_stop();
    return 42;
  });
  EXPECT_EQ(told.to->count("left"), 1);
}
#endif

// The caller that has begun a call leads it while it is told so: it must not wait for itself.
TEST_F(Observer, IsRefusedTheCallWhoseBeginningItIsTold) {
  std::error_code refused;
  bool asks = true;
  told.to->then([&] {
    if (!std::exchange(asks, false)) return;
    refused = support::call_error_of(
        support::thrown_by([&] { (void)g.do_call(1, {.timeout = 10s}, [] { return 0; }); }));
  });
  auto lead = std::get<1>(g.lead_or_follow(1));
  EXPECT_EQ(refused, std::errc::resource_deadlock_would_occur);
  std::move(lead).set_value(42);
}

// A caller that is refused has joined no call, so that it cannot leave one.
TEST_F(ObserverOfFull, IsNotToldThatACallerLeavesThatWasRefusedAndIsDropped) {
  auto lead = std::get<1>(g.lead_or_follow(1));
  g.async_call(
      1, [](const auto&) {}, {}, [](const auto&) {}, [](const auto&) {});
  std::move(lead).set_value(42);
  EXPECT_EQ(events(), (words{"began 1", "rejected 1 full", "ended 1 value 0"}));
}

// --- Many threads ----------------------------------------------------------------------------------

TEST_F(Observer, IsToldTheSumsOfStatsByManyThreads) {
  support::threads(8, [&](std::size_t t) {
    for (int i = 0; i < 500; ++i) {
      try {
        const int key = i % 3;
        const auto load = [i] {  // may run later, on another thread
          std::this_thread::yield();
          if (i % 7 == 0) throw std::runtime_error("no");
          return i;
        };
        switch ((t + static_cast<std::size_t>(i)) % 5) {
          case 0:
            (void)g.do_call(key, {.timeout = 10us, .attempts = 2}, load);
            break;
          case 1:
            (void)g.do_call_on(key, support::inline_executor, {.timeout = 20us}, load);
            break;
          case 2:
            g.async_call(
                key, singleflight::resume_inline, {.attempts = 2},
                [load](singleflight::leader<int>&& l) { std::move(l).set_from(load); },
                [](singleflight::outcome<int>&&) {});
            break;
          case 3:
            (void)g.do_async(key, support::inline_executor, load);
            break;
          default:
            (void)g.do_call(key, load);
        }
      } catch (const std::exception&) {
      }
    }
  });
  support::expect_idle(g);
}

// --- Types -----------------------------------------------------------------------------------------

struct only_waits {
  std::atomic<int>* waits;
  void wait_ended(const auto&) const noexcept { ++*waits; }
};

TEST(ObserverTypes, NeedHaveNoMoreThanOneMemberAndTakeNoKey) {
  std::atomic<int> waits{0};
  singleflight::group<int, int, std::hash<int>, std::equal_to<int>, only_waits> g({}, {}, {},
                                                                                  {&waits});
  support::threads follower;
  (void)g.do_call(1, [&] {
    follower.start([&] { (void)g.do_call(1, [] { return 0; }); });
    support::await_followers(g, 1);
    return 42;
  });
  follower.join();
  EXPECT_EQ(waits, 1);
  EXPECT_EQ(g.observer().waits, &waits);
}

struct views {
  std::vector<std::string>* seen;
  void call_ended(std::string_view key, const auto&) const noexcept { seen->emplace_back(key); }
  void rejected(std::string_view key, const auto&) const noexcept { seen->emplace_back(key); }
};

struct view_hash : std::hash<std::string_view> {
  using is_transparent = void;
};

// The buffer of an ended call's key is the next call's.
TEST(ObserverTypes, GetTheKeyOfACallThatHasEnded) {
  const std::string key = "a key of twenty-four or more characters";
  std::vector<std::string> seen;
  singleflight::group<std::string, int, view_hash, std::equal_to<>, views> g({}, {}, {}, {&seen});
  (void)g.do_call(std::string_view(key), [] { return 42; });
  (void)g.do_async(std::string_view(key), support::inline_executor, [] { return 42; });
  EXPECT_ANY_THROW((void)g.do_call(std::string_view(key), {.timeout = -1s}, [] { return 0; }));
  EXPECT_EQ(seen, (std::vector{key, key, key}));
}

struct move_only_key {
  std::unique_ptr<int> value;
  bool operator==(const move_only_key& o) const { return *value == *o.value; }
};
struct move_only_hash {
  std::size_t operator()(const move_only_key& k) const { return std::hash<int>()(*k.value); }
};
struct takes_no_key {
  std::atomic<int>* ended;
  void call_ended(const auto&) const noexcept { ++*ended; }
  void left(const auto&) const noexcept {}
};

TEST(ObserverTypes, WorkWithAKeyThatCannotBeCopied) {
  std::atomic<int> ended{0};
  singleflight::group<move_only_key, int, move_only_hash, std::equal_to<move_only_key>,
                      takes_no_key>
      g({}, {}, {}, {&ended});
  (void)g.do_call(move_only_key{std::make_unique<int>(1)}, [] { return 42; });
  EXPECT_EQ(ended, 1);
}

struct void_observer {
  std::atomic<int>* ended;
  void call_ended(const auto&) const noexcept { ++*ended; }
};

TEST(ObserverTypes, WorkWithoutAValue) {
  std::atomic<int> ended{0};
  singleflight::group<int, void, std::hash<int>, std::equal_to<int>, void_observer> g({}, {}, {},
                                                                                      {&ended});
  g.do_call(1, [] {});
  EXPECT_EQ(ended, 1);
}

#if !defined(SINGLEFLIGHT_TESTS_CALL_ONCE_HANGS)
struct throws_when_moved {
  throws_when_moved() = default;
  throws_when_moved(throws_when_moved&&) { throw std::runtime_error("no"); }
};

TEST(ObserverTypes, MayHaveAValueThatCannotBeMovedToThoseWhoWait) {
  const recorder told;
  singleflight::group<int, throws_when_moved, std::hash<int>, std::equal_to<int>, recorder> g(
      {}, {}, {}, told);
  const auto load = [] { return throws_when_moved(); };
  EXPECT_ANY_THROW((void)g.do_call_on(1, support::inline_executor, {}, load));
  EXPECT_EQ(told.to->count("ended 1 exception 0"), 1);
  auto lead = std::get<1>(g.lead_or_follow(1));
  g.async_call(
      1, singleflight::resume_inline, {}, [](const auto&) {}, [](const auto&) {});
  std::move(lead).set_from(load);
  EXPECT_EQ(told.to->count("ended 1 exception 1"), 1);
  EXPECT_EQ(told.to->count("wait_ended 1 exception"), 1);
}
#endif

// An observer that wants nothing takes no room.
static_assert(sizeof(singleflight::group<int, int>) ==
              sizeof(singleflight::group<int, int, std::hash<int>, std::equal_to<int>,
                                         singleflight::no_observer>));
static_assert(
    std::is_empty_v<singleflight::detail::observer_holder<singleflight::no_observer, false>>);

/// A key whose copy throws when it is told to.
struct fragile_key {
  explicit fragile_key(int i) : id(i) {}
  fragile_key(const fragile_key& other) : id(other.id) {
    if (copies >= 0 && copies-- == 0) throw std::runtime_error("cannot be copied");
  }
  fragile_key& operator=(const fragile_key&) = delete;
  ~fragile_key() = default;
  bool operator==(const fragile_key& other) const { return id == other.id; }
  int id;
  inline static thread_local int copies = -1;  // that can be made; any number if below 0
};
struct hash_of_fragile_key {
  std::size_t operator()(const fragile_key& key) const { return static_cast<std::size_t>(key.id); }
};
struct takes_the_key_of_the_end {
  void call_ended(const auto&, const auto&) const noexcept {}
};

// What it is to be told when a call ends needs a copy of the key, which is made before the call begins.
TEST(ObserverOfCalls, LeavesNothingOfACallWhoseKeyCannotBeCopiedForIt) {
  singleflight::group<fragile_key, int, hash_of_fragile_key, std::equal_to<>,
                      takes_the_key_of_the_end>
      g;
  const fragile_key key(1);
  const auto load = [] { return 42; };
  const std::function<void()> ways[] = {
      [&] { (void)g.do_call(key, load); },
      [&] { (void)g.do_call_on(key, support::inline_executor, {}, load); },
      [&] { (void)g.do_async(key, support::inline_executor, load); },
      [&] { (void)g.lead_or_follow(key); }};
  for (const auto& enter : ways) {
    bool fails = true;
    for (int copies = 0; fails; ++copies) {
      fragile_key::copies = copies;
      try {
        enter();
        fails = false;
        EXPECT_GE(copies, 2) << "that of the call and that for the observer";
      } catch (const std::runtime_error&) {
      }
      fragile_key::copies = -1;
      support::expect_idle(g);
      g.wait_drained();
    }
  }
}

struct counts_superseded {
  std::shared_ptr<int> times = std::make_shared<int>(0);
  void superseded(const auto&, const auto&) const noexcept { ++*times; }
};

// The old call has been unlisted, though no new one begins.
TEST(ObserverOfAgingCalls, IsToldOfACallThatIsTooOldForACallerWhoseKeyCannotBeCopied) {
  const counts_superseded told;
  singleflight::group<fragile_key, int, hash_of_fragile_key, std::equal_to<>, counts_superseded> g(
      {.max_age = 1ns}, {}, {}, told);
  const fragile_key key(1);
  (void)g.do_call(key, [&] {
    support::threads(1, [&](std::size_t) {
      fragile_key::copies = 0;
      EXPECT_THROW((void)g.do_call(key, [] { return 0; }), std::runtime_error);
    });
    EXPECT_EQ(*told.times, 1);
    EXPECT_EQ(g.stats().superseded, 1U);
    return 42;
  });
}

// Joined by two threads one after the other, with nothing that orders them but the lock: ThreadSanitizer
// sees where one of them looks at the call without it.
TEST_F(Observer, IsToldOfThoseWhoJoinInAFutureByTwoThreads) {
  std::atomic<bool> one_has_joined = false;
  const auto join = [&] { (void)g.do_async(1, support::inline_executor, [] { return 0; }); };
  (void)g.do_call(1, [&] {
    support::threads both;
    both.start([&] {
      join();
      one_has_joined.store(true, std::memory_order_relaxed);
    });
    both.start([&] {
      while (!one_has_joined.load(std::memory_order_relaxed)) std::this_thread::yield();
      join();
    });
    both.join();
    return 42;
  });
  EXPECT_EQ(events(),
            (words{"began 1", "joined 1 1 in_future", "joined 1 2 in_future", "ended 1 value 2"}));
}

/// Takes its time when a call begins.
struct slow_to_hear {
  using clock = std::chrono::steady_clock;
  std::shared_ptr<clock::time_point> heard = std::make_shared<clock::time_point>();

  void call_began(const auto&, const auto&) const noexcept {
    const auto since = clock::now();
    while (clock::now() - since < 1ms) {
    }
    *heard = clock::now();
  }
  void call_ended(const auto&, const auto& e) const noexcept {
    EXPECT_LE(e.took, clock::now() - *heard);
  }
};

TEST(ObserverTypes, AreNotCountedInTheTimeThatACallTakes) {
  singleflight::group<int, int, std::hash<int>, std::equal_to<int>, slow_to_hear> g;
  EXPECT_EQ(*g.do_call(1, [] { return 42; }), 42);
}

#if defined(__unix__)
#if defined(__cpp_lib_jthread)
struct does_when_joined {
  std::function<void()>* what;
  void joined(const auto&) const noexcept { (*what)(); }
};

// In the child the call that the caller has joined is lost before it begins to wait.
TEST(ObserverOfAForkedChild, MayStopACallerThatHasJoinedACallOfAnotherThread) {
  pid_t child = 0;
  std::stop_source stop;
  std::function<void()> fork_and_stop;
  singleflight::group<int, int, std::hash<int>, std::equal_to<int>, does_when_joined> g(
      {}, {}, {}, {&fork_and_stop});
  fork_and_stop = [&] {
    child = fork();
    if (child != 0) return;
    alarm(100);  // seconds
    stop.request_stop();
    _exit(g.stats().waiting == 0 && g.stats().cancelled == 1 ? 0 : 1);
  };
  std::atomic<bool> joined = false;
  support::threads other;
  other.start([&] {
    (void)g.do_call(1, [&] {
      support::await([&] { return joined.load(); }, "the fork");
      return 42;
    });
  });
  support::await([&] { return g.stats().led == 1; }, "the call");
  g.async_call(
      1, singleflight::resume_inline, {.stop = stop.get_token()}, [](const auto&) {},
      [](const auto&) {});
  joined = true;
  other.join();
  int status = -1;
  waitpid(child, &status, 0);
  EXPECT_EQ(status, 0);
}
#endif

TEST(ObserverOfAForkedChild, IsNotToldOfTheEndOfACallThatTheChildHasLost) {
  const recorder told;
  watched g({}, {}, {}, told);
  support::task_queue queue;
  const auto future = g.do_async(1, std::ref(queue), [] { return 42; });
  const pid_t child = fork();
  if (child == 0) {
    alarm(100);  // seconds
    queue.drop();
    _exit(told.to->events() == words{"began 1"} ? 0 : 1);
  }
  queue.run();
  EXPECT_EQ(future.get(), 42);
  int status = -1;
  waitpid(child, &status, 0);
  EXPECT_EQ(status, 0);
}

TEST(ObserverOfAForkedChild, IsToldOfTheCallOfTheForkingThreadAlone) {
  const recorder told;
  watched g({}, {}, {}, told);
  pid_t child = 0;
  // Flags, not the recorder: where the other thread held its lock, the child could not take it.
  std::atomic<bool> other_leads = false;
  std::atomic<bool> forked = false;
  support::threads other;
  other.start([&] {
    (void)g.do_call(2, [&] {
      other_leads = true;
      support::await([&] { return forked.load(); }, "the fork");
      return 0;
    });
  });
  support::await([&] { return other_leads.load(); }, "the other call");
  (void)g.do_call(1, [&] {
    child = fork();
    return 42;
  });
  if (child == 0) {
    alarm(100);  // seconds
    const words all = told.to->events();
    _exit(all == words{"began 2", "began 1", "ended 1 value 0"} ? 0 : 1);
  }
  forked = true;
  other.join();
  int status = -1;
  waitpid(child, &status, 0);
  EXPECT_EQ(status, 0);
  EXPECT_EQ(told.sum->began, told.sum->ended);
}
#endif

}  // namespace
