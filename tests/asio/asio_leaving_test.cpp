// SPDX-License-Identifier: MIT
// Callers by Asio leave: for a cancellation, a stop request, a deadline, a newer call, or because a
// context is destroyed. Compiled once for each Asio.
#include <array>
#include <atomic>
#include <functional>
#include <future>
#include <memory>
#include <optional>
#include <stdexcept>
#include <system_error>
#include <thread>
#include <utility>

#include "either_asio.hpp"
#include "own_executors.hpp"

#if defined(SINGLEFLIGHT_TESTS_BOOST_ASIO)
#include <boost/asio/any_completion_handler.hpp>
#endif

namespace {

using flight_group = singleflight::group<int, int>;

#if defined(SINGLEFLIGHT_TESTS_TSAN) || defined(SINGLEFLIGHT_TESTS_ASAN)
constexpr int rounds = 300;
#else
constexpr int rounds = 2000;
#endif

constexpr auto not_called = [](const std::exception_ptr&, const auto&) { FAIL() << "called"; };

TEST(AsioLeaving, EachTypeOfCancellationMakesOneCallerLeave) {
  for (const auto type : {asio::cancellation_type::terminal, asio::cancellation_type::partial,
                          asio::cancellation_type::total}) {
    flight_group flights;
    asio::io_context io;
    asio::cancellation_signal signal;
    answer leaves;
    answer stays;
    auto leader = lead(flights, 1);
    async_call(flights, io, 1, must_not_load,
               asio::bind_cancellation_slot(signal.slot(), into(leaves)));
    async_call(flights, io, 1, must_not_load, into(stays));
    signal.emit(asio::cancellation_type::none);
    EXPECT_EQ(flights.stats().waiting, 2U);
    signal.emit(type);
    EXPECT_EQ(leaves.calls, 0);  // not inside emit
    EXPECT_EQ(flights.stats().waiting, 1U);
    io.poll();
    EXPECT_EQ(leaves.code(), std::errc::operation_canceled);
    EXPECT_EQ(stays.calls, 0);
    signal.emit(type);
    std::move(leader).set_value(1);
    io.run();
    EXPECT_EQ(leaves.calls, 1);
    EXPECT_EQ(stays.value, 1);
    EXPECT_EQ(flights.stats().cancelled, 1U);
  }
}

// boostorg/cobalt#194: a cancellation that came after the end, before the handler ran, used freed memory.
TEST(AsioLeaving, CancellationBetweenTheEndOfTheCallAndTheHandlerChangesNothing) {
  flight_group flights;
  asio::io_context io;
  asio::cancellation_signal signal;
  answer a;
  auto leader = lead(flights, 1);
  async_call(flights, io, 1, must_not_load,
             asio::bind_cancellation_slot(signal.slot(), [&](std::exception_ptr e, auto r) {
               EXPECT_FALSE(signal.slot().has_handler());
               into(a)(std::move(e), std::move(r));
             }));
  EXPECT_TRUE(signal.slot().has_handler());
  std::move(leader).set_value(3);
  signal.emit(asio::cancellation_type::total);
  io.run();
  EXPECT_EQ(a.calls, 1);
  EXPECT_EQ(a.value, 3);
  signal.emit(asio::cancellation_type::total);
}

TEST(AsioLeaving, CancellationBetweenTheFailureOfTheCallAndTheNextAttemptIsHeeded) {
  flight_group flights;
  asio::io_context io;
  asio::cancellation_signal signal;
  answer a;
  auto leader = lead(flights, 1);
  async_call(flights, io, 1, {.attempts = 2}, must_not_load,
             asio::bind_cancellation_slot(signal.slot(), into(a)));
  std::move(leader).set_exception(std::make_exception_ptr(std::runtime_error("first")));
  signal.emit(asio::cancellation_type::total);
  io.run();
  EXPECT_EQ(a.calls, 1);
  EXPECT_EQ(a.code(), std::errc::operation_canceled);
  support::expect_idle(flights);
}

TEST(AsioLeaving, CancellationWhileTheLoadIsStartedIsHeeded) {
  flight_group flights;
  asio::io_context io;
  asio::cancellation_signal signal;
  answer a;
  std::optional<singleflight::leader<int>> leader;
  asio::post(io, [&] {  // where the loader runs inside async_call
    async_call(
        flights, io, 1,
        [&](singleflight::leader<int> mine) {
          leader.emplace(std::move(mine));
          signal.emit(asio::cancellation_type::total);
        },
        asio::bind_cancellation_slot(signal.slot(), into(a)));
  });
  io.run();
  EXPECT_EQ(a.calls, 1);
  EXPECT_EQ(a.code(), std::errc::operation_canceled);
  EXPECT_EQ(flights.stats().cancelled, 1U);
  EXPECT_TRUE(flights.in_flight().empty());
  std::move(*leader).set_value(1);
  EXPECT_EQ(a.calls, 1);
  support::expect_idle(flights);
}

TEST(AsioLeaving, SignalMayBeGoneAfterTheHandlerRan) {
  flight_group flights;
  asio::io_context io;
  answer a;
  auto signal = std::make_unique<asio::cancellation_signal>();
  async_call(
      flights, io, 1, [] { return 1; },
      asio::bind_cancellation_slot(signal->slot(), [&](std::exception_ptr e, auto r) {
        into(a)(std::move(e), std::move(r));
        signal.reset();
      }));
  io.run();
  EXPECT_EQ(a.value, 1);
}

// chriskohlhoff/asio#1576: a slot was touched by the thread that completed the operation.
TEST(AsioLeaving, CancellationRacesWithTheEnd) {
  running_context handlers(1);
  support::threads ender;
  for (int i = 0; i < rounds; ++i) {
    flight_group flights;
    asio::cancellation_signal signal;
    std::promise<answer> done;
    auto leader = lead(flights, 1);
    asio::post(handlers.io, [&] {
      async_call(flights, handlers.io, 1, must_not_load,
                 asio::bind_cancellation_slot(signal.slot(), [&](std::exception_ptr e, auto r) {
                   answer a;
                   into(a)(std::move(e), std::move(r));
                   done.set_value(std::move(a));  // so that who reads the exception has it alone
                 }));
    });
    support::await_followers(flights, 1);
    asio::post(handlers.io, [&] { signal.emit(asio::cancellation_type::terminal); });
    std::move(leader).set_value(5);
    const answer a = done.get_future().get();
    EXPECT_EQ(a.calls, 1);
    if (a.value) {
      EXPECT_EQ(*a.value, 5);
    } else {
      EXPECT_EQ(a.code(), std::errc::operation_canceled);
    }
    std::promise<void> emitted;  // the signal must live until it is emitted
    asio::post(handlers.io, [&] { emitted.set_value(); });
    emitted.get_future().get();
    support::expect_idle(flights);
  }
}

TEST(AsioLeaving, DeadlineOfAFollower) {
  flight_group flights;
  asio::io_context io;
  answer leaves;
  answer stays;
  auto leader = lead(flights, 1);
  async_call(flights, io, 1, {.deadline = clock_type::now() + 5ms}, must_not_load, into(leaves));
  async_call(flights, io, 1, {.deadline = clock_type::now() + 1h}, must_not_load, into(stays));
  run_until(
      io, [&] { return leaves.calls == 1; }, "the deadline");
  EXPECT_EQ(leaves.code(), std::errc::timed_out);
  EXPECT_EQ(stays.calls, 0);
  std::move(leader).set_value(2);
  io.restart();
  io.run();  // returns: the timer of the one that stayed is cancelled
  EXPECT_EQ(stays.value, 2);
  EXPECT_EQ(flights.stats().timed_out, 1U);
}

TEST(AsioLeaving, DeadlineThatHasPassedEntersNothing) {
  for (const auto deadline : {clock_type::now(), clock_type::time_point::min()}) {
    flight_group flights;
    asio::io_context io;
    answer a;
    async_call(flights, io, 1, {.deadline = deadline}, must_not_load, into(a));
    io.run();
    EXPECT_EQ(a.code(), std::errc::timed_out);
    EXPECT_EQ(flights.stats().led, 0U);
    EXPECT_EQ(flights.stats().rejected, 1U);
    EXPECT_EQ(flights.stats().timed_out, 1U);
  }
}

TEST(AsioLeaving, DeadlineRacesWithTheEnd) {
  running_context handlers(2);
  for (int i = 0; i < rounds / 4; ++i) {
    flight_group flights;
    std::promise<answer> done;
    auto leader = lead(flights, 1);
    const auto deadline = clock_type::now() + 100us;
    async_call(flights, handlers.io, 1, {.deadline = deadline}, must_not_load,
               [&](std::exception_ptr e, auto r) {
                 answer a;
                 into(a)(std::move(e), std::move(r));
                 done.set_value(std::move(a));  // so that who reads the exception has it alone
               });
    while (clock_type::now() < deadline) {
    }
    std::move(leader).set_value(5);
    const answer a = done.get_future().get();
    EXPECT_TRUE(a.value == 5 || a.code() == std::errc::timed_out);
  }
}

TEST(AsioLeaving, FollowerGoesOnToANewerCallAtMaxAge) {
  for (auto age = 5ms;; age *= 4) {
    flight_group flights({.max_age = age});
    asio::io_context io;
    answer leads;
    answer joins;
    auto hung = lead(flights, 1);
    async_call(
        flights, io, 1, [] { return 2; }, into(leads));
    async_call(
        flights, io, 1, {.deadline = clock_type::now() + 1h}, [] { return 2; }, into(joins));
    const bool both_came_in_time = flights.stats().joined == 2;
    io.run();
    EXPECT_EQ(leads.value, 2);
    EXPECT_EQ(joins.value, 2);
    EXPECT_EQ(flights.stats().superseded, 1U);
    std::move(hung).set_value(1);
    EXPECT_EQ(leads.calls + joins.calls, 2);
    support::expect_idle(flights);
    if (both_came_in_time || HasFailure()) return;
  }
}

/// A value that takes long to move, once its call has ended.
struct slow_value {
  struct gate {
    std::function<bool()> ended;
    std::atomic<bool> reached = false;
    std::atomic<bool> open = false;
  };

  slow_value(int v, gate* g) : value(v), at(g) {}
  slow_value(slow_value&& other) noexcept : value(other.value), at(other.at) {
    if (at == nullptr || !at->ended()) return;
    at->reached = true;
    while (!at->open) std::this_thread::yield();
  }
  slow_value& operator=(slow_value&&) = delete;

  int value;
  gate* at;
};

TEST(AsioLeaving, FollowerWhoseCallHasEndedWaitsForItsResultAtMaxAge) {
  for (auto age = 5ms;; age *= 4) {
    singleflight::group<int, slow_value> flights({.max_age = age});
    slow_value::gate gate;
    gate.ended = [&] { return flights.stats().in_flight == 0; };
    asio::io_context io;
    int got = 0;
    auto leader = lead(flights, 1);
    async_call(
        flights, io, 1, [] { return slow_value(2, nullptr); },
        [&](const std::exception_ptr& error, const auto& r) {
          EXPECT_EQ(error, nullptr);
          got = r->value;
        });
    if (flights.stats().joined == 0) {  // it came too late
      std::move(leader).set_value(slow_value(1, nullptr));
      io.run();
      continue;
    }
    support::threads ender;
    ender.start([&] { std::move(leader).set_value(slow_value(1, &gate)); });
    support::await([&] { return gate.reached.load(); }, "the call to have ended");
    EXPECT_EQ(io.run_one(), 1U);  // the timer
    EXPECT_EQ(got, 0);
    gate.open = true;
    io.run();
    EXPECT_EQ(got, 1);
    return;
  }
}

TEST(AsioLeaving, DeadlineBeforeMaxAgeIsADeadline) {
  flight_group flights({.max_age = 1h});
  asio::io_context io;
  answer a;
  auto hung = lead(flights, 1);
  async_call(flights, io, 1, {.deadline = clock_type::now() + 1ms}, must_not_load, into(a));
  io.run();
  EXPECT_EQ(a.code(), std::errc::timed_out);
  EXPECT_EQ(flights.stats().superseded, 0U);
}

#if defined(__cpp_lib_jthread)

TEST(AsioLeaving, StopRequestMakesOneCallerLeaveAndTheLastStopsTheLoad) {
  flight_group flights;
  asio::io_context io;
  std::stop_source first;
  answer a;
  answer b;
  std::optional<singleflight::leader<int>> token;
  asio::cancellation_signal second;
  async_call(
      flights, io, 1, {.stop = first.get_token()},
      [&](singleflight::leader<int> l) { token.emplace(std::move(l)); }, into(a));
  async_call(flights, io, 1, must_not_load, asio::bind_cancellation_slot(second.slot(), into(b)));
  io.poll();
  first.request_stop();
  EXPECT_FALSE(token->stop_token().stop_requested());
  second.emit(asio::cancellation_type::total);
  EXPECT_TRUE(token->stop_token().stop_requested());
  io.run();
  EXPECT_EQ(a.code(), std::errc::operation_canceled);
  EXPECT_EQ(b.code(), std::errc::operation_canceled);
  EXPECT_TRUE(flights.in_flight().empty());  // unlisted
}

TEST(AsioLeaving, LoadThatNobodyWaitsForAnyMoreDoesNotBegin) {
  flight_group flights;
  asio::io_context io;
  asio::io_context loads;
  std::stop_source stop;
  answer a;
  async_call(flights, loads, 1, {.stop = stop.get_token()}, must_not_load,
             asio::bind_executor(io, into(a)));
  stop.request_stop();
  loads.poll();
  io.run();
  EXPECT_EQ(a.code(), std::errc::operation_canceled);
  support::expect_idle(flights);
}

#endif

// corosio#159, FISCO-BCOS#5519: what a destroyed context held was leaked.
TEST(AsioLeaving, DestroyedContextDestroysHandlersAndTheirCallersLeave) {
  flight_group flights;
  auto held = std::make_shared<int>(0);
  const std::weak_ptr<int> all_live = held;
  std::optional<singleflight::leader<int>> token;
  asio::cancellation_signal signal;
  {
    asio::io_context io;
    async_call(
        flights, io, 1, [&, held](singleflight::leader<int> l) { token.emplace(std::move(l)); },
        [held](const std::exception_ptr&, const auto&) { FAIL() << "called"; });
    async_call(
        flights, own_executor{&io, held}, 1, {.deadline = clock_type::now() + 1h},
        [held] { return must_not_load(); },
        asio::bind_cancellation_slot(
            signal.slot(), [held](const std::exception_ptr&, const auto&) { FAIL() << "called"; }));
    io.poll();
    held.reset();
    EXPECT_FALSE(all_live.expired());
    EXPECT_EQ(flights.stats().waiting, 2U);
  }
  EXPECT_TRUE(all_live.expired()) << "the handlers, the loaders, the executor";
  EXPECT_EQ(flights.stats().waiting, 0U);
  signal.emit(asio::cancellation_type::total);
  EXPECT_TRUE(flights.in_flight().empty());
#if defined(__cpp_lib_jthread)
  EXPECT_TRUE(token->stop_token().stop_requested());
#endif
  std::move(*token).set_value(1);
  support::expect_idle(flights);
}

TEST(AsioLeaving, ContextDestroyedWithACompletionInItsQueue) {
  flight_group flights;
  auto held = std::make_shared<int>(0);
  const std::weak_ptr<int> handler_lives = held;
  asio::cancellation_signal signal;
  auto io = std::make_unique<asio::io_context>();
  auto leader = lead(flights, 1);
  async_call(
      flights, *io, 1, {.deadline = clock_type::now() + 1h}, [held] { return must_not_load(); },
      asio::bind_cancellation_slot(
          signal.slot(), [held](const std::exception_ptr&, const auto&) { FAIL() << "called"; }));
  held.reset();
  std::move(leader).set_value(1);
  EXPECT_FALSE(handler_lives.expired());
  io.reset();
  EXPECT_TRUE(handler_lives.expired());
}

TEST(AsioLeaving, OneDestroyedContextOfTwoDestroysHandlersAndLoaders) {
  for (const bool io_goes : {true, false}) {
    flight_group flights;
    asio::cancellation_signal signal;
    std::optional<asio::io_context> handlers(std::in_place);
    std::optional<asio::io_context> io(std::in_place);
    auto held = std::make_shared<int>(0);
    const std::weak_ptr<int> all_live = held;
    auto leader = lead(flights, 1);
    async_call(
        flights, own_executor{&*io, held}, 1, {.deadline = clock_type::now() + 1h},
        [held] { return must_not_load(); },
        asio::bind_executor(
            *handlers, asio::bind_cancellation_slot(signal.slot(),
                                                    [held](const std::exception_ptr&, const auto&) {
                                                      FAIL() << "called";
                                                    })));
    held.reset();
    EXPECT_EQ(flights.stats().waiting, 1U);
    (io_goes ? io : handlers).reset();
    EXPECT_TRUE(all_live.expired()) << "the handler, the loader, the executor";
    EXPECT_EQ(flights.stats().waiting, 0U);
    (io_goes ? handlers : io)->run();  // it has no work any more
    signal.slot().clear();
    std::move(leader).set_value(1);
    support::expect_idle(flights);
  }
}

TEST(AsioLeaving, ContextThatIsBeingDestroyedTakesNoMoreCallers) {
  flight_group flights;
  asio::io_context other;
  const auto leader = lead(flights, 1);
  {
    asio::io_context io;
    auto enter = at_end([&] {
      async_call(flights, io, 2, must_not_load, not_called);
      async_call(flights, io, 3, must_not_load, asio::bind_executor(other, not_called));
      async_call(flights, other, 4, must_not_load, asio::bind_executor(io, not_called));
    });
    async_call(flights, io, 1, must_not_load,
               [enter](const std::exception_ptr&, const auto&) { FAIL() << "called"; });
    enter.reset();
  }
  EXPECT_EQ(flights.stats().led, 1U);
  EXPECT_EQ(flights.stats().joined, 1U);
  other.run();  // it has no work
}

/// Has a context destroyed while another thread gives it a completion, which that thread begins to
/// do before or while the context drops its operations. `make_token`: of a handler.
template <class MakeToken>
void expect_context_to_wait(const MakeToken& make_token, bool drops_first) {
  flight_group flights;
  auto io = std::make_unique<asio::io_context>();
  std::atomic<bool> posts = false;
  std::atomic<bool> has_closed = false;
  asio::use_service<end_of_context>(*io).then = [&] { has_closed = true; };
  const std::function<void()> post_late = [&, slow_context = io.get()] {
    posts = true;
    await_end_of(*slow_context);
    for (int i = 0; i < 1000 && !has_closed; ++i) std::this_thread::yield();
    EXPECT_FALSE(has_closed);
  };
  const own_executor slow{io.get(), {}, &post_late};
  auto leader = lead(flights, 1);
  async_call(flights, slow, 1, must_not_load, make_token(slow));
  support::threads ender;
  const auto post = [&] {
    ender.start([&] { std::move(leader).set_value(1); });
    support::await([&] { return posts.load(); }, "the thread to post");
  };
  const auto other = lead(flights, 2);
  if (drops_first) {
    auto dropping = at_end(post);
    async_call(flights, *io, 2, must_not_load,
               [dropping](const std::exception_ptr&, const auto&) { FAIL() << "called"; });
  } else {
    post();
  }
  io.reset();
  EXPECT_TRUE(has_closed);
}

TEST(AsioLeaving, DestroyedContextWaitsForAThreadThatPostsToIt) {
  for (const bool drops_first : {false, true}) {
    expect_context_to_wait(
        [](const own_executor& slow) { return asio::bind_executor(slow, not_called); },
        drops_first);
#if defined(SINGLEFLIGHT_TESTS_BOOST_ASIO)
    using handler =
        asio::any_completion_handler<void(std::exception_ptr, singleflight::result<int>)>;
    expect_context_to_wait([](const own_executor&) { return handler(not_called); }, drops_first);
#endif
  }
}

TEST(AsioLeaving, CallerKeepsTheIoContextUntilItHasLetGoOfItsIoExecutor) {
  flight_group flights;
  asio::io_context handlers;
  auto io = std::make_unique<asio::io_context>();
  std::atomic<bool> lets_go = false;
  std::atomic<bool> has_closed = false;
  asio::use_service<end_of_context>(*io).then = [&] { has_closed = true; };
  const auto let_go_late = [&, slow_context = io.get()] {
    lets_go = true;
    await_end_of(*slow_context);
    for (int i = 0; i < 1000 && !has_closed; ++i) std::this_thread::yield();
    EXPECT_FALSE(has_closed);
  };
  answer a;
  auto leader = lead(flights, 1);
  async_call(flights, own_executor{io.get(), at_end(let_go_late)}, 1, must_not_load,
             asio::bind_executor(handlers, into(a)));
  std::move(leader).set_value(1);
  support::threads handler;
  handler.start([&] { handlers.run(); });
  support::await([&] { return lets_go.load(); }, "the completion");
  io.reset();
  EXPECT_TRUE(has_closed);
  handler.join();
  EXPECT_EQ(a.value, 1);
}

TEST(AsioLeaving, CallerThatTriesAgainKeepsTheIoContextUntilItHasEntered) {
  flight_group flights;
  asio::io_context handlers;
  auto io = std::make_unique<asio::io_context>();
  std::atomic<bool> enters = false;
  std::atomic<bool> drops = false;
  const std::function<void()> post_late = [&, slow_context = io.get()] {
    enters = true;
    await_end_of(*slow_context);
    for (int i = 0; i < 1000 && !drops; ++i) std::this_thread::yield();
    EXPECT_FALSE(drops);
  };
  auto leader = lead(flights, 1);
  async_call(flights, own_executor{io.get(), {}, &post_late}, 1, {.attempts = 2}, must_not_load,
             asio::bind_executor(handlers, not_called));
  const auto other = lead(flights, 2);
  auto dropping = at_end([&] { drops = true; });
  async_call(flights, *io, 2, must_not_load,
             [dropping](const std::exception_ptr&, const auto&) { FAIL() << "called"; });
  dropping.reset();
  std::move(leader).set_exception(std::make_exception_ptr(std::runtime_error("first")));
  support::threads handler;
  handler.start([&] { handlers.run(); });  // returns when the operation is dropped
  support::await([&] { return enters.load(); }, "the next attempt");
  io.reset();
  EXPECT_TRUE(drops);
  handler.join();
  EXPECT_EQ(flights.stats().waiting, 0U);
}

/// Calls a function when a caller leaves for a cancellation.
struct told_of_leaving {
  const std::function<void()>* then;
  void left(const int&, const auto& e) const noexcept {
    if (e.why == singleflight::leaving::stop) (*then)();
  }
};

// The one that leaves is about to be posted to the context, which has let go of it.
TEST(AsioLeaving, CallerLeavesWhileItsContextIsDestroyed) {
  std::function<void()> then;
  singleflight::group<int, int, std::hash<int>, std::equal_to<int>, told_of_leaving> flights(
      singleflight::group_options(), {}, {}, told_of_leaving{&then});
  asio::cancellation_signal signal;
  auto io = std::make_unique<asio::io_context>();
  std::atomic<bool> dropped = false;
  std::atomic<bool> has_left = false;
  auto when_dropped = at_end([&] { dropped = true; });
  auto wait_then = at_end(
      [&] { support::await([&] { return has_left.load(); }, "the other caller to have left"); });
  const auto leader = lead(flights, 1);
  async_call(flights, *io, 1, must_not_load,
             [wait_then](const std::exception_ptr&, const auto&) { FAIL() << "called"; });
  async_call(flights, *io, 1, must_not_load,
             asio::bind_cancellation_slot(
                 signal.slot(),
                 [when_dropped](const std::exception_ptr&, const auto&) { FAIL() << "called"; }));
  when_dropped.reset();
  wait_then.reset();
  support::threads destroyer;
  then = [&] {
    destroyer.start([&] { io.reset(); });
    support::await([&] { return dropped.load(); }, "the context to let go of it");
  };
  signal.emit(asio::cancellation_type::total);
  has_left = true;
  destroyer.join();
  EXPECT_EQ(flights.stats().waiting, 0U);
}

TEST(AsioLeaving, HandlerWhoseExecutorThrowsIsDestroyed) {
  flight_group flights;
  asio::io_context io;
  asio::cancellation_signal signal;
  auto held = std::make_shared<int>(0);
  const std::weak_ptr<int> lives = held;
  bool is_full = true;
  const std::function<void()> throw_once = [&] {
    if (std::exchange(is_full, false)) throw_that_it_is_full();
  };
  auto leader = lead(flights, 1);
  async_call(flights, io, 1, {.deadline = clock_type::now() + 1h}, must_not_load,
             asio::bind_executor(own_executor{&io, {}, &throw_once},
                                 asio::bind_cancellation_slot(
                                     signal.slot(), [held](const std::exception_ptr&, const auto&) {
                                       FAIL() << "called";
                                     })));
  held.reset();
  std::move(leader).set_value(1);
  EXPECT_TRUE(lives.expired());
  io.run();  // returns: the timer is cancelled
  support::expect_idle(flights);
}

// --- Executors that have no context ----------------------------------------------------------------

TEST(AsioLeaving, HandlerOfAnExecutorThatHasNoContext) {
  flight_group flights;
  support::task_queue queue;
  const foreign_executor foreign{&queue};
  auto io = std::make_unique<asio::io_context>();
  asio::cancellation_signal signal;
  answer gets;
  answer late;
  std::optional<singleflight::leader<int>> first(lead(flights, 1));
  async_call(
      flights, *io, 1, {.deadline = clock_type::now() + 1h, .attempts = 2}, [] { return 2; },
      asio::bind_executor(foreign, into(gets)));
  async_call(flights, *io, 1, {.deadline = clock_type::now()}, must_not_load,
             asio::bind_executor(foreign, into(late)));
  std::move(*first).set_exception(std::make_exception_ptr(std::runtime_error("first")));
  queue.run();
  EXPECT_EQ(gets.calls, 0) << "its next attempt";
  EXPECT_EQ(late.code(), std::errc::timed_out);
  io->poll();
  queue.run();
  EXPECT_EQ(gets.value, 2);
  io->restart();
  io->run();  // it has no work any more

  auto held = std::make_shared<int>(0);
  const std::weak_ptr<int> lives = held;
  const auto other = lead(flights, 1);
  async_call(flights, *io, 1, must_not_load,
             asio::bind_executor(foreign,
                                 asio::bind_cancellation_slot(
                                     signal.slot(), [held](const std::exception_ptr&, const auto&) {
                                       FAIL() << "called";
                                     })));
  held.reset();
  io.reset();
  EXPECT_TRUE(lives.expired());
  EXPECT_EQ(flights.stats().waiting, 0U);
}

TEST(AsioLeaving, LoaderOfAnExecutorThatHasNoContext) {
  flight_group flights;
  support::task_queue queue;
  asio::io_context io;
  answer a;
  async_call(
      flights, foreign_executor{&queue}, 1, [] { return 2; }, asio::bind_executor(io, into(a)));
  EXPECT_EQ(queue.size(), 1U);
  queue.run();
  io.run();
  EXPECT_EQ(a.value, 2);
}

// Its loader would have run there.
TEST(AsioLeaving, CallerThatWouldTryAgainIsDroppedIfItsIoContextIsGone) {
  flight_group flights;
  asio::io_context home;
  auto io = std::make_unique<asio::io_context>();
  asio::cancellation_signal signal;
  answer a;
  const auto kept = std::make_shared<int>(0);
  auto leader = lead(flights, 1);
  async_call(flights, *io, 1, {.attempts = 2}, must_not_load,
             asio::bind_executor(
                 home, asio::bind_cancellation_slot(
                           signal.slot(), [kept, to = into(a)](auto error, auto r) mutable {
                             to(std::move(error), std::move(r));
                           })));
  std::move(leader).set_exception(std::make_exception_ptr(std::runtime_error("gone")));
  io.reset();
  EXPECT_EQ(kept.use_count(), 2);
  home.run();
  EXPECT_EQ(kept.use_count(), 1);
  EXPECT_EQ(a.calls, 0);
  support::expect_idle(flights);
}

TEST(AsioLeaving, HandlerOfACallThatEndedOutlivesTheIoContext) {
  flight_group flights;
  asio::io_context handlers;
  answer a;
  auto held = std::make_shared<int>(0);
  const std::weak_ptr<int> executor_lives = held;
  {
    auto leader = lead(flights, 1);
    asio::io_context io;
    async_call(flights, own_executor{&io, std::move(held)}, 1, must_not_load,
               asio::bind_executor(handlers, into(a)));
    std::move(leader).set_value(1);
  }
  EXPECT_TRUE(executor_lives.expired());
  handlers.run();
  EXPECT_EQ(a.value, 1);
}

TEST(AsioLeaving, LoadDroppedByItsContextFailsTheCall) {
  flight_group flights;
  asio::io_context handlers;
  answer a;
  {
    asio::io_context loads;
    async_call(
        flights, handlers, 1,
        [&](singleflight::leader<int> l) {
          asio::post(loads, [l = std::move(l)]() mutable { std::move(l).set_value(1); });
        },
        into(a));
    handlers.poll();
  }
  handlers.restart();
  handlers.run();
  EXPECT_EQ(a.code(), std::errc::owner_dead);
}

TEST(AsioLeaving, CallsEndWhileTheContextOfTheirFollowersIsDestroyed) {
  for (int i = 0; i < rounds / 4; ++i) {
    flight_group flights;
    auto leader = lead(flights, 1);
    auto io = std::make_unique<asio::io_context>();
    std::atomic<int> called = 0;
    for (int n = 0; n < 4; ++n) {
      async_call(flights, *io, 1, {.deadline = clock_type::now() + 1h}, must_not_load,
                 [&](const std::exception_ptr&, const auto&) { ++called; });
    }
    support::threads ender;
    std::atomic<bool> go = false;
    ender.start([&] {
      go = true;
      std::move(leader).set_value(1);
    });
    while (!go) {
    }
    io.reset();
    ender.join();
    EXPECT_EQ(called, 0);
    support::expect_idle(flights);
  }
}

// boostorg/cobalt#167: completions were not posted across executors.
TEST(AsioLeaving, LeaderAndFollowersOfSeveralContexts) {
  flight_group flights;
  std::array<running_context, 3> contexts{running_context(1), running_context(1),
                                          running_context(2)};
  for (int i = 0; i < rounds / 4; ++i) {
    std::atomic<int> done = 0;
    std::atomic<int> led = 0;
    for (auto& context : contexts) {
      asio::post(context.io, [&] {
        for (int n = 0; n < 2; ++n) {
          async_call(
              flights, context.io, 1,
              [](singleflight::leader<int> l) { std::move(l).set_value(1); },
              [&](const std::exception_ptr&, const auto& r) {
                EXPECT_EQ(*r, 1);
                if (r.led()) ++led;
                ++done;
              });
        }
      });
    }
    support::await([&] { return done == 6; }, "the handlers");
    EXPECT_GE(led, 1);
  }
  support::expect_idle(flights);
}

// jbaldwin/libcoro#393, NVIDIA/stdexec#1909: a destructor that waits on the only thread of its work.
TEST(AsioLeaving, GroupDestroyedOnTheThreadOfItsCallsWaitsForNone) {
  asio::io_context io;
  answer a;
  std::optional<singleflight::leader<int>> token;
  auto flights = std::make_unique<flight_group>();
  async_call(
      *flights, io, 1, [&](singleflight::leader<int> l) { token.emplace(std::move(l)); }, into(a));
  asio::post(io, [&] { flights.reset(); });
  io.poll();
  EXPECT_EQ(flights, nullptr);
  std::move(*token).set_value(4);
  io.run();
  EXPECT_EQ(a.value, 4);
}

#if defined(SINGLEFLIGHT_TESTS_ASIO_COROUTINES)

/// Waits without end, and notes that it was cancelled.
asio::awaitable<int> hang(int& begun, int& cancelled) {
  ++begun;
  asio::steady_timer timer(co_await asio::this_coro::executor, clock_type::time_point::max());
  try {
    co_await timer.async_wait(asio::use_awaitable);
  } catch (const system_error& e) {
    if (e.code() == asio::error::operation_aborted) ++cancelled;
    throw;
  }
  co_return 0;
}

TEST(AsioLeaving, LastCallerToLeaveCancelsTheAwaitableOfTheLoad) {
  flight_group flights;
  asio::io_context io;
  int begun = 0;
  int cancelled = 0;
  answer a;
  answer b;
  const auto load = [&] { return hang(begun, cancelled); };
  async_call(flights, io, 1, {.deadline = clock_type::now() + 1ms}, load, into(a));
  async_call(flights, io, 1, {.deadline = clock_type::now() + 5ms}, load, into(b));
  run_until(
      io, [&] { return a.calls == 1; }, "the first deadline");
  EXPECT_EQ(a.code(), std::errc::timed_out);
  io.restart();
  io.run();
  EXPECT_EQ(b.code(), std::errc::timed_out);
  EXPECT_EQ(begun, 1);
#if defined(__cpp_lib_jthread)
  EXPECT_EQ(cancelled, 1);
  support::expect_idle(flights);
#endif
}

#if defined(__cpp_lib_jthread)

TEST(AsioLeaving, AwaitableThatNobodyWaitsForAnyMoreDoesNotBegin) {
  flight_group flights;
  asio::io_context io;
  asio::io_context loads;
  std::stop_source stop;
  int begun = 0;
  int cancelled = 0;
  answer a;
  async_call(
      flights, loads, 1, {.stop = stop.get_token()}, [&] { return hang(begun, cancelled); },
      asio::bind_executor(io, into(a)));
  stop.request_stop();
  loads.poll();
  io.run();
  EXPECT_EQ(a.code(), std::errc::operation_canceled);
  EXPECT_EQ(begun, 0);
  support::expect_idle(flights);
}

#endif

TEST(AsioLeaving, CoroutinesWithTheirFramesGoWithTheContext) {
  flight_group flights;
  auto held = std::make_shared<int>(0);
  const std::weak_ptr<int> frames_live = held;
  int begun = 0;
  int cancelled = 0;
  {
    asio::io_context io;
    for (int i = 0; i < 3; ++i) {
      asio::co_spawn(
          io,
          [&, held]() -> asio::awaitable<void> {
            // Named: g++ 12 destroys a temporary of the co_await twice, with its suspended coroutine.
            const auto load = [&, held] { return hang(begun, cancelled); };
            (void)co_await async_call(flights, io, 1, {.deadline = clock_type::now() + 1h}, load,
                                      asio::use_awaitable);
          },
          asio::detached);
    }
    held.reset();
    io.poll();
    EXPECT_EQ(begun, 1);
    EXPECT_EQ(flights.stats().waiting, 3U);
  }
  EXPECT_TRUE(frames_live.expired());
  support::expect_idle(flights);
}

TEST(AsioLeaving, CancelledCoroutineLeaves) {
  flight_group flights;
  asio::io_context io;
  asio::cancellation_signal signal;
  auto leader = lead(flights, 1);
  std::error_code code;
  asio::co_spawn(
      io,
      [&]() -> asio::awaitable<void> {
        try {
          (void)co_await async_call(flights, io, 1, must_not_load, asio::use_awaitable);
        } catch (const singleflight::call_error& e) {
          code = e.code();
        }
      },
      asio::bind_cancellation_slot(signal.slot(), asio::detached));
  io.poll();
  EXPECT_EQ(flights.stats().waiting, 1U);
  signal.emit(asio::cancellation_type::terminal);
  io.restart();
  io.run();
  EXPECT_EQ(code, std::errc::operation_canceled);
  EXPECT_EQ(flights.stats().waiting, 0U);
  std::move(leader).set_value(1);
}

TEST(AsioLeaving, LoadOnAPoolIsCancelledOnItsStrand) {
  flight_group flights;
  asio::thread_pool pool(2);
  for (int i = 0; i < rounds / 4; ++i) {
    std::promise<void> done;
    std::atomic<int> began = 0;
    async_call(
        flights, pool, 1, {.deadline = clock_type::now() + 1ms},
        [&]() -> asio::awaitable<int> {
          asio::steady_timer timer(co_await asio::this_coro::executor);
          for (++began;;) {  // runs nearly always, so that to cancel it elsewhere would be a race
            timer.expires_after(1us);
            co_await timer.async_wait(asio::use_awaitable);
          }
        },
        [&](const std::exception_ptr& e, const auto&) {
          EXPECT_EQ(support::call_error_of(e), std::errc::timed_out);
          done.set_value();
        });
    done.get_future().get();
#if defined(__cpp_lib_jthread)
    support::await([&] { return flights.stats().in_flight == 0; }, "the load to be cancelled");
#endif
  }
  pool.stop();
}

#endif

}  // namespace
