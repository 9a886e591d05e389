// SPDX-License-Identifier: MIT
// Callers by Asio that ask for many keys at once. Compiled once for each Asio.
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <exception>
#include <functional>
#include <future>
#include <memory>
#include <optional>
#include <stdexcept>
#include <string>
#include <system_error>
#include <thread>
#include <utility>
#include <vector>

#include "either_asio.hpp"
#include "own_executors.hpp"

#if defined(SINGLEFLIGHT_TESTS_BOOST_ASIO)
#include <boost/asio/any_completion_handler.hpp>
#endif

namespace {

using singleflight::asio_bulk_options;
using singleflight::async_call_many;
using singleflight::call_context;
using singleflight::outcome;

using flight_group = singleflight::group<int, int>;
using batch = singleflight::batch<int, int>;
using keys = std::vector<int>;
using pairs = std::vector<std::pair<int, int>>;

#if defined(SINGLEFLIGHT_TESTS_TSAN) || defined(SINGLEFLIGHT_TESTS_ASAN)
constexpr int rounds = 200;
#else
constexpr int rounds = 1000;
#endif

/// What a handler was given.
struct answers {
  int calls = 0;
  std::exception_ptr error;
  std::vector<outcome<int>> rows;

  [[nodiscard]] int value(std::size_t i) const { return rows.at(i).value(); }
  [[nodiscard]] std::error_code code(std::size_t i) const {
    return support::call_error_of(rows.at(i).error());
  }
};

auto into(answers& a) {
  return [&a](std::exception_ptr error, std::vector<outcome<int>> rows) {
    ++a.calls;
    a.error = std::move(error);
    a.rows = std::move(rows);
  };
}

constexpr auto tenfold = [](auto& missing) {
  for (const int key : missing) missing.set(key, 10 * key);
};
constexpr auto not_needed = [](auto&) { ADD_FAILURE() << "the loader ran"; };
constexpr auto not_called = [](const std::exception_ptr&, const auto&) { FAIL() << "called"; };

/// Counts what is allocated with it, in objects that outlive no test.
template <class T>
struct counting_allocator {
  using value_type = T;
  int* live;

  explicit counting_allocator(int& count) noexcept : live(&count) {}
  template <class U>
  counting_allocator(const counting_allocator<U>& other) noexcept : live(other.live) {}

  T* allocate(std::size_t n) {
    ++*live;
    return std::allocator<T>().allocate(n);
  }
  void deallocate(T* p, std::size_t n) noexcept {
    --*live;
    std::allocator<T>().deallocate(p, n);
  }
  template <class U>
  bool operator==(const counting_allocator<U>& other) const noexcept {
    return live == other.live;
  }
};

void fail(singleflight::leader<int>&& leader, const char* text) {
  std::move(leader).set_exception(std::make_exception_ptr(std::runtime_error(text)));
}

// --- Values ----------------------------------------------------------------------------------------

TEST(AsioBulk, GivesEachPositionItsOutcomeByOneInvocation) {
  flight_group flights;
  asio::io_context io;
  answers a;
  std::vector<keys> seen;
  asio::post(io, [&] {  // on the executor itself, where a dispatch would call at once
    async_call_many(
        flights, io, {2, 1, 2, 3},
        [&](auto& missing) {
          seen.emplace_back(missing.begin(), missing.end());
          tenfold(missing);
        },
        into(a));
    EXPECT_EQ(seen.size(), 1U) << "this thread runs the executor";
    EXPECT_EQ(a.calls, 0);
  });
  io.run();
  EXPECT_EQ(seen, (std::vector<keys>{{2, 1, 3}}));
  EXPECT_EQ(a.calls, 1);
  EXPECT_EQ(a.error, nullptr);
  ASSERT_EQ(a.rows.size(), 4U);
  EXPECT_EQ(a.value(0), 20);
  EXPECT_EQ(a.value(1), 10);
  EXPECT_EQ(a.value(3), 30);
  EXPECT_EQ(&a.rows[0].value(), &a.rows[2].value()) << "shared, not copied";
  EXPECT_EQ(flights.stats().led, 3U);
  EXPECT_EQ(flights.stats().batches, 1U);
  support::expect_idle(flights);
}

TEST(AsioBulk, OfNoKeysCompletesWithoutItsLoader) {
  flight_group flights;
  asio::io_context io;
  answers a;
  async_call_many(flights, io, keys(), not_needed, into(a));
  EXPECT_EQ(a.calls, 0);
  io.run();
  EXPECT_EQ(a.calls, 1);
  EXPECT_EQ(a.error, nullptr);
  EXPECT_TRUE(a.rows.empty());
  EXPECT_EQ(flights.stats().batches, 0U);
}

TEST(AsioBulk, LoaderMayReturnWhatItHasFound) {
  flight_group flights;
  asio::io_context io;
  answers a;
  async_call_many(
      flights, io, {1, 2, 3},
      [](batch& missing, const call_context& c) {
        EXPECT_FALSE(c.forgotten());
        EXPECT_EQ(missing.size(), 3U);
        return pairs{{1, 10}, {3, 30}, {5, 50}};
      },
      into(a));
  io.run();
  EXPECT_EQ(a.value(0), 10);
  EXPECT_EQ(a.code(1), std::errc::no_such_file_or_directory);
  EXPECT_EQ(a.value(2), 30);
}

TEST(AsioBulk, FailsOnlyWhatItsLoaderHasNotSettled) {
  flight_group flights;
  asio::io_context io;
  answers a;
  async_call_many(
      flights, io, {1, 2, 3},
      [](auto& missing) {
        missing.set(1, 10);
        missing.fail(2, std::make_exception_ptr(std::logic_error("bad key")));
        throw std::runtime_error("connection reset");
      },
      into(a));
  io.run();
  EXPECT_EQ(a.error, nullptr);
  EXPECT_EQ(a.value(0), 10);
  EXPECT_EQ(support::text_of(a.rows[1].error()), "bad key");
  EXPECT_EQ(support::text_of(a.rows[2].error()), "connection reset");
  EXPECT_EQ(flights.stats().failed, 2U);
  support::expect_idle(flights);
}

struct failing_hash {
  std::size_t operator()(int key) const {
    if (key < 0) throw std::runtime_error("no hash");
    return static_cast<std::size_t>(key);
  }
};

TEST(AsioBulk, FailureToReadTheKeysIsGivenToTheHandler) {
  singleflight::group<int, int, failing_hash> flights;
  asio::io_context io;
  asio::cancellation_signal signal;
  answers a;
  async_call_many(flights, io, {1, -1}, {.call = {.deadline = clock_type::now() + 1h}}, not_needed,
                  asio::bind_cancellation_slot(signal.slot(), into(a)));
  signal.emit(asio::cancellation_type::total);
  EXPECT_EQ(a.calls, 0);
  io.run();
  EXPECT_EQ(a.calls, 1);
  EXPECT_EQ(support::text_of(a.error), "no hash");
  EXPECT_TRUE(a.rows.empty());
  EXPECT_EQ(flights.stats().led, 0U);
}

TEST(AsioBulk, FailureToReadTheKeysIsToldRatherThanThatItIsTooLate) {
  singleflight::group<int, int, failing_hash> flights;
  asio::io_context io;
  answers a;
  async_call_many(flights, io, {1, -1}, {.call = {.deadline = clock_type::now()}}, not_needed,
                  into(a));
  io.run();
  EXPECT_EQ(support::text_of(a.error), "no hash");
}

TEST(AsioBulk, FailureToReadTheKeysOutlivesTheIoContext) {
  singleflight::group<int, int, failing_hash> flights;
  asio::io_context handlers;
  answers a;
  {
    asio::io_context io;
    async_call_many(flights, io, {1, -1}, not_needed, asio::bind_executor(handlers, into(a)));
  }
  handlers.run();
  EXPECT_EQ(support::text_of(a.error), "no hash");
}

TEST(AsioBulk, FailureToReadTheKeysGoesWithTheContext) {
  singleflight::group<int, int, failing_hash> flights;
  auto held = std::make_shared<int>(0);
  const std::weak_ptr<int> lives = held;
  {
    asio::io_context io;
    async_call_many(flights, io, {1, -1}, not_needed,
                    [held](const std::exception_ptr&, const auto&) { FAIL() << "called"; });
    held.reset();
    EXPECT_FALSE(lives.expired());
  }
  EXPECT_TRUE(lives.expired());
}

TEST(AsioBulk, FailureToConnectItsSlotIsGivenToTheHandler) {
  flight_group flights;
  asio::io_context io;
  answers a;
  async_call_many(flights, io, {1, 2}, not_needed,
                  asio::bind_cancellation_slot(refusing_slot(), into(a)));
  EXPECT_EQ(a.calls, 0);
  io.run();
  EXPECT_EQ(support::text_of(a.error), "no slot");
  EXPECT_EQ(flights.stats().led, 0U);
}

TEST(AsioBulk, LoadsNoMoreKeysAtOnceThanItIsAllowed) {
  flight_group flights;
  asio::io_context io;
  answers a;
  std::vector<keys> seen;
  async_call_many(
      flights, io, {1, 2, 3, 4, 5}, {.max_batch = 2},
      [&](auto& missing) {
        seen.emplace_back(missing.begin(), missing.end());
        EXPECT_EQ(flights.stats().in_flight, missing.size());
        tenfold(missing);
      },
      into(a));
  io.run();
  EXPECT_EQ(seen, (std::vector<keys>{{1, 2}, {3, 4}, {5}}));
  EXPECT_EQ(a.value(0), 10);
  EXPECT_EQ(a.value(4), 50);
  EXPECT_EQ(flights.stats().batches, 3U);
  EXPECT_THROW(async_call_many(flights, io, {1}, {.max_batch = 0}, tenfold, into(a)),
               std::invalid_argument);
  EXPECT_THROW(async_call_many(flights, io, {1}, {.call = {.attempts = 0}}, tenfold, into(a)),
               std::invalid_argument);
}

TEST(AsioBulk, GroupOfVoid) {
  singleflight::group<std::string, void> flights;
  asio::io_context io;
  int calls = 0;
  async_call_many(
      flights, io, {"a", "b", "a"}, [](auto& missing) { missing.set("a"); },
      [&](const std::exception_ptr&, const auto& rows) {
        ++calls;
        EXPECT_TRUE(rows.at(0).has_value());
        EXPECT_FALSE(rows.at(1).has_value());
        EXPECT_TRUE(rows.at(2).has_value());
      });
  io.run();
  EXPECT_EQ(calls, 1);
}

TEST(AsioBulk, PassesOnValuesThatCannotBeCopied) {
  singleflight::group<int, std::unique_ptr<int>> flights;
  asio::io_context io;
  int calls = 0;
  async_call_many(
      flights, io, {1, 2, 1},
      [](auto& missing) {
        for (std::size_t i = 0; i < missing.size(); ++i) {
          missing.set_at(i, std::make_unique<int>(missing[i]));
        }
      },
      [&](const std::exception_ptr&, auto rows) {
        ++calls;
        EXPECT_EQ(*rows.at(1).value(), 2);
        EXPECT_EQ(rows.at(0).value(), rows.at(2).value());
      });
  io.run();
  EXPECT_EQ(calls, 1);
}

TEST(AsioBulk, FutureGetsTheOutcomes) {
  flight_group flights;
  running_context thread(1);
  const auto rows = async_call_many(flights, thread.io, {1, 2}, tenfold, asio::use_future).get();
  EXPECT_EQ(rows.at(1).value(), 20);
}

TEST(AsioBulk, DeferredOperationHasCopiesAndDoesNothingUntilItIsInitiated) {
  flight_group flights;
  asio::io_context io;
  answers a;
  {
    auto operation = [&] {
      const std::vector<short> own{1, 2, 1};  // converted to the group's key
      return async_call_many(flights, io.get_executor(), own, {.max_batch = 2}, tenfold, deferred);
    }();
    io.run();
    EXPECT_EQ(flights.stats().led, 0U);
    std::move(operation)(into(a));
  }
  io.restart();
  io.run();
  EXPECT_EQ(a.value(2), 10);
  EXPECT_EQ(flights.stats().led, 2U);
}

// --- Where they run --------------------------------------------------------------------------------

TEST(AsioBulk, LoaderRunsOnTheIoExecutorAndTheHandlerOnItsOwn) {
  flight_group flights;
  asio::io_context io;
  asio::thread_pool pool(1);
  const auto here = std::this_thread::get_id();
  std::thread::id loaded_by;
  answers a;
  async_call_many(
      flights, pool, {1, 2},
      [&](auto& missing) {
        loaded_by = std::this_thread::get_id();
        tenfold(missing);
      },
      asio::bind_executor(io, [&](std::exception_ptr e, auto rows) {
        EXPECT_EQ(std::this_thread::get_id(), here);
        into(a)(std::move(e), std::move(rows));
      }));
  io.run();  // returns when the operation, which is work, is done
  EXPECT_EQ(a.value(1), 20);
  EXPECT_NE(loaded_by, here);
  EXPECT_NE(loaded_by, std::thread::id());
  pool.join();
}

TEST(AsioBulk, HandlerRunsOnItsStrandForWhateverReason) {
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
  auto leader = lead(flights, 1);
  const auto ask = [&](const asio_bulk_options& options, const keys& ids) {
    async_call_many(flights, threads.io, ids, options, tenfold, token());
  };
  ask({}, {2, 3});
  ask({}, {1, 2});
  ask({.call = {.deadline = clock_type::now()}}, {1, 2});
#if defined(__cpp_lib_jthread)
  ask({.call = {.deadline = clock_type::now() + 1ms}}, {1, 2});
#else
  ++calls;
#endif
  support::await([&] { return calls >= 2; }, "those that do not wait for the leader");
  std::move(leader).set_value(1);
  support::await([&] { return calls == 4; }, "all");
}

TEST(AsioBulk, RunsOnExecutorsThatHaveNoContext) {
  flight_group flights;
  support::task_queue queue;
  asio::io_context io;
  answers loaded;
  answers told;
  async_call_many(flights, foreign_executor{&queue}, {1, 2}, tenfold,
                  asio::bind_executor(io, into(loaded)));
  async_call_many(flights, io, {1, 2}, not_needed,
                  asio::bind_executor(foreign_executor{&queue}, into(told)));
  queue.run();  // the loader
  queue.run();
  io.run();
  EXPECT_EQ(loaded.value(1), 20);
  EXPECT_EQ(told.value(0), 10);
}

TEST(AsioBulk, IsWorkOfBothExecutors) {
  flight_group flights;
  asio::io_context io;
  asio::io_context handlers;
  answers a;
  auto leader = lead(flights, 1);
  async_call_many(flights, io, {1}, not_needed, asio::bind_executor(handlers, into(a)));
  io.poll();
  handlers.poll();
  EXPECT_FALSE(io.stopped());
  EXPECT_FALSE(handlers.stopped());
  std::move(leader).set_value(1);
  handlers.run();
  EXPECT_EQ(a.value(0), 1);
  io.poll();
  EXPECT_TRUE(io.stopped());
}

TEST(AsioBulk, MemoryOfTheOperationComesFromItsAllocatorAndIsFreeWhenTheHandlerRuns) {
  int live = 0;
  flight_group flights;
  asio::io_context io;
  asio::cancellation_signal signal;
  int calls = 0;
  const auto token = [&] {
    return asio::bind_cancellation_slot(
        signal.slot(), asio::bind_allocator(counting_allocator<char>(live),
                                            [&](const std::exception_ptr&, const auto&) {
                                              EXPECT_EQ(live, 0);
                                              ++calls;
                                            }));
  };
  for (const auto& options :
       {asio_bulk_options(), asio_bulk_options{.call = {.deadline = clock_type::now() + 1h}}}) {
    const auto one = [&](const auto& load, const auto& end) {
      async_call_many(flights, io, {1, 2}, options, load, token());
      EXPECT_GT(live, 0);
      end();
      io.restart();
      io.run();
    };
    one(tenfold, [] {});
    auto leader = lead(flights, 1);
    one(tenfold, [&] { std::move(leader).set_value(1); });
#if defined(__cpp_lib_jthread)
    const auto other = lead(flights, 1);
    one(tenfold, [&] { signal.emit(asio::cancellation_type::partial); });
#else
    ++calls;
#endif
  }
  EXPECT_EQ(calls, 6);
  EXPECT_EQ(live, 0);
}

#if defined(SINGLEFLIGHT_TESTS_BOOST_ASIO)

TEST(AsioBulk, TypeErasedHandler) {
  flight_group flights;
  asio::io_context io;
  asio::io_context handlers;
  using handler = asio::any_completion_handler<void(std::exception_ptr, std::vector<outcome<int>>)>;
  answers a;
  async_call_many(flights, io, {1}, tenfold, handler(asio::bind_executor(handlers, into(a))));
  run_until(
      io,
      [&] {
        handlers.restart();
        handlers.poll();
        return a.calls == 1;
      },
      "the handler");
  EXPECT_EQ(a.value(0), 10);
}

#endif

// --- Sharing ---------------------------------------------------------------------------------------

TEST(AsioBulk, JoinsTheCallsOfAllKindsAndIsJoined) {
  flight_group flights;
  asio::io_context io;
  answers one;
  answers two;
  answer single;
  auto first = lead(flights, 1);
  async_call_many(flights, io, {1, 2}, tenfold, into(one));
  async_call_many(flights, io, {2, 3}, tenfold, into(two));  // crosses the first
  async_call(flights, io, 3, must_not_load, into(single));
  EXPECT_EQ(flights.stats().led, 3U);
  EXPECT_EQ(flights.stats().joined, 3U);
  support::threads thread;
  thread.start([&] {
    const auto got = flights.do_many({1, 2, 3, 4}, tenfold);
    EXPECT_EQ(got[0].value(), 7);
    EXPECT_EQ(got[1].value(), 20);
    EXPECT_EQ(got[3].value(), 40);
  });
  support::await([&] { return flights.stats().joined == 6; }, "the thread");
  thread.start([&] { EXPECT_EQ(*flights.do_call(2, must_not_load), 20); });
  support::await([&] { return flights.stats().joined == 7; }, "another thread");
  io.poll();
  EXPECT_EQ(two.value(0), 20);
  EXPECT_EQ(two.value(1), 30);
  EXPECT_EQ(single.value, 30);
  EXPECT_EQ(one.calls, 0);
  std::move(first).set_value(7);
  thread.join();
  io.run();
  EXPECT_EQ(one.value(0), 7);
  EXPECT_EQ(one.value(1), 20);
  EXPECT_EQ(flights.stats().led, 4U);
  support::expect_idle(flights);
}

TEST(AsioBulk, JoinsAThreadsBulk) {
  flight_group flights;
  asio::io_context io;
  answers a;
  const auto got = flights.do_many({1, 2}, [&](auto& missing) {
    async_call_many(flights, io, {2, 1}, not_needed, into(a));
    tenfold(missing);
  });
  io.run();
  EXPECT_EQ(&a.rows.at(0).value(), &got[1].value());
  EXPECT_EQ(a.value(1), 10);
}

TEST(AsioBulk, LoadsAKeyAgainWhoseCallFailed) {
  flight_group flights;
  asio::io_context io;
  answers a;
  std::vector<keys> seen;
  auto other = lead(flights, 2);
  async_call_many(
      flights, io, {1, 2}, {.call = {.attempts = 2}},
      [&](auto& missing) {
        EXPECT_TRUE(io.get_executor().running_in_this_thread());
        seen.emplace_back(missing.begin(), missing.end());
        tenfold(missing);
      },
      into(a));
  io.poll();
  fail(std::move(other), "first");
  io.run();
  EXPECT_EQ(a.value(0), 10);
  EXPECT_EQ(a.value(1), 20);
  EXPECT_EQ(seen, (std::vector<keys>{{1}, {2}}));
}

TEST(AsioBulk, RefusesALoaderThatWaitsForItsOwnKeys) {
  flight_group flights;
  asio::thread_pool pool(1);
  std::promise<std::error_code> refused;
  async_call_many(
      flights, pool, {1, 2},
      [&](auto& missing) {
        refused.set_value(support::call_error_of(
            support::thrown_by([&] { (void)flights.do_call(2, must_not_load); })));
        tenfold(missing);
      },
      [](const std::exception_ptr&, const auto& rows) { EXPECT_TRUE(rows.at(1).has_value()); });
  EXPECT_EQ(refused.get_future().get(), std::errc::resource_deadlock_would_occur);
  pool.join();
}

TEST(AsioBulk, DoesNotHangWhereSetsCross) {
  flight_group flights;
  running_context threads(2);
  std::atomic<int> done = 0;
  for (int i = 0; i < rounds; ++i) {
    asio::post(threads.io, [&, i] {
      const keys ids{i % 3, (i + 1) % 3, (i + 2) % 3};
      async_call_many(flights, threads.io, ids, {.max_batch = static_cast<std::size_t>(i % 3 + 1)},
                      tenfold, [&, i](const std::exception_ptr&, const auto& rows) {
                        EXPECT_EQ(rows.at(0).value(), 10 * (i % 3));
                        EXPECT_EQ(rows.at(2).value(), 10 * ((i + 2) % 3));
                        ++done;
                      });
    });
  }
  support::await([&] { return done == rounds; }, "all callers");
  support::expect_idle(flights);
}

// --- Leaving ---------------------------------------------------------------------------------------

#if defined(__cpp_lib_jthread)

TEST(AsioBulkLeaving, EachTypeOfCancellationKeepsWhatIsAnswered) {
  for (const auto type : {asio::cancellation_type::terminal, asio::cancellation_type::partial,
                          asio::cancellation_type::total}) {
    flight_group flights;
    asio::io_context io;
    asio::cancellation_signal signal;
    answers leaves;
    answers stays;
    auto leader = lead(flights, 1);
    async_call_many(flights, io, {1, 2}, tenfold,
                    asio::bind_cancellation_slot(signal.slot(), [&](std::exception_ptr e, auto r) {
                      EXPECT_FALSE(signal.slot().has_handler());
                      into(leaves)(std::move(e), std::move(r));
                    }));
    async_call_many(flights, io, {1}, not_needed, into(stays));
    io.poll();
    signal.emit(asio::cancellation_type::none);
    EXPECT_EQ(flights.stats().waiting, 2U);
    signal.emit(type);
    EXPECT_EQ(leaves.calls, 0);  // not inside emit
    EXPECT_EQ(flights.stats().waiting, 1U);
    io.poll();
    EXPECT_EQ(leaves.code(0), std::errc::operation_canceled);
    EXPECT_EQ(leaves.value(1), 20);
    EXPECT_EQ(stays.calls, 0);
    signal.emit(type);
    std::move(leader).set_value(1);
    io.run();
    EXPECT_EQ(leaves.calls, 1);
    EXPECT_EQ(stays.value(0), 1);
    EXPECT_EQ(flights.stats().cancelled, 1U);
  }
}

TEST(AsioBulkLeaving, CancellationAfterTheLastAnswerChangesNothing) {
  flight_group flights;
  asio::io_context io;
  asio::cancellation_signal signal;
  answers a;
  auto leader = lead(flights, 1);
  async_call_many(flights, io, {1}, not_needed,
                  asio::bind_cancellation_slot(signal.slot(), into(a)));
  EXPECT_TRUE(signal.slot().has_handler());
  std::move(leader).set_value(3);
  signal.emit(asio::cancellation_type::total);
  io.run();
  EXPECT_EQ(a.calls, 1);
  EXPECT_EQ(a.value(0), 3);
}

TEST(AsioBulkLeaving, CancellationRacesWithTheEnd) {
  running_context handlers(1);
  for (int i = 0; i < rounds; ++i) {
    flight_group flights;
    asio::cancellation_signal signal;
    std::promise<answers> done;
    auto leader = lead(flights, 1);
    asio::post(handlers.io, [&] {
      async_call_many(
          flights, handlers.io, {1, 2}, tenfold,
          asio::bind_cancellation_slot(signal.slot(), [&](std::exception_ptr e, auto rows) {
            answers a;
            into(a)(std::move(e), std::move(rows));
            done.set_value(std::move(a));
          }));
    });
    support::await_followers(flights, 1);
    asio::post(handlers.io, [&] { signal.emit(asio::cancellation_type::terminal); });
    std::move(leader).set_value(5);
    const answers a = done.get_future().get();
    EXPECT_EQ(a.value(1), 20);
    if (a.rows[0].has_value()) {
      EXPECT_EQ(a.value(0), 5);
    } else {
      EXPECT_EQ(a.code(0), std::errc::operation_canceled);
    }
    std::promise<void> emitted;  // the signal must live until it is emitted
    asio::post(handlers.io, [&] { emitted.set_value(); });
    emitted.get_future().get();
    support::expect_idle(flights);
  }
}

TEST(AsioBulkLeaving, AtItsDeadlineKeepsWhatIsAnswered) {
  flight_group flights;
  asio::io_context io;
  answers leaves;
  answers stays;
  auto leader = lead(flights, 1);
  async_call_many(flights, io, {1, 2, 1}, {.call = {.deadline = clock_type::now() + 5ms}}, tenfold,
                  into(leaves));
  async_call_many(flights, io, {1}, {.call = {.deadline = clock_type::now() + 1h}}, not_needed,
                  into(stays));
  run_until(
      io, [&] { return leaves.calls == 1; }, "the deadline");
  EXPECT_EQ(leaves.error, nullptr);
  EXPECT_EQ(leaves.code(0), std::errc::timed_out);
  EXPECT_EQ(leaves.value(1), 20);
  EXPECT_EQ(leaves.code(2), std::errc::timed_out);
  EXPECT_EQ(stays.calls, 0);
  std::move(leader).set_value(2);
  io.restart();
  io.run();  // returns: the timer of the one that stayed is cancelled
  EXPECT_EQ(stays.value(0), 2);
  EXPECT_EQ(flights.stats().timed_out, 1U);
  EXPECT_EQ(flights.stats().cancelled, 0U);
}

TEST(AsioBulkLeaving, DeadlineThatHasPassedEntersNothing) {
  for (const auto deadline : {clock_type::now(), clock_type::time_point::min()}) {
    flight_group flights;
    asio::io_context io;
    answers a;
    async_call_many(flights, io, {1, 2}, {.call = {.deadline = deadline}, .max_batch = 1},
                    not_needed, into(a));
    io.run();
    EXPECT_EQ(a.code(0), std::errc::timed_out);
    EXPECT_EQ(a.code(1), std::errc::timed_out);
    EXPECT_EQ(flights.stats().led, 0U);
    EXPECT_EQ(flights.stats().rejected, 2U);
    EXPECT_EQ(flights.stats().timed_out, 2U);
  }
}

TEST(AsioBulkLeaving, ForItsStopRequestAsksForNoMoreKeys) {
  flight_group flights;
  asio::io_context io;
  std::stop_source stop;
  answers a;
  auto leader = lead(flights, 1);
  async_call_many(flights, io, {1, 2, 3}, {.call = {.stop = stop.get_token()}, .max_batch = 1},
                  not_needed, into(a));
  stop.request_stop();
  io.run();
  EXPECT_EQ(a.code(0), std::errc::operation_canceled);
  EXPECT_EQ(a.code(2), std::errc::operation_canceled);
  EXPECT_EQ(flights.stats().led, 2U);
  std::move(leader).set_value(1);
}

TEST(AsioBulkLeaving, LoadThatNobodyWaitsForAnyMoreDoesNotBegin) {
  flight_group flights;
  asio::io_context io;
  asio::io_context loads;
  std::stop_source stop;
  answers a;
  async_call_many(flights, loads, {1, 2}, {.call = {.stop = stop.get_token()}}, not_needed,
                  asio::bind_executor(io, into(a)));
  EXPECT_EQ(flights.stats().led, 2U);
  stop.request_stop();
  loads.poll();
  io.run();
  EXPECT_EQ(a.code(1), std::errc::operation_canceled);
  EXPECT_EQ(flights.stats().batches, 0U);
  support::expect_idle(flights);
}

TEST(AsioBulkLeaving, LoadBeginsOfWhichAnyKeyIsStillWaitedFor) {
  flight_group flights;
  asio::io_context io;
  asio::io_context loads;
  std::stop_source stop;
  answers leaves;
  answer stays;
  async_call_many(flights, loads, {1, 2}, {.call = {.stop = stop.get_token()}}, tenfold,
                  asio::bind_executor(io, into(leaves)));
  async_call(flights, loads, 2, must_not_load, asio::bind_executor(io, into(stays)));
  stop.request_stop();
  loads.poll();
  io.run();
  EXPECT_EQ(leaves.code(1), std::errc::operation_canceled);
  EXPECT_EQ(stays.value, 20);
  EXPECT_EQ(flights.stats().batches, 1U);
  support::expect_idle(flights);
}

#endif

TEST(AsioBulkLeaving, DestroyedContextDestroysHandlersAndLoadersAndTheirCallersLeave) {
  flight_group flights;
  auto held = std::make_shared<int>(0);
  const std::weak_ptr<int> lives = held;
  int live = 0;
  asio::cancellation_signal signal;
  auto leader = lead(flights, 1);
  {
    asio::io_context io;
    async_call_many(
        flights, io, {1, 2}, {.call = {.deadline = clock_type::now() + 1h}},
        [held](auto&) { FAIL() << "the loader ran"; },
        asio::bind_cancellation_slot(
            signal.slot(), asio::bind_allocator(counting_allocator<char>(live),
                                                [held](const std::exception_ptr&, const auto&) {
                                                  FAIL() << "called";
                                                })));
    held.reset();
    EXPECT_EQ(flights.stats().waiting, 2U);
  }
  EXPECT_TRUE(lives.expired());
#if defined(__cpp_lib_jthread)
  EXPECT_EQ(flights.stats().waiting, 0U);
  EXPECT_EQ(flights.stats().in_flight, 1U);
#endif
  signal.emit(asio::cancellation_type::total);
  signal.slot().clear();
  EXPECT_EQ(live, 0) << "the operation";
  std::move(leader).set_value(1);
  support::expect_idle(flights);
}

TEST(AsioBulkLeaving, ContextDestroyedWithACompletionInItsQueue) {
  flight_group flights;
  auto held = std::make_shared<int>(0);
  const std::weak_ptr<int> lives = held;
  asio::cancellation_signal signal;
  auto io = std::make_unique<asio::io_context>();
  auto leader = lead(flights, 1);
  async_call_many(
      flights, *io, {1}, not_needed,
      asio::bind_cancellation_slot(
          signal.slot(), [held](const std::exception_ptr&, const auto&) { FAIL() << "called"; }));
  held.reset();
  std::move(leader).set_value(1);
  EXPECT_FALSE(lives.expired());
  io.reset();
  EXPECT_TRUE(lives.expired());
}

TEST(AsioBulkLeaving, OneDestroyedContextOfTwoDestroysHandlersAndLoaders) {
  for (const bool io_goes : {true, false}) {
    flight_group flights;
    asio::cancellation_signal signal;
    std::optional<asio::io_context> handlers(std::in_place);
    std::optional<asio::io_context> io(std::in_place);
    auto held = std::make_shared<int>(0);
    const std::weak_ptr<int> lives = held;
    auto leader = lead(flights, 1);
    async_call_many(
        flights, *io, {1}, {.call = {.deadline = clock_type::now() + 1h}},
        [held](auto&) { FAIL() << "the loader ran"; },
        asio::bind_executor(
            *handlers, asio::bind_cancellation_slot(signal.slot(),
                                                    [held](const std::exception_ptr&, const auto&) {
                                                      FAIL() << "called";
                                                    })));
    held.reset();
    (io_goes ? io : handlers).reset();
    EXPECT_TRUE(lives.expired());
    (io_goes ? handlers : io)->run();  // it has no work any more
    fail(std::move(leader), "too late");
    support::expect_idle(flights);
  }
}

TEST(AsioBulkLeaving, HandlerOfAnsweredKeysOutlivesTheIoContext) {
  flight_group flights;
  asio::io_context handlers;
  answers a;
  auto held = std::make_shared<int>(0);
  const std::weak_ptr<int> loader_lives = held;
  {
    auto leader = lead(flights, 1);
    asio::io_context io;
    async_call_many(
        flights, own_executor{&io, held}, {1}, [held](auto&) { FAIL() << "the loader ran"; },
        asio::bind_executor(handlers, into(a)));
    held.reset();
    std::move(leader).set_value(1);
  }
  EXPECT_TRUE(loader_lives.expired());
  handlers.run();
  EXPECT_EQ(a.value(0), 1);
}

TEST(AsioBulkLeaving, HandlerRunsWhileTheIoContextIsDestroyed) {
  flight_group flights;
  asio::io_context handlers;
  auto io = std::make_unique<asio::io_context>();
  std::atomic<bool> destroyed = false;
  std::atomic<bool> ran = false;
  answers a;
  auto leader = lead(flights, 1);
  auto wait = at_end([&] {
    destroyed = true;
    support::await([&] { return ran.load(); }, "the handler");
  });
  async_call_many(
      flights, *io, {1}, [wait](auto&) { FAIL() << "the loader ran"; },
      asio::bind_executor(handlers, into(a)));
  wait.reset();
  std::move(leader).set_value(1);
  support::threads destroyer;
  destroyer.start([&] { io.reset(); });
  support::await([&] { return destroyed.load(); }, "the loader to be destroyed");
  handlers.run();  // returns: it has no work any more
  EXPECT_EQ(a.value(0), 1);
  ran = true;
}

TEST(AsioBulkLeaving, LoaderIsGoneWhenTheHandlerRuns) {
  flight_group flights;
  asio::io_context io;
  asio::io_context handlers;
  std::atomic<bool> ran = false;
  auto held = std::make_shared<int>(0);
  const std::weak_ptr<int> loader_lives = held;
  auto leader = lead(flights, 1);
  const std::function<void()> wait = [&] {
    support::await([&] { return ran.load(); }, "the handler");
  };
  int calls = 0;
  async_call_many(
      flights, io, {1}, [held](auto&) { FAIL() << "the loader ran"; },
      asio::bind_executor(own_executor{&handlers, {}, nullptr, &wait},
                          [&](const std::exception_ptr&, const auto&) {
                            EXPECT_TRUE(loader_lives.expired());
                            ++calls;
                          }));
  held.reset();
  support::threads ender;
  ender.start([&] { std::move(leader).set_value(1); });
  run_until(
      handlers, [&] { return calls == 1; }, "the handler");
  ran = true;
}

TEST(AsioBulkLeaving, KeyWhoseCallFailsWhileTheLoaderIsDestroyedIsNotLoaded) {
  flight_group flights;
  auto leader = lead(flights, 1);
  {
    asio::io_context io;
    auto at_the_end = at_end([&] { fail(std::move(leader), "first"); });
    async_call_many(
        flights, io, {1}, {.call = {.attempts = 2}},
        [at_the_end](auto&) { FAIL() << "the loader ran"; }, not_called);
    at_the_end.reset();
  }
  EXPECT_EQ(flights.stats().failed, 2U);
  support::expect_idle(flights);
}

TEST(AsioBulkLeaving, KeyWhoseCallFailsWhileTheContextIsDestroyedIsNotLoaded) {
  flight_group flights;
  auto leader = lead(flights, 1);
  const auto other = lead(flights, 2);
  {
    asio::io_context io;
    async_call_many(flights, io, {1}, {.call = {.attempts = 2}}, not_needed, not_called);
    auto end = at_end([&] { fail(std::move(leader), "first"); });
    async_call(flights, io, 2, must_not_load,
               [end](const std::exception_ptr&, const auto&) { FAIL() << "called"; });
    end.reset();
  }
  EXPECT_EQ(flights.stats().failed, 2U);
  EXPECT_EQ(flights.stats().batches, 0U);
  EXPECT_EQ(flights.stats().waiting, 0U);
}

TEST(AsioBulkLeaving, DestroyedContextWaitsForAThreadThatGivesItALoad) {
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
  auto leader = lead(flights, 1);
  async_call_many(flights, own_executor{io.get(), {}, &post_late}, {1}, {.call = {.attempts = 2}},
                  not_needed, asio::bind_executor(*io, not_called));
  support::threads ender;
  ender.start([&] { fail(std::move(leader), "first"); });
  support::await([&] { return posts.load(); }, "the thread to give it the load");
  io.reset();
  EXPECT_TRUE(has_closed);
  ender.join();
  EXPECT_EQ(flights.stats().waiting, 0U);
}

/// A key that is tried again begins a batch on the thread that has ended its call.
TEST(AsioBulkLeaving, CallsFailWhileTheContextOfTheirCallersIsDestroyed) {
  for (int i = 0; i < rounds / 2; ++i) {
    flight_group flights;
    auto leader = lead(flights, 1);
    auto io = std::make_unique<asio::io_context>();
    for (int n = 0; n < 4; ++n) {
      async_call_many(flights, asio::make_strand(*io), {1, 2}, {.call = {.attempts = 2}}, tenfold,
                      not_called);
    }
    support::threads ender;
    std::atomic<bool> go = false;
    ender.start([&] {
      go = true;
      fail(std::move(leader), "first");
    });
    while (!go) {
    }
    io.reset();
    ender.join();
    support::expect_idle(flights);
  }
}

// --- Executors that throw --------------------------------------------------------------------------

TEST(AsioBulk, OfAnIoExecutorThatThrowsGivesThatForEachKey) {
  flight_group flights;
  asio::io_context io;
  answers a;
  async_call_many(flights, own_executor{&io, {}, &throw_that_it_is_full}, {1, 2}, not_needed,
                  asio::bind_executor(io, into(a)));
  io.run();
  EXPECT_EQ(a.error, nullptr);
  EXPECT_EQ(support::text_of(a.rows.at(0).error()), "the queue is full");
  support::expect_same(a.rows.at(0).error(), a.rows.at(1).error());
  support::expect_idle(flights);
}

TEST(AsioBulk, OfAHandlersExecutorThatThrowsDestroysTheHandler) {
  flight_group flights;
  asio::io_context io;
  auto held = std::make_shared<int>(0);
  const std::weak_ptr<int> lives = held;
  async_call_many(
      flights, io, {1}, tenfold,
      asio::bind_executor(own_executor{&io, {}, &throw_that_it_is_full},
                          [held](const std::exception_ptr&, const auto&) { FAIL() << "called"; }));
  held.reset();
  io.run();
  EXPECT_TRUE(lives.expired());
  support::expect_idle(flights);
}

// --- Loaders that are suspended --------------------------------------------------------------------

#if defined(SINGLEFLIGHT_TESTS_ASIO_COROUTINES)

TEST(AsioBulkCoroutine, AwaitsWhatItsLoaderReturns) {
  flight_group flights;
  running_context threads(2);
  std::atomic<int> loads = 0;
  std::atomic<int> done = 0;
  const auto load = [&](batch& missing) -> asio::awaitable<void> {
    ++loads;
    asio::steady_timer timer(co_await asio::this_coro::executor);
    while (flights.stats().waiting < 200) {
      timer.expires_after(1ms);
      co_await timer.async_wait(asio::use_awaitable);
    }
    tenfold(missing);
  };
  for (int i = 0; i < 100; ++i) {
    asio::co_spawn(
        threads.io,
        [&]() -> asio::awaitable<void> {
          const keys ids{1, 2};
          const auto rows =
              co_await async_call_many(flights, threads.io, ids, load, asio::use_awaitable);
          EXPECT_EQ(rows.at(0).value(), 10);
          EXPECT_EQ(rows.at(1).value(), 20);
          ++done;
        },
        asio::detached);
  }
  support::await([&] { return done == 100; }, "the coroutines");
  EXPECT_LE(loads, 2);  // two callers may each begin one key
  EXPECT_EQ(flights.stats().led, 2U);
  EXPECT_EQ(flights.stats().joined, 198U);
  EXPECT_EQ(flights.stats().batches, static_cast<std::uint64_t>(loads));
  support::expect_idle(flights);
}

TEST(AsioBulkCoroutine, SettlesTheRangeThatTheAwaitableGives) {
  flight_group flights;
  singleflight::group<int, std::unique_ptr<int>> pointers;
  asio::io_context io;
  answers a;
  int calls = 0;
  async_call_many(
      flights, io, {1, 2},
      [](batch& missing, const call_context&) -> asio::awaitable<pairs, executor_type> {
        co_return pairs{{missing[1], 20}};
      },
      into(a));
  async_call_many(
      pointers, io, {1},
      [](auto&) -> asio::awaitable<std::vector<std::pair<int, std::unique_ptr<int>>>> {
        std::vector<std::pair<int, std::unique_ptr<int>>> found;
        found.emplace_back(1, std::make_unique<int>(3));
        co_return found;
      },
      [&](const std::exception_ptr&, const auto& rows) {
        EXPECT_EQ(*rows.at(0).value(), 3);
        ++calls;
      });
  io.run();
  EXPECT_EQ(a.code(0), std::errc::no_such_file_or_directory);
  EXPECT_EQ(a.value(1), 20);
  EXPECT_EQ(calls, 1);
}

TEST(AsioBulkCoroutine, FailsOnlyWhatTheAwaitableHasNotSettled) {
  flight_group flights;
  asio::io_context io;
  answers a;
  async_call_many(
      flights, io, {1, 2},
      [](batch& missing) -> asio::awaitable<void> {
        missing.set(1, 10);
        co_await asio::post(co_await asio::this_coro::executor, asio::use_awaitable);
        throw std::runtime_error("connection reset");
      },
      into(a));
  io.run();
  EXPECT_EQ(a.value(0), 10);
  EXPECT_EQ(support::text_of(a.rows.at(1).error()), "connection reset");
  support::expect_idle(flights);
}

TEST(AsioBulkCoroutine, CircleIsRefusedWhereTheContextIsPassedOn) {
  flight_group flights;
  asio::io_context io;
  answers inner;
  answers outer;
  async_call_many(
      flights, io, {1, 2},
      [&](batch& missing, const call_context& here) -> asio::awaitable<void> {
        const keys ids{2, 3};
        inner.rows = co_await async_call_many(flights, io, ids, {.call = {.inside = &here}},
                                              tenfold, asio::use_awaitable);
        tenfold(missing);
      },
      into(outer));
  io.run();
  EXPECT_EQ(inner.code(0), std::errc::resource_deadlock_would_occur);
  EXPECT_EQ(inner.value(1), 30);
  EXPECT_EQ(outer.value(1), 20);
}

#if defined(__cpp_lib_jthread)

/// Waits without end, and notes that it was cancelled.
asio::awaitable<void> hang(int& begun, int& cancelled) {
  ++begun;
  asio::steady_timer timer(co_await asio::this_coro::executor, clock_type::time_point::max());
  try {
    co_await timer.async_wait(asio::use_awaitable);
  } catch (const system_error& e) {
    if (e.code() == asio::error::operation_aborted) ++cancelled;
    throw;
  }
}

TEST(AsioBulkCoroutine, IsCancelledWhenNobodyWaitsForAnyOfItsOpenKeys) {
  flight_group flights;
  asio::io_context io;
  asio::cancellation_signal signal;
  int begun = 0;
  int cancelled = 0;
  answers a;
  answer single;
  batch* open = nullptr;
  async_call_many(
      flights, io, {1, 2, 3},
      [&](batch& missing) {
        open = &missing;
        return hang(begun, cancelled);
      },
      asio::bind_cancellation_slot(signal.slot(), into(a)));
  async_call(flights, io, 2, must_not_load, into(single));
  io.poll();
  ASSERT_EQ(begun, 1);
  open->set(1, 10);
  signal.emit(asio::cancellation_type::terminal);
  io.poll();
  EXPECT_EQ(a.value(0), 10);
  EXPECT_EQ(a.code(1), std::errc::operation_canceled);
  EXPECT_EQ(cancelled, 0) << "another wants key 2";
  open->set(2, 20);
  io.restart();
  io.run();
  EXPECT_EQ(cancelled, 1) << "nobody wants key 3";
  EXPECT_EQ(single.value, 20);
  support::expect_idle(flights);
}

TEST(AsioBulkCoroutine, ThatNobodyWaitsForAnyMoreDoesNotBegin) {
  flight_group flights;
  asio::io_context io;
  asio::io_context loads;
  std::stop_source stop;
  int begun = 0;
  int cancelled = 0;
  answers a;
  async_call_many(
      flights, loads, {1, 2}, {.call = {.stop = stop.get_token()}},
      [&](batch&) { return hang(begun, cancelled); }, asio::bind_executor(io, into(a)));
  stop.request_stop();
  loads.poll();
  io.run();
  EXPECT_EQ(a.code(1), std::errc::operation_canceled);
  EXPECT_EQ(begun, 0);
  EXPECT_EQ(flights.stats().batches, 0U);
  support::expect_idle(flights);
}

TEST(AsioBulkCoroutine, FramesGoWithTheContext) {
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
            const auto load = [&, held](batch&) { return hang(begun, cancelled); };
            const keys ids{1, 2};
            const asio_bulk_options options{.call = {.deadline = clock_type::now() + 1h}};
            (void)co_await async_call_many(flights, io, ids, options, load, asio::use_awaitable);
          },
          asio::detached);
    }
    held.reset();
    io.poll();
    EXPECT_EQ(begun, 1);
    EXPECT_EQ(flights.stats().waiting, 6U);
  }
  EXPECT_TRUE(frames_live.expired());
  support::expect_idle(flights);
}

TEST(AsioBulkCoroutine, OnAPoolIsCancelledOnItsStrand) {
  flight_group flights;
  asio::thread_pool pool(2);
  for (int i = 0; i < rounds / 4; ++i) {
    std::promise<void> done;
    async_call_many(
        flights, pool, {1, 2}, {.call = {.deadline = clock_type::now() + 1ms}},
        [&](batch&) -> asio::awaitable<void> {
          asio::steady_timer timer(co_await asio::this_coro::executor);
          for (;;) {  // runs nearly always, so that to cancel it elsewhere would be a race
            timer.expires_after(1us);
            co_await timer.async_wait(asio::use_awaitable);
          }
        },
        [&](const std::exception_ptr&, const auto& rows) {
          EXPECT_EQ(support::call_error_of(rows.at(0).error()), std::errc::timed_out);
          done.set_value();
        });
    done.get_future().get();
    support::await([&] { return flights.stats().in_flight == 0; }, "the load to be cancelled");
  }
  pool.stop();
}

#endif
#endif

}  // namespace
