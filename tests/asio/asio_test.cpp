// SPDX-License-Identifier: MIT
// Callers by Asio: who runs what where, and what handlers are given. Compiled once for each Asio.
#include <atomic>
#include <functional>
#include <future>
#include <memory>
#include <mutex>
#include <stdexcept>
#include <string>
#include <system_error>
#include <thread>
#include <type_traits>
#include <utility>
#include <vector>

#include "../replaced_new.hpp"
#include "either_asio.hpp"
#include "own_executors.hpp"

#if defined(SINGLEFLIGHT_TESTS_BOOST_ASIO)
#include <boost/asio/any_completion_handler.hpp>
#include <boost/asio/as_tuple.hpp>
#include <boost/asio/spawn.hpp>
#endif

namespace {

using flight_group = singleflight::group<int, int>;

TEST(Asio, CallbackOfALeaderAndOfAFollower) {
  flight_group flights;
  asio::io_context io;
  answer first;
  answer second;
  int loads = 0;
  std::optional<singleflight::leader<int>> lead;
  async_call(
      flights, io, 1,
      [&](singleflight::leader<int> l) {
        ++loads;
        lead.emplace(std::move(l));
      },
      into(first));
  async_call(flights, io, 1, must_not_load, into(second));
  io.poll();
  EXPECT_EQ(first.calls + second.calls, 0);
  EXPECT_EQ(flights.stats().waiting, 2U);
  std::move(*lead).set_value(7);
  io.run();
  EXPECT_EQ(loads, 1);
  EXPECT_EQ(first.calls, 1);
  EXPECT_EQ(second.calls, 1);
  EXPECT_EQ(first.value, 7);
  EXPECT_EQ(second.value, 7);
  EXPECT_TRUE(first.led);
  EXPECT_TRUE(first.shared);
  EXPECT_FALSE(second.led);
  EXPECT_TRUE(second.shared);
  const auto stats = flights.stats();
  EXPECT_EQ(stats.led, 1U);
  EXPECT_EQ(stats.joined, 1U);
  support::expect_idle(flights);
}

TEST(Asio, LoaderThatTakesTheLeaderAndThrowsFailsTheCall) {
  flight_group flights;
  asio::io_context io;
  std::exception_ptr failed;
  asio::post(io, [&] {  // where the loader runs inside async_call
    async_call(
        flights, io, 1,
        [](singleflight::leader<int>) { throw std::runtime_error("no connection"); },
        [&](std::exception_ptr e, const auto&) { failed = std::move(e); });
  });
  io.run();
  EXPECT_EQ(support::text_of(failed), "no connection");
  support::expect_idle(flights);
}

TEST(Asio, LoaderThatRefersToTheLeaderAndThrowsFailsTheCall) {
  flight_group flights;
  asio::io_context io;
  answer a;
  async_call(
      flights, io, 1,
      [](singleflight::leader<int>&&) { throw std::runtime_error("no connection"); }, into(a));
  io.run();
  EXPECT_EQ(support::text_of(a.error), "no connection");
  support::expect_idle(flights);
}

TEST(Asio, UnsharedResultIsTheCallersOwn) {
  singleflight::group<int, std::unique_ptr<int>> flights;
  asio::io_context io;
  std::optional<singleflight::result<std::unique_ptr<int>>> got;
  async_call(
      flights, io, 1, [] { return std::make_unique<int>(5); },
      [&](const std::exception_ptr& error, auto r) {
        EXPECT_EQ(error, nullptr);
        got.emplace(std::move(r));
      });
  io.run();
  ASSERT_TRUE(got);
  EXPECT_EQ(**got.value(), 5);
  EXPECT_TRUE(got->led());
  EXPECT_FALSE(got->shared());
}

TEST(Asio, GroupOfVoid) {
  singleflight::group<std::string, void> flights;
  asio::io_context io;
  int loads = 0;
  int calls = 0;
  async_call(
      flights, io, "a", [&] { ++loads; },
      [&](const std::exception_ptr& error, const singleflight::result<void>& r) {
        EXPECT_EQ(error, nullptr);
        EXPECT_TRUE(r.led());
        ++calls;
      });
  async_call(
      flights, io, "b", [] { throw std::runtime_error("b"); },
      [&](const std::exception_ptr& error, const singleflight::result<void>&) {
        EXPECT_EQ(support::text_of(error), "b");
        ++calls;
      });
  io.run();
  EXPECT_EQ(loads, 1);
  EXPECT_EQ(calls, 2);
}

TEST(Asio, ExceptionIsOneObjectForAllAndTheResultIsEmpty) {
  flight_group flights;
  asio::io_context io;
  answer a;
  answer b;
  auto leader = lead(flights, 1);
  async_call(flights, io, 1, must_not_load, into(a));
  async_call(flights, io, 1, must_not_load, [&](std::exception_ptr error, auto empty) {
    ++b.calls;
    b.error = std::move(error);
    auto moved = std::move(empty);  // it may be moved, assigned to and destroyed
    empty = std::move(moved);
  });
  std::move(leader).set_exception(std::make_exception_ptr(std::runtime_error("no row")));
  io.run();
  EXPECT_EQ(support::text_of(a.error), "no row");
  EXPECT_EQ(b.calls, 1);
  support::expect_same(a.error, b.error);
}

TEST(Asio, LoaderTakesWhatOtherLoadersTake) {
  flight_group flights;
  asio::io_context io;
  std::vector<answer> answers(6);
  int next = 0;
  const auto call = [&](auto load) {
    const auto i = static_cast<std::size_t>(next++);
    async_call(flights, io, 10 + static_cast<int>(i), std::move(load), into(answers[i]));
  };
  call([] { return 10; });
  call([](const int& key) { return key; });
  call([](const singleflight::call_context& c) { return c.forgotten() ? 0 : 12; });
  call([](const int& key, const singleflight::call_context& c) { return c.forgotten() ? 0 : key; });
#if defined(__cpp_lib_jthread)
  call([](const std::stop_token& t) { return t.stop_possible() ? 14 : 0; });
  call([](const int& key, const std::stop_token& t) { return t.stop_possible() ? key : 0; });
#endif
  io.run();
  for (int i = 0; i < next; ++i) EXPECT_EQ(answers[static_cast<std::size_t>(i)].value, 10 + i);
}

TEST(Asio, LoaderThatReturnsAValueRunsOnTheIoExecutorAndTheHandlerOnItsOwn) {
  flight_group flights;
  asio::io_context io;
  asio::thread_pool pool(1);
  const auto here = std::this_thread::get_id();
  std::thread::id loaded_by;
  answer a;
  async_call(
      flights, pool, 1,
      [&] {
        loaded_by = std::this_thread::get_id();
        return 3;
      },
      asio::bind_executor(io, [&](std::exception_ptr e, auto r) {
        EXPECT_EQ(std::this_thread::get_id(), here);
        into(a)(std::move(e), std::move(r));
      }));
  io.run();  // returns when the operation, which is work, is done
  EXPECT_EQ(a.value, 3);
  EXPECT_NE(loaded_by, here);
  EXPECT_NE(loaded_by, std::thread::id());
  pool.join();
}

TEST(Asio, LoaderOnTheIoExecutorThatAsksForItsOwnKeyIsRefused) {
  flight_group flights;
  asio::thread_pool pool(1);
  answer a;
  async_call(
      flights, pool, 1, [&](const int& key) -> int { return flights.do_call(key, must_not_load); },
      into(a));
  pool.join();
  EXPECT_EQ(a.code(), std::errc::resource_deadlock_would_occur);
}

TEST(Asio, OperationIsWorkOfBothExecutors) {
  flight_group flights;
  asio::io_context io;
  asio::io_context handlers;
  answer a;
  auto leader = lead(flights, 1);
  async_call(flights, io, 1, must_not_load, asio::bind_executor(handlers, into(a)));
  io.poll();
  handlers.poll();
  EXPECT_FALSE(io.stopped());
  EXPECT_FALSE(handlers.stopped());
  std::move(leader).set_value(1);
  handlers.run();
  EXPECT_EQ(a.value, 1);
  io.poll();
  EXPECT_TRUE(io.stopped());
}

// chriskohlhoff/asio#27: a handler that was called inside the initiating function crashed its caller.
TEST(Asio, InitiatingFunctionNeverCallsTheHandler) {
  flight_group flights;
  asio::io_context io;
  bool initiating = false;
  int calls = 0;
  const auto call = [&](const singleflight::asio_options& options, auto load) {
    initiating = true;
    async_call(flights, io, 1, options, load, [&](const std::exception_ptr&, const auto&) {
      EXPECT_FALSE(initiating);
      ++calls;
    });
    initiating = false;
  };
  asio::post(io, [&] {  // on the executor itself, where a dispatch would call at once
    call({}, [] { return 1; });
    call({}, []() -> int { throw std::runtime_error("at once"); });
    call({.deadline = clock_type::now()}, must_not_load);
    call({}, [](singleflight::leader<int> l) { std::move(l).set_value(1); });
#if defined(__cpp_lib_jthread)
    std::stop_source stopped;
    stopped.request_stop();
    call({.stop = stopped.get_token()}, must_not_load);
#else
    ++calls;
#endif
  });
  io.run();
  EXPECT_EQ(calls, 5);
}

// boostorg/asio#346, boostorg/beast#3047, randombit/botan#2648: resumed off the strand.
TEST(Asio, HandlerRunsOnItsStrandForWhateverReason) {
  flight_group flights;
  running_context threads(2);
  const strand_type strand = asio::make_strand(threads.io.get_executor());
  std::atomic<int> calls = 0;
  const auto token = [&] {
    return asio::bind_executor(strand, [&](const std::exception_ptr&, const auto&) {
      EXPECT_TRUE(strand.running_in_this_thread());
      ++calls;
    });
  };
  asio::cancellation_signal signal;
  auto leader = lead(flights, 1);
  async_call(flights, threads.io, 1, must_not_load, token());
  async_call(flights, threads.io, 1, {.deadline = clock_type::now() + 1ms}, must_not_load, token());
  async_call(flights, threads.io, 1, {.deadline = clock_type::now()}, must_not_load, token());
  async_call(
      flights, threads.io, 2, [] { return 2; }, token());
  std::promise<void> initiated;
  asio::post(strand, [&] {
    async_call(flights, threads.io, 1, must_not_load,
               asio::bind_cancellation_slot(signal.slot(), token()));
    initiated.set_value();
  });
  initiated.get_future().get();
  asio::post(strand, [&] { signal.emit(asio::cancellation_type::total); });
  support::await([&] { return calls == 4; }, "those that do not wait for the leader");
  std::move(leader).set_value(1);
  support::await([&] { return calls == 5; }, "the follower");
}

/// Counts what is allocated with it, in objects that outlive no test.
template <class T>
struct counting_allocator {
  using value_type = T;
  struct counts {
    int live = 0;
    int made = 0;
  };
  counts* count;

  explicit counting_allocator(counts& c) noexcept : count(&c) {}
  template <class U>
  counting_allocator(const counting_allocator<U>& other) noexcept
      : count(reinterpret_cast<counts*>(other.count)) {}

  T* allocate(std::size_t n) {
    ++count->live;
    ++count->made;
    return std::allocator<T>().allocate(n);
  }
  void deallocate(T* p, std::size_t n) noexcept {
    --count->live;
    std::allocator<T>().deallocate(p, n);
  }
  template <class U>
  bool operator==(const counting_allocator<U>& other) const noexcept {
    return count == reinterpret_cast<counts*>(other.count);
  }
};

TEST(Asio, MemoryOfTheOperationComesFromItsAllocatorAndIsFreeWhenTheHandlerRuns) {
  using allocator = counting_allocator<char>;
  allocator::counts memory;
  flight_group flights({.max_age = 1h});
  asio::io_context io;
  asio::cancellation_signal signal;
  int calls = 0;
  const auto token = [&] {
    return asio::bind_cancellation_slot(
        signal.slot(),
        asio::bind_allocator(allocator(memory), [&](const std::exception_ptr&, const auto&) {
          EXPECT_EQ(memory.live, 0);
          ++calls;
        }));
  };
  const auto one = [&](const singleflight::asio_options& options, auto load, auto end) {
    async_call(flights, io, 1, options, std::move(load), token());
    EXPECT_GT(memory.live, 0);
    end();
    io.restart();
    io.run();
  };
  const auto nothing = [] {};
  one(
      {}, [] { return 1; }, nothing);
  one(
      {.deadline = clock_type::now() + 1h}, [] { return 1; }, nothing);
  for (const auto& options : {singleflight::asio_options(),
                              singleflight::asio_options{.deadline = clock_type::now() + 1h}}) {
    auto leader = lead(flights, 1);
    one(options, must_not_load, [&] { std::move(leader).set_value(1); });
    auto other = lead(flights, 1);
    one(options, must_not_load, [&] { signal.emit(asio::cancellation_type::partial); });
  }
  auto leader = lead(flights, 1);
  one({.deadline = clock_type::now() + 1ms}, must_not_load, nothing);
  EXPECT_EQ(calls, 7);
  EXPECT_EQ(memory.live, 0);
  EXPECT_EQ(memory.made, 14);  // the operation and its completion
}

TEST(Asio, FutureGetsTheResultOrTheException) {
  flight_group flights;
  // Kept until the handler's thread has ended: ThreadSanitizer does not see who lets go of it last.
  std::exception_ptr told;
  running_context thread(1);
  auto good = async_call(
      flights, thread.io, 1, [] { return 4; }, asio::use_future);
  auto bad = async_call(
      flights, thread.io, 2, []() -> int { throw std::runtime_error("no"); }, asio::use_future);
  EXPECT_EQ(*good.get(), 4);
  told = support::thrown_by([&] { (void)bad.get(); });
  EXPECT_EQ(support::text_of(told), "no");
}

TEST(Asio, DeferredOperationDoesNothingUntilItIsInitiated) {
  flight_group flights;
  asio::io_context io;
  answer a;
  {
    auto operation = [&] {
      const int key = 1;  // the operation has copies of its arguments
      auto moved_only = std::make_unique<int>(6);
      return async_call(
          flights, io.get_executor(), key, {.attempts = 2},
          [moved_only = std::move(moved_only)] { return *moved_only; }, deferred);
    }();
    io.run();
    EXPECT_EQ(flights.stats().led, 0U);
    std::move(operation)(into(a));
  }
  io.restart();
  io.run();
  EXPECT_EQ(a.value, 6);
  EXPECT_EQ(flights.stats().led, 1U);
}

TEST(Asio, AttemptsOfAFollowerWhoseCallFailed) {
  flight_group flights;
  asio::io_context io;
  answer patient;
  answer impatient;
  auto leader = lead(flights, 1);
  async_call(
      flights, io, 1, {.deadline = clock_type::now() + 1h, .attempts = 2},
      [](const int& key) { return key + 40; }, into(patient));
  async_call(flights, io, 1, must_not_load, into(impatient));
  std::move(leader).set_exception(std::make_exception_ptr(std::runtime_error("first")));
  io.run();  // returns: the timers of both attempts are cancelled
  EXPECT_EQ(patient.calls, 1);
  EXPECT_EQ(patient.value, 41);
  EXPECT_TRUE(patient.led);
  EXPECT_EQ(support::text_of(impatient.error), "first");
  EXPECT_THROW(async_call(flights, io, 1, {.attempts = 0}, must_not_load, into(patient)),
               std::invalid_argument);
}

TEST(Asio, FailureToEnterIsGivenToTheHandler) {
  struct failing_hash {
    std::size_t operator()(int key) const {
      if (key < 0) throw std::runtime_error("no hash");
      return static_cast<std::size_t>(key);
    }
  };
  singleflight::group<int, int, failing_hash> flights;
  asio::io_context io;
  answer a;
  async_call(flights, io, -1, must_not_load, into(a));
  EXPECT_EQ(a.calls, 0);
  io.run();
  EXPECT_EQ(support::text_of(a.error), "no hash");
  EXPECT_EQ(a.calls, 1);
}

TEST(Asio, FailureToConnectItsSlotIsGivenToTheHandler) {
  flight_group flights;
  asio::io_context io;
  answer a;
  async_call(flights, io, 1, must_not_load, asio::bind_cancellation_slot(refusing_slot(), into(a)));
  EXPECT_EQ(a.calls, 0);
  io.run();
  EXPECT_EQ(support::text_of(a.error), "no slot");
  EXPECT_EQ(a.calls, 1);
  EXPECT_EQ(flights.stats().led, 0U);
}

TEST(Asio, CallerThatLeavesAtNoTimeMakesNoTimer) {
  if (!support::replaces_new) GTEST_SKIP() << "no allocation can be counted here";
  flight_group flights;
  asio::io_context io;
  auto leader = lead(flights, 1);
  answer a;
  const auto blocks = [&](const singleflight::asio_options& options) {
    const auto before = support::allocated_by_this_thread.blocks;
    async_call(flights, io, 1, options, must_not_load, into(a));
    return support::allocated_by_this_thread.blocks - before;
  };
  EXPECT_GT(blocks({.deadline = clock_type::now() + 1h}), 1U);
  EXPECT_EQ(blocks({}), 1U);
  std::move(leader).set_value(1);
  io.run();
  EXPECT_EQ(a.calls, 2);
}

TEST(Asio, ThreadLeadsAndHandlersFollow) {
  flight_group flights;
  running_context threads(2);
  answer a;
  std::promise<void> done;
  EXPECT_EQ(*flights.do_call(1,
                             [&] {
                               async_call(flights, threads.io, 1, must_not_load,
                                          [&](std::exception_ptr e, auto r) {
                                            into(a)(std::move(e), std::move(r));
                                            done.set_value();
                                          });
                               return 9;
                             }),
            9);
  done.get_future().get();
  EXPECT_EQ(a.value, 9);
  EXPECT_TRUE(a.shared);
}

TEST(Asio, HandlerLeadsAndThreadFollows) {
  flight_group flights;
  std::optional<running_context> threads(2);
  answer a;
  std::optional<singleflight::leader<int>> token;
  std::promise<void> led;
  async_call(
      flights, threads->io, 1,
      [&](singleflight::leader<int> l) {
        token.emplace(std::move(l));
        led.set_value();
      },
      into(a));
  led.get_future().get();
  support::threads follower;
  std::optional<int> followed;
  follower.start([&] { followed = *flights.do_call(1, must_not_load); });
  support::await_followers(flights, 2);
  std::move(*token).set_value(8);
  follower.join();
  EXPECT_EQ(followed, 8);
  threads.reset();  // when the handler has run
  EXPECT_EQ(a.calls, 1);
  EXPECT_EQ(a.value, 8);
}

#if defined(SINGLEFLIGHT_TESTS_BOOST_ASIO)

TEST(Asio, TypeErasedHandler) {
  flight_group flights;
  asio::io_context io;
  asio::io_context handlers;
  using handler = asio::any_completion_handler<void(std::exception_ptr, singleflight::result<int>)>;
  answer a;
  answer b;
  auto leader = lead(flights, 1);
  async_call(flights, io, 1, {.deadline = clock_type::now() + 1h}, must_not_load,
             handler(asio::bind_executor(handlers, into(a))));
  async_call(flights, io, 1, {.deadline = clock_type::now() + 1ms}, must_not_load,
             handler(asio::bind_executor(handlers, into(b))));
  run_until(
      io, [&] { return flights.stats().waiting == 1; }, "the deadline");
  std::move(leader).set_value(2);
  run_until(
      io,
      [&] {
        handlers.restart();
        handlers.poll();
        return a.calls + b.calls == 2;
      },
      "both handlers");
  EXPECT_EQ(a.value, 2);
  EXPECT_EQ(b.code(), std::errc::timed_out);
}

TEST(Asio, StackfulCoroutine) {
  flight_group flights;
  asio::io_context io;
  auto leader = lead(flights, 1);
  int got = 0;
  asio::spawn(
      io,
      [&](asio::yield_context yield) {
        // Boost 1.81 does not compile a plain `yield` for a signature with an exception_ptr.
        auto [error, r] = async_call(flights, io, 1, must_not_load, asio::as_tuple(yield));
        EXPECT_EQ(error, nullptr);
        got = *r;
      },
      asio::detached);
  run_until(
      io, [&] { return flights.stats().waiting == 1; }, "the coroutine to wait");
  std::move(leader).set_value(5);
  io.restart();
  io.run();
  EXPECT_EQ(got, 5);
}

#endif

#if defined(SINGLEFLIGHT_TESTS_ASIO_COROUTINES)

TEST(AsioCoroutine, ThousandWaitForOneLoad) {
  flight_group flights;
  running_context threads(2);
  std::atomic<int> loads = 0;
  std::atomic<int> led = 0;
  std::atomic<int> done = 0;
  const auto load = [&](const int& key) -> asio::awaitable<int> {
    ++loads;
    asio::steady_timer timer(co_await asio::this_coro::executor);
    while (flights.stats().waiting < 1000) {
      timer.expires_after(1ms);
      co_await timer.async_wait(asio::use_awaitable);
    }
    co_return key * 10;
  };
  for (int i = 0; i < 1000; ++i) {
    asio::co_spawn(
        threads.io,
        [&]() -> asio::awaitable<void> {
          const auto r = co_await async_call(flights, threads.io, 4, load, asio::use_awaitable);
          EXPECT_EQ(*r, 40);
          led += r.led();
          ++done;
        },
        asio::detached);
  }
  support::await([&] { return done == 1000; }, "the coroutines");
  EXPECT_EQ(loads, 1);
  EXPECT_EQ(led, 1);
  EXPECT_EQ(flights.stats().led, 1U);
  EXPECT_EQ(flights.stats().joined, 999U);
  support::expect_idle(flights);
}

TEST(AsioCoroutine, IsThrownWhatTheAwaitableThrows) {
  flight_group flights;
  asio::io_context io;
  bool caught = false;
  asio::co_spawn(
      io,
      [&]() -> asio::awaitable<void> {
        try {
          (void)co_await async_call(
              flights, io, 1, []() -> asio::awaitable<int> { throw std::runtime_error("no row"); },
              asio::use_awaitable);
        } catch (const std::runtime_error& e) {
          caught = e.what() == std::string("no row");
        }
      },
      asio::detached);
  io.run();
  EXPECT_TRUE(caught);
  EXPECT_EQ(flights.stats().failed, 1U);
}

TEST(AsioCoroutine, AwaitableOfAGroupOfVoidAndOfAMoveOnlyValue) {
  singleflight::group<int, void> nothing;
  singleflight::group<int, std::unique_ptr<int>> pointers;
  asio::io_context io;
  int done = 0;
  asio::co_spawn(
      io,
      [&]() -> asio::awaitable<void> {
        co_await async_call(
            nothing, io, 1, []() -> asio::awaitable<void> { co_return; }, asio::use_awaitable);
        auto r = co_await async_call(
            pointers, io, 1,
            []() -> asio::awaitable<std::unique_ptr<int>> { co_return std::make_unique<int>(3); },
            asio::use_awaitable);
        EXPECT_EQ(*r.value(), 3);
        ++done;
      },
      asio::detached);
  io.run();
  EXPECT_EQ(done, 1);
}

TEST(AsioCoroutine, AwaitableOfAnExecutorThatCannotBeAStrand) {
  flight_group flights;
  asio::io_context io;
  answer a;
  async_call(
      flights, io, 1, []() -> asio::awaitable<int, executor_type> { co_return 2; }, into(a));
  io.run();
  EXPECT_EQ(a.value, 2);
}

TEST(AsioCoroutine, CircleIsRefusedWhereTheContextIsPassedOn) {
  flight_group flights;
  asio::io_context io;
  answer a;
  async_call(
      flights, io, 1,
      [&](const singleflight::call_context& outer) -> asio::awaitable<int> {
        co_return co_await async_call(
            flights, io, 2, {.inside = &outer},
            [&](const singleflight::call_context& inner) -> asio::awaitable<int> {
              co_return co_await async_call(flights, io, 1, {.inside = &inner}, must_not_load,
                                            asio::use_awaitable);
            },
            asio::use_awaitable);
      },
      into(a));
  io.run();
  EXPECT_EQ(a.code(), std::errc::resource_deadlock_would_occur);
  support::expect_idle(flights);
}

#endif

}  // namespace
