// SPDX-License-Identifier: MIT
// What the observer of a group is told of callers by Asio: each event once, in every way that they end.
// Compiled once for each Asio.
#include <atomic>
#include <exception>
#include <future>
#include <memory>
#include <optional>
#include <singleflight/group.hpp>
#include <stdexcept>
#include <thread>
#include <utility>

#include "../recorder.hpp"
#include "either_asio.hpp"

namespace {

using singleflight::leader;
using support::span_of_this_thread;
using support::words;

const std::exception_ptr no = std::make_exception_ptr(std::runtime_error("no"));

class AsioObserver : public support::observed {
 protected:
  using observed::observed;

  template <class Load>
  void ask(int key, const singleflight::asio_options& options, const Load& load, answer& a) {
    async_call(g, io, key, options, load, into(a));
  }
  void join(int key, answer& a) { ask(key, {}, must_not_load, a); }
  void run() {
    io.restart();
    io.run();
  }

  asio::io_context io;
};

class AsioObserverOfAging : public AsioObserver {
 protected:
  AsioObserverOfAging() : AsioObserver({.max_age = 1ns}) {}
};
class AsioObserverOfFull : public AsioObserver {
 protected:
  AsioObserverOfFull() : AsioObserver({.max_waiters = 0}) {}
};
class AsioObserverOfAlone : public AsioObserver {
 protected:
  AsioObserverOfAlone()
      : AsioObserver({.max_waiters = 0, .when_full = singleflight::group_options::run_alone}) {}
};

TEST_F(AsioObserver, IsToldOfCallsThatTheyBegin) {
  answer one, two, three;
  ask(
      1, {}, [] { return 42; }, one);
  ask(
      2, {}, []() -> int { std::rethrow_exception(no); }, two);
  ask(
      3, {}, [](leader<int>) {}, three);  // given up
  run();
  EXPECT_EQ(one.value, 42);
  EXPECT_NE(two.error, nullptr);
  EXPECT_EQ(three.code(), std::errc::owner_dead);
  for (const char* event : {"began 1", "began 2", "began 3", "ended 1 value 0",
                            "ended 2 exception 0", "ended 3 exception 0"}) {
    EXPECT_EQ(told.to->count(event), 1) << event;
  }
  EXPECT_EQ(events().size(), 6U);
}

TEST_F(AsioObserver, IsToldOfCallsThatTheyJoinAndOfTheSpanOfTheirLeader) {
  answer one, two;
  span_of_this_thread = 7;
  std::optional<leader<int>> of_one(lead(g, 1)), of_two(lead(g, 2));
  span_of_this_thread = 8;
  join(1, one);
  join(2, two);
  std::move(*of_one).set_value(42);
  std::move(*of_two).set_exception(no);
  span_of_this_thread = 0;
  EXPECT_EQ(events(), (words{"began 1 of 7", "began 2 of 7", "joined 1 1 of 7", "joined 2 1 of 7",
                             "ended 1 value 1 of 7", "ended 2 exception 1 of 7"}));
  run();
  EXPECT_EQ(one.value, 42);
  EXPECT_NE(two.error, nullptr);
  EXPECT_EQ(told.to->count("wait_ended 1 value of 7"), 1);
  EXPECT_EQ(told.to->count("wait_ended 2 exception of 7"), 1);
  EXPECT_EQ(events().size(), 8U);
}

TEST_F(AsioObserver, IsToldOfOneThatTriesAgainButCountsItOnce) {
  answer a;
  auto other = lead(g, 1);
  ask(
      1, {.attempts = 2}, [] { return 43; }, a);
  std::move(other).set_exception(no);
  run();
  EXPECT_EQ(a.value, 43);
  EXPECT_EQ(events(), (words{"began 1", "joined 1 1", "ended 1 exception 1",
                             "wait_ended 1 exception", "began 1 again", "ended 1 value 0"}));
}

// While it asks for them, its thread leads their calls, for the hooks.
TEST_F(AsioObserver, LetsTheThreadThatAskedForManyKeysWaitForThem) {
  bool is_answered = false;
  async_call_many(
      g, io, {1, 2}, [](auto& missing) { missing.rest(42); },
      [&](const std::exception_ptr&, const auto&) { is_answered = true; });
  support::threads other;
  other.start([&] {
    support::await([&] { return g.stats().waiting == 3; }, "the other thread to wait");
    run();
  });
  EXPECT_EQ(*g.do_call(1, must_not_load), 42);
  other.join();
  EXPECT_TRUE(is_answered);
}

TEST_F(AsioObserver, IsToldWhoLeavesByItsSlot) {
  answer joins, begins;
  asio::cancellation_signal first, second;
  std::optional<leader<int>> mine;
  auto other = lead(g, 1);
  async_call(g, io, 1, must_not_load, asio::bind_cancellation_slot(first.slot(), into(joins)));
  async_call(
      g, io, 2, [&](leader<int> l) { mine.emplace(std::move(l)); },
      asio::bind_cancellation_slot(second.slot(), into(begins)));
  io.poll();
  first.emit(asio::cancellation_type::terminal);
  second.emit(asio::cancellation_type::terminal);
  run();
  EXPECT_EQ(joins.calls + begins.calls, 2);
  EXPECT_EQ(events(),
            (words{"began 1", "joined 1 1", "began 2", "left 1 stop", "left 2 stop its own"}));
  mine.reset();
  EXPECT_EQ(events().back(), "ended 2 exception 0");
}

// The hook stops a caller that has joined and does not wait yet.
TEST_F(AsioObserver, MayStopACallerThatItIsToldHasJoined) {
  answer a;
  asio::cancellation_signal signal;
  auto other = lead(g, 1);
  bool stops = true;
  told.to->then([&] {
    if (std::exchange(stops, false)) signal.emit(asio::cancellation_type::terminal);
  });
  async_call(g, io, 1, must_not_load, asio::bind_cancellation_slot(signal.slot(), into(a)));
  std::move(other).set_value(42);
  run();
  EXPECT_EQ(a.code(), std::errc::operation_canceled);
  EXPECT_EQ(events(), (words{"began 1", "joined 1 1", "left 1 stop", "ended 1 value 0"}));
}

TEST_F(AsioObserver, IsToldWhoLeavesAtItsDeadline) {
  answer joins;
  const auto other = lead(g, 1);
  ask(1, {.deadline = clock_type::now() + 200ms}, must_not_load, joins);
  run();
  EXPECT_EQ(joins.code(), std::errc::timed_out);
  EXPECT_EQ(events(), (words{"began 1", "joined 1 1", "left 1 deadline"}));
}

TEST_F(AsioObserver, IsToldWhoseContextIsDestroyed) {
  const auto one = lead(g, 1);
  std::optional<leader<int>> mine;
  answer a;
  {
    asio::io_context other;
    async_call(g, other, 1, must_not_load, into(a));
    async_call(
        g, other, 2, [&](leader<int> l) { mine.emplace(std::move(l)); }, into(a));
    other.poll();
  }
  EXPECT_EQ(a.calls, 0);
  EXPECT_EQ(told.to->count("left 1 gone"), 1);
  EXPECT_EQ(told.to->count("left 2 gone its own"), 1);
  mine.reset();
  EXPECT_EQ(events().size(), 6U);
}

// Its call has ended, and its completion is never run.
TEST_F(AsioObserver, IsToldWhoseContextIsDestroyedWithItsCompletion) {
  auto other = lead(g, 1);
  answer a;
  {
    asio::io_context context;
    async_call(g, context, 1, must_not_load, into(a));
    std::move(other).set_value(42);
  }
  EXPECT_EQ(a.calls, 0);
  EXPECT_EQ(events(), (words{"began 1", "joined 1 1", "ended 1 value 1", "left 1 gone"}));
}

TEST_F(AsioObserver, IsToldWhoComesTooLate) {
  answer late, stopped;
  asio::cancellation_signal signal;
  ask(1, {.deadline = clock_type::now()}, must_not_load, late);
#if defined(__cpp_lib_jthread)
  std::stop_source stop;
  stop.request_stop();
  ask(1, {.stop = stop.get_token()}, must_not_load, stopped);
  EXPECT_EQ(events(), (words{"rejected 1 deadline", "rejected 1 stop"}));
#else
  EXPECT_EQ(events(), words{"rejected 1 deadline"});
#endif
  run();
  EXPECT_EQ(late.code(), std::errc::timed_out);
}

TEST_F(AsioObserverOfFull, IsToldWhoIsRefused) {
  answer a;
  const auto other = lead(g, 1);
  join(1, a);
  run();
  EXPECT_EQ(a.calls, 1);
  EXPECT_EQ(events(), (words{"began 1", "rejected 1 full"}));
}

TEST_F(AsioObserverOfAlone, IsToldWhoRunsItsOwnLoader) {
  answer a;
  const auto other = lead(g, 1);
  ask(
      1, {}, [] { return 43; }, a);
  run();
  EXPECT_EQ(a.value, 43);
  EXPECT_EQ(events(), (words{"began 1", "began 1 alone", "ended 1 value 0"}));
}

TEST_F(AsioObserverOfAging, IsToldOfACallThatIsTooOld) {
  answer a;
  const auto other = lead(g, 1);
  ask(
      1, {}, [] { return 43; }, a);
  run();
  EXPECT_EQ(a.value, 43);
  EXPECT_EQ(events(), (words{"began 1", "superseded 1", "began 1", "ended 1 value 0"}));
}

TEST(AsioObserverOfWaiting, IsToldWhoLeavesForANewerCall) {
  const support::recorder told;
  support::watched g({.max_age = 200ms}, {}, {}, told);
  asio::io_context io;
  answer a;
  const auto other = lead(g, 1);
  async_call(
      g, io, 1, [] { return 43; }, into(a));
  io.run();
  EXPECT_EQ(a.value, 43);
  const words all = told.to->events();
  if (told.to->count("joined") == 1) {  // else this thread was late
    EXPECT_EQ(all, (words{"began 1", "joined 1 1", "superseded 1", "left 1 newer_call",
                          "began 1 again", "ended 1 value 0"}));
  }
  EXPECT_EQ(g.stats().superseded, 1U);
}

// Every hook calls the group.
TEST_F(AsioObserver, MayCallTheGroup) {
  static thread_local bool inside = false;
  told.to->then([&] {
    if (std::exchange(inside, true)) return;
    (void)g.do_call(3, [] { return 0; });
    inside = false;
  });
  answer one, two;
  auto other = lead(g, 1);
  join(1, one);
  ask(
      2, {}, [] { return 42; }, two);
  std::move(other).set_value(42);
  run();
  EXPECT_EQ(one.value, 42);
  EXPECT_EQ(two.value, 42);
  EXPECT_EQ(told.to->count("wait_ended 1 value"), 1);
}

// Each of them gets its result, leaves, or is destroyed, on two threads.
TEST_F(AsioObserver, IsToldOnceWhoseIoContextIsDestroyedWhileHandlersRun) {
  running_context handlers(1);
  for (int i = 0; i < 100; ++i) {
    auto context = std::make_unique<asio::io_context>();
    std::optional<leader<int>> other(lead(g, 1));
#if defined(__cpp_lib_jthread)
    std::stop_source stop;
#endif
    for (int n = 0; n < 50; ++n) {
      singleflight::asio_options options{.attempts = 2};
#if defined(__cpp_lib_jthread)
      options.stop = stop.get_token();
#endif
      if (n % 10 == 1) options.deadline = clock_type::now() + 30us;
      async_call(
          g, *context, 1, options, [] { return 43; },
          asio::bind_executor(handlers.io, [](const std::exception_ptr&, const auto&) {}));
    }
    support::threads ender;
    std::atomic<bool> go = false;
    ender.start([&] {
      go = true;
      if (i % 2 == 0) {
        std::move(*other).set_value(42);
      } else {
        std::move(*other).set_exception(no);
      }
#if defined(__cpp_lib_jthread)
      stop.request_stop();
#endif
    });
    while (!go) {
    }
    context.reset();
    ender.join();
    std::promise<void> handled;
    asio::post(handlers.io, [&] { handled.set_value(); });
    handled.get_future().get();
    EXPECT_EQ(g.stats().waiting, 0U);
  }
}

TEST_F(AsioObserver, IsToldTheSumsOfStatsByManyThreads) {
  std::atomic<int> left = 0;
  {
    running_context handlers(2);
    support::threads(4, [&](std::size_t t) {
      for (int i = 0; i < 200; ++i) {
        ++left;
        const auto load = [i] {
          if (i % 7 == 0) std::rethrow_exception(no);
          return i;
        };
        const auto done = [&left](const std::exception_ptr&, const auto&) { --left; };
        singleflight::asio_options options{.attempts = t % 2 + 1};
        if (i % 3 == 0) options.deadline = clock_type::now() + 20us;
        async_call(g, handlers.io, i % 2, options, load, done);
      }
    });
    support::await([&] { return left == 0; }, "the handlers");
  }
  support::expect_idle(g);
}

}  // namespace
