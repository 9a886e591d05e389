// SPDX-License-Identifier: MIT
// group_options::max_age: a hung leader does not own its key.
//
// Ages are short, and a machine may be slow. So a test in which the newer call must not grow too
// old tries again with twice the age if it took longer than that; such a try is not judged.

#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <future>
#include <optional>
#include <random>
#include <singleflight/group.hpp>
#include <stdexcept>
#include <string>
#include <system_error>
#include <thread>
#include <version>

#if defined(__cpp_lib_jthread)
#include <stop_token>
#endif

#include "executors.hpp"
#include "held_call.hpp"
#include "sanitizers.hpp"
#include "support.hpp"

namespace {

using singleflight::call_error;
using singleflight::call_options;
using singleflight::group;
using support::held_call;
using clock = std::chrono::steady_clock;
using namespace std::chrono_literals;

void await_time(clock::time_point time) {
  support::await([&] { return clock::now() >= time; }, "time to pass");
}

/// Tries with ever greater ages until `attempt(age)` says that the machine was quick enough for it.
template <class Attempt>
void try_ages(const Attempt& attempt) {
  for (auto age = 25ms; age < 20s; age *= 2) {
    if (attempt(age) || testing::Test::HasFailure()) return;
  }
  FAIL() << "the machine was never quick enough";
}

// pingora and nginx (proxy_cache_lock_age) let one waiter through when the lock is too old.
TEST(MaxAge, HasExactlyOneWaiterLeadTheNextCallAndTheOthersJoinIt) {
  static constexpr std::uint64_t waiters = 8;
  try_ages([](clock::duration age) {
    group<int, int> g({.max_age = age});
    const auto start = clock::now();
    held_call hung(g);
    std::atomic<int> loads{0}, led{0}, shared{0};
    support::threads crowd(waiters, [&](std::size_t) {
      auto result = g.do_call(0, [&] {
        support::await(
            [&] {
              const auto calls = g.in_flight();
              return (calls.size() == 1 && calls[0].waiters == waiters - 1) ||
                     clock::now() >= start + 2 * age;
            },
            "the others to join the newer call");
        return ++loads;
      });
      led += result.led() ? 1 : 0;
      shared += result.shared() ? 1 : 0;
      EXPECT_GT(*result, 0);
    });
    crowd.join();
    const bool in_time = clock::now() < start + 2 * age;
    const auto stats = g.stats();
    if (!in_time || stats.joined < waiters) return false;
    EXPECT_EQ(loads, 1);
    EXPECT_EQ(led, 1);
    EXPECT_EQ(shared, static_cast<int>(waiters));
    EXPECT_EQ(stats.superseded, 1U);
    EXPECT_EQ(stats.led, 1U);
    EXPECT_EQ(stats.joined, waiters);
    EXPECT_EQ(stats.rejected, 0U);
    EXPECT_EQ(stats.in_flight, 1U);
    EXPECT_TRUE(g.in_flight().empty());
    hung.end(-1);
    EXPECT_EQ(hung.value, -1);
    EXPECT_TRUE(hung.shared);
    return true;
  });
}

TEST(MaxAge, LetsANewcomerLeadAtOnceAndLaterOnesJoinIt) {
  try_ages([](clock::duration age) {
    group<int, int> g({.max_age = age});
    held_call hung(g);
    await_time(hung.begun + age);
    support::threads later;
    std::atomic<int> followed{0};
    const auto start = clock::now();
    auto newer = g.do_call(0, [&] {
      later.start([&] { followed = *g.do_call(0, [] { return 3; }); });
      support::await([&] { return g.stats().led + g.stats().joined == 3; }, "the later one");
      return 2;
    });
    later.join();
    EXPECT_EQ(*newer, 2);
    EXPECT_TRUE(newer.led());
    EXPECT_EQ(g.stats().in_flight, 1U);
    if (clock::now() >= start + age) return false;
    EXPECT_EQ(followed, 2);
    EXPECT_TRUE(newer.shared());
    EXPECT_EQ(g.stats().led, 2U);
    EXPECT_EQ(g.stats().joined, 1U);
    EXPECT_EQ(g.stats().superseded, 1U);
    return true;
  });
}

TEST(MaxAge, LetsANewcomerInsideALoaderLeadAtOnce) {
  const auto age = std::chrono::milliseconds(1);
  group<int, int> g({.max_age = age});
  held_call hung(g);
  await_time(hung.begun + age);
  EXPECT_EQ(*g.do_call(1, [&] { return *g.do_call(0, [] { return 2; }); }), 2);
  EXPECT_EQ(g.stats().led, 3U);
  EXPECT_EQ(g.stats().joined, 0U);
  EXPECT_EQ(g.stats().superseded, 1U);
}

TEST(MaxAge, KeepsTheNewerCallWhenTheSupersededOneEndsLate) {
  try_ages([](clock::duration age) {
    group<int, int> g({.max_age = age});
    held_call hung(g);
    await_time(hung.begun + age);
    support::threads later;
    int followed = 0;
    std::size_t listed = 0, waiting = 0;
    const auto start = clock::now();
    auto newer = g.do_call(0, [&] {
      later.start([&] { followed = *g.do_call(0, [] { return 3; }); });
      support::await([&] { return g.stats().led + g.stats().joined == 3; }, "the later one");
      hung.end(1);
      listed = g.in_flight().size();
      waiting = g.stats().waiting;
      return 2;
    });
    later.join();
    EXPECT_EQ(hung.value, 1);
    EXPECT_FALSE(hung.shared);
    EXPECT_EQ(*newer, 2);
    EXPECT_NE(followed, 1);
    EXPECT_EQ(g.stats().in_flight, 0U);
    if (clock::now() >= start + age) return false;
    EXPECT_EQ(listed, 1U);
    EXPECT_EQ(waiting, 1U);
    EXPECT_EQ(followed, 2);
    return true;
  });
}

TEST(MaxAge, KeepsThreeGenerationsApartWhicheverEndsFirst) {
  constexpr std::size_t newest = 2;
  std::array<std::size_t, newest + 1> order{0, 1, 2};
  do {
    SCOPED_TRACE(testing::Message() << "ending " << order[0] << order[1] << order[2]);
    group<int, int> g({.max_age = 5ms});
    std::array<std::optional<held_call>, newest + 1> calls;
    for (auto& call : calls) {
      call.emplace(g);
      if (&call != &calls[newest]) await_time(call->begun + 5ms);
    }
    EXPECT_EQ(g.stats().superseded, newest);
    EXPECT_EQ(g.stats().in_flight, newest + 1);
    bool newest_runs = true;
    for (const std::size_t generation : order) {
      EXPECT_EQ(g.in_flight().size(), newest_runs ? 1U : 0U);
      calls[generation]->end(static_cast<int>(generation));
      EXPECT_EQ(calls[generation]->value, static_cast<int>(generation));
      EXPECT_FALSE(calls[generation]->shared);
      if (generation == newest) newest_runs = false;
    }
    EXPECT_EQ(g.stats().in_flight, 0U);
    EXPECT_EQ(g.stats().led, newest + 1);
    EXPECT_EQ(g.stats().joined, 0U);
  } while (std::next_permutation(order.begin(), order.end()));
}

TEST(MaxAge, ChangesNothingForACallThatEndsInTime) {
  for (auto age : {clock::duration(1h), clock::duration::max() / 2 + clock::duration(1),
                   clock::duration::max() - clock::duration(1), clock::duration::max()}) {
    group<int, int> g({.max_age = age});
    held_call call(g);
    support::threads followers(3, [&](std::size_t i) {
      const auto deadline = i == 0 ? clock::time_point::max() : clock::now() + 1h;
      auto result = g.do_call(0, call_options{.deadline = deadline}, [] { return 0; });
      EXPECT_EQ(*result, 42);
      EXPECT_FALSE(result.led());
    });
    support::await_followers(g, 3);
    call.end(42);
    followers.join();
    EXPECT_TRUE(call.shared);
    EXPECT_EQ(g.stats().superseded, 0U);
    EXPECT_EQ(g.stats().led, 1U);
    EXPECT_EQ(g.stats().joined, 3U);
  }
}

TEST(MaxAge, MustBeMoreThanZero) {
  for (auto age : {clock::duration::zero(), clock::duration(-1), clock::duration::min()}) {
    try {
      group<int, int> g({.max_age = age});
      ADD_FAILURE() << "was accepted";
    } catch (const std::invalid_argument& e) {
      EXPECT_EQ(e.what(), std::string("singleflight: group_options::max_age must be more than zero;"
                                      " leave it out for no limit"));
    }
  }
}

TEST(MaxAge, IsNotWaitedForByACallerWhoseDeadlineComesFirst) {
  group<int, int> g({.max_age = 1h});
  held_call hung(g);
  while (g.stats().joined == 0) {  // one that is held up until its deadline tries again
    const call_options soon{.deadline = clock::now() + 5ms};
    EXPECT_THROW((void)g.do_call(0, soon, [] { return 0; }), call_error);
  }
  EXPECT_EQ(g.stats().superseded, 0U);
  EXPECT_EQ(g.stats().timed_out, g.stats().rejected + 1);
  EXPECT_EQ(g.in_flight().size(), 1U);
}

TEST(MaxAge, PassesOnACallerWhoseDeadlineComesLater) {
  group<int, int> g({.max_age = 20ms});
  held_call hung(g);
  auto result = g.do_call(0, call_options{.deadline = clock::now() + 1h}, [] { return 2; });
  EXPECT_EQ(*result, 2);
  EXPECT_TRUE(result.led());
  EXPECT_FALSE(result.shared());
  EXPECT_EQ(g.stats().superseded, 1U);
  EXPECT_EQ(g.stats().timed_out, 0U);
  EXPECT_EQ(g.stats().in_flight, 1U);
}

TEST(MaxAge, KeepsTheAccountsWhereAgesDeadlinesAndEndsRace) {
  constexpr std::size_t callers = 6;
  constexpr std::uint64_t entries_each = 200;
  const auto seed = std::random_device{}();
  SCOPED_TRACE(testing::Message() << "seed " << seed);
  group<int, int> g({.max_age = 500us});
  std::atomic<std::uint64_t> loads{0}, led{0}, followed{0}, timed_out{0};
  support::threads(callers, [&](std::size_t caller) {
    std::mt19937 random(seed + static_cast<unsigned>(caller));
    for (std::uint64_t i = 0; i < entries_each; ++i) {
      const auto now = clock::now();
      const std::chrono::microseconds load_time(random() % 1'000), patience(random() % 1'500);
      try {
        auto result = g.do_call(0, call_options{.deadline = now + patience}, [&] {
          await_time(clock::now() + load_time);
          return static_cast<int>(++loads);
        });
        ++(result.led() ? led : followed);
        EXPECT_GT(*result, 0);
      } catch (const call_error& e) {
        EXPECT_EQ(e.code(), std::errc::timed_out);
        ++timed_out;
      }
    }
  });
  const auto stats = g.stats();
  EXPECT_EQ(led + followed + timed_out, callers * entries_each);
  EXPECT_EQ(stats.led + stats.joined + stats.rejected, callers * entries_each);
  EXPECT_EQ(loads, led);
  EXPECT_LE(stats.led, led);  // a caller that led after it had waited was counted as joined
  EXPECT_EQ(stats.timed_out, timed_out);
  EXPECT_EQ(stats.in_flight, 0U);
  EXPECT_EQ(stats.waiting, 0U);
  EXPECT_TRUE(g.in_flight().empty());
}

/// A loader that is older than `max_age` when it calls for the key of a call that waits for it.
class OldLoader : public testing::Test {
 protected:
  static constexpr auto age = 1ms;
  group<std::string, int> g{{.max_age = age}};
  std::atomic<int> loads{0};

  /// Returns: a loader that grows too old and then does `ask`.
  template <class Ask>
  auto too_old_then(Ask ask) {
    return [this, ask] {
      ++loads;
      await_time(clock::now() + age);
      return *ask();
    };
  }
  template <class Ask>
  void expect_refusal(const Ask& ask, int loaders) {
    const auto told = support::thrown_by([&] { (void)ask(); });
    EXPECT_EQ(support::call_error_of(told), std::errc::resource_deadlock_would_occur);
    EXPECT_EQ(loads.exchange(0), loaders);
    EXPECT_EQ(g.stats().superseded, 0U);
    support::expect_idle(g);
  }
  int one() { return ++loads; }
};

// It superseded its own call and began it anew, inside itself, until the stack ended.
TEST_F(OldLoader, IsRefusedItsOwnKey) {
  const auto again = [this] { return one(); };
  expect_refusal(
      [&] { return g.do_call("a", too_old_then([&] { return g.do_call("a", again); })); }, 1);
  expect_refusal(
      [&] {
        return g.do_call("a", too_old_then([&] { return g.do_call("a", {.timeout = 1h}, again); }));
      },
      1);
  expect_refusal(
      [&] {
        return g.do_call("a", too_old_then([&] {
                           return g.do_call_on("a", support::inline_executor, {}, again);
                         }));
      },
      1);
  expect_refusal(
      [&] {
        return g.do_call_on("a", support::inline_executor, {},
                            too_old_then([&] { return g.do_call("a", again); }));
      },
      1);
}

TEST_F(OldLoader, IsRefusedAKeyThroughAnother) {
  const auto again = [this] { return one(); };
  const auto b = too_old_then([&] { return g.do_call("a", again); });
  expect_refusal([&] { return g.do_call("a", too_old_then([&] { return g.do_call("b", b); })); },
                 2);
}

TEST_F(OldLoader, IsRefusedAKeyThroughAnotherThread) {
#if defined(SINGLEFLIGHT_TESTS_TSAN)
  GTEST_SKIP() << "libstdc++ counts exceptions where ThreadSanitizer cannot see it";
#endif
  support::thread_executor elsewhere;
  const std::thread::id leads_a = std::this_thread::get_id();
  const auto again = [this] { return one(); };
  const auto b = too_old_then([&] {
    support::await(
        [&] {
          return singleflight::detail::the_wait_graph().waits_for(leads_a,
                                                                  std::this_thread::get_id());
        },
        "the leader of a to wait for b");
    return g.do_call_on("a", elsewhere, {}, again);
  });
  expect_refusal(
      [&] {
        return g.do_call("a", too_old_then([&] { return g.do_call_on("b", elsewhere, {}, b); }));
      },
      2);
}

#if defined(__cpp_lib_jthread)

TEST(MaxAge, StopsACallThatItsLeaderHasWithdrawnFromAndItsWaitersHaveLeft) {
  group<int, int> g({.max_age = 20ms});
  std::stop_source stop;
  std::atomic<bool> running{false};
  support::threads hung;
  hung.start([&] {
    auto result = g.do_call(0, call_options{.stop = stop.get_token()}, [&](std::stop_token token) {
      running = true;
      support::await([&] { return token.stop_requested(); }, "the request to stop");
      return 1;
    });
    EXPECT_EQ(*result, 1);
  });
  support::await([&] { return running.load(); }, "the loader to run");
  support::threads waiter;
  waiter.start([&] { EXPECT_EQ(*g.do_call(0, [] { return 2; }), 2); });
  support::await([&] { return g.stats().led + g.stats().joined == 2; }, "the waiter");
  stop.request_stop();
  hung.join();
  waiter.join();
  EXPECT_EQ(g.stats().superseded, 1U);
  EXPECT_EQ(g.stats().in_flight, 0U);
}

#endif

}  // namespace
