// SPDX-License-Identifier: MIT
// User code that runs inside the library: values that call a group, wait or exit while they are
// moved, executors that call for the key of their own task, keys that watch their own destruction.

#include <gtest/gtest.h>
#if !defined(_WIN32)
#include <pthread.h>
#endif

#include <atomic>
#include <chrono>
#include <concepts>
#include <cstddef>
#include <functional>
#include <future>
#include <memory>
#include <optional>
#include <singleflight/group.hpp>
#include <system_error>
#include <utility>
#include <vector>

#include "executors.hpp"
#include "support.hpp"

namespace app {

struct loader {
  int operator()() const { return 1; }
};

// Argument-dependent lookup finds these where the library calls such a name unqualified.
template <class Fn, class Stop>
int run_loader(Fn&&, Stop&&) {
  return -1;
}

}  // namespace app

namespace {

using namespace std::chrono_literals;
using clock = std::chrono::steady_clock;
using singleflight::call_error;
using singleflight::group;
using singleflight::group_options;

/// A value that does something when it is moved, once armed.
struct restless {
  static inline std::function<void()> next_move = nullptr;

  explicit restless(int n) : number(n) {}
  restless(const restless&) = default;
  restless(restless&& other) : number(other.number) {
    if (auto now = std::exchange(next_move, nullptr)) now();
  }
  restless& operator=(const restless&) = delete;
  restless& operator=(restless&&) = delete;
  ~restless() = default;

  int number;
};

/// Leads key 1 and arms the value's move into the hands of one follower.
void lead_restless(group<int, restless>& g, std::function<void()> at_move) {
  static_cast<void>(g.do_call(1, [&] {
    support::await_followers(g, 1);
    restless::next_move = std::move(at_move);
    return restless(42);
  }));
}

void await_call(const group<int, restless>& g) {
  support::await([&] { return g.stats().in_flight == 1; }, "the call to begin");
}

TEST(Interference, OfAValuesMoveThatWouldCloseACircleIsRefused) {
  group<int, restless> values;
  group<int, int> numbers;
  std::atomic<bool> refused{false};
  support::threads threads;
  threads.start([&] {
    lead_restless(values, [&] {
      try {
        static_cast<void>(numbers.do_call(2, [] { return 0; }));
      } catch (const call_error& error) {
        refused = error.code() == std::errc::resource_deadlock_would_occur;
      }
    });
  });
  await_call(values);
  auto got =
      numbers.do_call(2, [&] { return (*values.do_call(1, [] { return restless(0); })).number; });
  EXPECT_EQ(*got, 42);
  threads.join();
  EXPECT_TRUE(refused);
}

// The thread that moves leads two calls then, which others wait for inside loaders: the one whose value
// it moves, and the one whose task it runs meanwhile.
TEST(Interference, OfAValuesMoveThatRunsAQueuedTaskIsNone) {
  group<int, restless> values;
  group<int, int> numbers;
  support::task_queue queue;
  support::threads threads;
  const auto is_refused = [&](int key) {
    const auto told = support::thrown_by([&] { (void)numbers.do_call(key, [] { return 0; }); });
    return support::call_error_of(told) == std::errc::resource_deadlock_would_occur;
  };
  const auto queued = numbers.do_async(9, queue, [&] {
    threads.start([&] {
      EXPECT_EQ(*numbers.do_call(3, [&] { return *numbers.do_call(9, [] { return 0; }); }), 7);
    });
    support::await_followers(numbers, 1);
    EXPECT_TRUE(is_refused(2));
    EXPECT_TRUE(is_refused(3));
    EXPECT_EQ(*numbers.do_call(4, [] { return 4; }), 4);
    return 7;
  });
  support::threads leader;
  leader.start([&] { lead_restless(values, [&] { queue.run(); }); });
  await_call(values);
  auto got =
      numbers.do_call(2, [&] { return (*values.do_call(1, [] { return restless(0); })).number; });
  EXPECT_EQ(*got, 42);
  leader.join();
  threads.join();
  EXPECT_EQ(queued.get(), 7);
  EXPECT_EQ(numbers.stats().rejected, 2U);
  EXPECT_EQ(values.stats().rejected, 0U);
}

#if defined(SINGLEFLIGHT_TESTS_THREAD_EXIT_UNWINDS)
TEST(Interference, OfAValuesMoveThatExitsTheThreadLeavesNobodyWithHalfAValue) {
#ifdef SINGLEFLIGHT_TESTS_CALL_ONCE_HANGS
  GTEST_SKIP() << "std::call_once, in std::promise, hangs once its function has been left";
#endif
  group<int, restless> values;
  support::threads threads;
  threads.start([&] { lead_restless(values, [] { pthread_exit(nullptr); }); });
  await_call(values);
  try {
    static_cast<void>(values.do_call(1, [] { return restless(0); }));
    ADD_FAILURE() << "a follower got a value that was never there";
  } catch (const call_error& error) {
    EXPECT_EQ(error.code(), std::errc::owner_dead);
  }
}
#endif

#if defined(__GLIBCXX__)  // libc++'s promise moves the value under the lock that a wait takes
void expect_a_deadline_kept(group<int, restless>& values) {
  std::promise<void> left;
  support::threads threads;
  threads.start([&] { lead_restless(values, [&] { left.get_future().wait(); }); });
  await_call(values);
  EXPECT_THROW(static_cast<void>(values.do_call(1, {.deadline = clock::now() + 50ms},
                                                [] { return restless(0); })),
               call_error);
  left.set_value();
  threads.join();
  EXPECT_EQ(values.stats().timed_out, 1U);
  EXPECT_EQ(values.stats().waiting, 0U);
}

TEST(Interference, OfAValuesSlowMoveDoesNotCostAFollowerItsDeadline) {
  group<int, restless> values;
  expect_a_deadline_kept(values);
}

TEST(Interference, OfAValuesSlowMoveDoesNotCostAFollowerItsDeadlineAfterTheCallHasAged) {
  group<int, restless> values({.max_age = 20ms});
  expect_a_deadline_kept(values);
}
#endif

TEST(Interference, OfAnExecutorThatAsksForTheKeyItIsGivenIsRefused) {
  group<int, int> g;
  std::optional<std::error_code> refused;
  const auto asks = [&](auto task) {
    try {
      static_cast<void>(g.do_call(1, [] { return 2; }));
    } catch (const call_error& error) {
      refused = error.code();
    }
    task();
  };
  EXPECT_EQ(*g.do_call_on(1, asks, {}, [] { return 1; }), 1);
  EXPECT_EQ(refused, std::errc::resource_deadlock_would_occur);
}

TEST(Interference, OfAnExecutorThatOverwritesTheTaskItRunsIsHarmless) {
  group<int, std::size_t> g;
  std::function<void()> slot;
  auto size = g.do_async(
      1, [&](auto task) { slot = std::move(task); },
      [&, text = std::vector<char>(100)] {
        slot = nullptr;
        return text.size();
      });
  slot();
  EXPECT_EQ(size.get(), 100U);
}

TEST(Interference, OfALoaderThatRunsAloneAndAsksForItsOwnKeyIsRefused) {
  group<int, int> g({.max_waiters = 0, .when_full = group_options::run_alone});
  std::function<int()> load = [&] { return *g.do_call(1, load); };
  EXPECT_THROW(load(), call_error);
}

TEST(Interference, OfFunctionsWithTheSameNamesIsNone) {
  group<int, int> g;
  EXPECT_EQ(*g.do_call(1, app::loader{}), 1);
}

struct mourned_key {
  static inline std::function<void()> at_end = nullptr;

  explicit mourned_key(int n) : number(n) {}
  mourned_key(const mourned_key&) = default;
  mourned_key& operator=(const mourned_key&) = delete;
  ~mourned_key() {
    if (at_end) at_end();
  }
  friend bool operator==(const mourned_key&, const mourned_key&) = default;

  int number;
};

struct number_of {
  std::size_t operator()(const mourned_key& key) const {
    return static_cast<std::size_t>(key.number);
  }
};

TEST(Interference, OfAKeysDestructorWithInFlightIsNone) {
  constexpr int calls = 5;
  group<mourned_key, int, number_of> g({.shards = 1});
  const std::function<int(int)> call_down_to = [&](int n) {
    if (n > 0) return *g.do_call(mourned_key(n), [&, n] { return call_down_to(n - 1); });
    int ends = 0;
    mourned_key::at_end = [&] { ends += g.stats().in_flight == calls ? 1 : 0; };
    EXPECT_EQ(g.in_flight().size(), std::size_t{calls});
    mourned_key::at_end = nullptr;
    EXPECT_EQ(ends, calls);
    return 1;
  };
  EXPECT_EQ(call_down_to(calls), 1);
}

/// A key that anything can be made into, a `greedy_key&` included: by that constructor it is -1.
struct greedy_key {
  explicit greedy_key(int n) : number(n) {}
  template <class T>
  requires(!std::same_as<T, int>) explicit greedy_key(T&&) : number(-1) {}
  greedy_key(const greedy_key&) = default;
  greedy_key(greedy_key&&) = default;
  greedy_key& operator=(const greedy_key&) = delete;
  greedy_key& operator=(greedy_key&&) = delete;
  ~greedy_key() = default;
  friend bool operator==(const greedy_key&, const greedy_key&) = default;

  int number;
};

struct greedy_hash {
  std::size_t operator()(const greedy_key& key) const {
    return static_cast<std::size_t>(key.number);
  }
};

TEST(Interference, OfAGreedyConstructorDoesNotChangeTheKey) {
  group<greedy_key, int, greedy_hash> g;
  greedy_key key(5);
  static_cast<void>(g.do_call(key, [&] {
    EXPECT_EQ(g.in_flight().at(0).key, key);
    return 1;
  }));
}

#if defined(__cpp_lib_jthread) && defined(SINGLEFLIGHT_TESTS_CANCELS_WAITS)
TEST(Interference, OfACancelledThreadTakesItsInterestWithIt) {
  group<int, int> g;
  std::stop_source leader, follower;
  std::promise<void> joined;
  support::threads threads;
  threads.start([&] {
    static_cast<void>(g.do_call(1, {.stop = leader.get_token()}, [&](const std::stop_token& stop) {
      joined.get_future().wait();
      leader.request_stop();
      support::await([&] { return stop.stop_requested(); }, "the last interest to be taken back");
      return 1;
    }));
  });
  support::await([&] { return g.stats().in_flight == 1; }, "the call to begin");
  std::thread cancelled(
      [&] { static_cast<void>(g.do_call(1, {.stop = follower.get_token()}, [] { return 2; })); });
  support::await_followers(g, 1);
  joined.set_value();
  pthread_cancel(cancelled.native_handle());
  cancelled.join();
  threads.join();
  EXPECT_EQ(g.stats().waiting, 0U);
  EXPECT_EQ(g.stats().timed_out, 0U);
  EXPECT_EQ(g.stats().cancelled, 1U);  // the leader, which has requested the stop
}
#endif

}  // namespace
