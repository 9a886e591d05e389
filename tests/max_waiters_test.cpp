// SPDX-License-Identifier: MIT
// group_options::max_waiters: at most that many followers, and its own error for the next one.

#include <gtest/gtest.h>

#include <atomic>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <future>
#include <singleflight/group.hpp>
#include <stdexcept>
#include <system_error>

#include "held_call.hpp"
#include "support.hpp"

namespace {

using singleflight::call_error;
using singleflight::call_options;
using singleflight::group;
using singleflight::group_options;
using support::expect_idle;
using support::held_call;
using clock = std::chrono::steady_clock;
using namespace std::chrono_literals;

constexpr std::size_t callers = 200, room = 50;

void expect_refused(group<int, int>& g) {
  support::expect_error(g, {}, std::errc::resource_unavailable_try_again);
}

void expect_followed(group<int, int>& g, int value) {
  auto result = g.do_call(0, [] { return 0; });
  EXPECT_EQ(*result, value);
  EXPECT_FALSE(result.led());
  EXPECT_TRUE(result.shared());
}

void expect_ran_alone(group<int, int>& g, int value) {
  auto result = g.do_call(0, [value] { return value; });
  EXPECT_EQ(*result, value);
  EXPECT_TRUE(result.led());
  EXPECT_FALSE(result.shared());
}

// The check of a cap and the count that it was held against were two steps, so that a crowd that
// came at once got past it. https://github.com/vitessio/vitess/pull/17244
TEST(MaxWaiters, IsExactForACrowdThatIsTurnedAway) {
  constexpr std::uint64_t rounds = 10;
  group<int, int> g({.max_waiters = room});
  for (std::uint64_t round = 1; round <= rounds; ++round) {
    support::latch gate(callers);
    std::atomic<std::size_t> followed{0}, refused{0};
    support::threads crowd;
    auto led = g.do_call(0, [&] {
      for (std::size_t i = 0; i < callers; ++i) {
        crowd.start([&] {
          gate.arrive_and_wait();
          try {
            auto result = g.do_call(0, [] { return 0; });
            EXPECT_EQ(*result, 42);
            EXPECT_FALSE(result.led());
            ++followed;
          } catch (const call_error& e) {
            EXPECT_EQ(e.code(), std::errc::resource_unavailable_try_again);
            ++refused;
          }
        });
      }
      support::await(
          [&] {
            const auto stats = g.stats();
            return stats.led + stats.joined + stats.rejected == round * (1 + callers);
          },
          "all to have entered");
      EXPECT_EQ(g.stats().waiting, room);
      EXPECT_EQ(g.in_flight().at(0).waiters, room);
      return 42;
    });
    EXPECT_EQ(*led, 42);
    crowd.join();
    EXPECT_EQ(followed, room);
    EXPECT_EQ(refused, callers - room);
    EXPECT_EQ(g.stats().joined, round * room);
    EXPECT_EQ(g.stats().rejected, round * (callers - room));
  }
  expect_idle(g);
}

// Callers past the cap did not wait and did not query either: they returned an empty result.
// https://github.com/vitessio/vitess/issues/18783
TEST(MaxWaiters, IsExactForACrowdThatRunsAloneAndGetsItsOwnAnswers) {
  constexpr std::size_t alone = callers - room;
  group<int, int> g({.max_waiters = room, .when_full = group_options::run_alone});
  std::atomic<std::size_t> followed{0};
  held_call call(g);
  support::latch gate(callers);
  std::atomic<bool> seen{false};
  support::threads crowd(callers, [&](std::size_t i) {
    const int own = static_cast<int>(100 + i);
    gate.arrive_and_wait();
    auto result = g.do_call(0, [&] {
      support::await([&] { return seen.load(); }, "them all to be seen at once");
      return own;
    });
    EXPECT_EQ(*result, result.led() ? own : 42);
    EXPECT_EQ(result.shared(), !result.led());
    followed += result.led() ? 0 : 1;
  });
  support::await(
      [&] {
        const auto stats = g.stats();
        return stats.led + stats.joined + stats.rejected == 1 + callers;
      },
      "all to have entered");
  const auto stats = g.stats();
  EXPECT_EQ(stats.led, 1U);
  EXPECT_EQ(stats.joined, room);
  EXPECT_EQ(stats.rejected, alone);
  EXPECT_EQ(stats.waiting, room);
  EXPECT_EQ(stats.in_flight, 1 + alone);
  EXPECT_EQ(g.in_flight().size(), 1U);
  EXPECT_EQ(g.in_flight().at(0).waiters, room);
  seen = true;
  support::await([&] { return g.stats().in_flight == 1; }, "those that run alone to end");
  EXPECT_EQ(g.stats().waiting, room);
  EXPECT_EQ(g.in_flight().size(), 1U);
  call.end(42);
  crowd.join();
  EXPECT_EQ(call.value, 42);
  EXPECT_TRUE(call.shared);
  EXPECT_EQ(followed, room);
  expect_idle(g);
}

TEST(MaxWaiters, TurnsAwayTheNextFollowerAndNobodyElse) {
  group<int, int> g({.max_waiters = 2});
  held_call call(g);
  support::threads followers(2, [&](std::size_t) { expect_followed(g, 42); });
  support::await_followers(g, 2);
  expect_refused(g);
  EXPECT_EQ(*g.do_call(1, [] { return 1; }), 1);
  EXPECT_EQ(g.stats().waiting, 2U);
  EXPECT_EQ(g.stats().joined, 2U);
  EXPECT_EQ(g.stats().rejected, 1U);
  EXPECT_EQ(g.stats().failed, 0U);
  call.end(42);
  followers.join();
  EXPECT_EQ(call.value, 42);
  EXPECT_EQ(*g.do_call(0, [] { return 2; }), 2);
}

TEST(MaxWaiters, LetsNobodyJoinWhoRunsAlone) {
  group<int, int> g({.max_waiters = 1, .when_full = group_options::run_alone});
  held_call listed(g);
  support::threads follower(1, [&](std::size_t) { expect_followed(g, 42); });
  support::await_followers(g, 1);
  auto alone = g.do_call(0, [&] {
    support::threads(1, [&](std::size_t) { expect_ran_alone(g, 1); });
    EXPECT_EQ(g.stats().in_flight, 2U);
    listed.end(42);
    follower.join();
    EXPECT_TRUE(g.in_flight().empty());
    support::threads(1, [&](std::size_t) { expect_ran_alone(g, 2); });
    EXPECT_EQ(g.stats().led, 2U);
    return 3;
  });
  EXPECT_EQ(*alone, 3);
  EXPECT_TRUE(alone.led());
  EXPECT_FALSE(alone.shared());
  EXPECT_EQ(g.stats().rejected, 2U);
  expect_idle(g);
}

TEST(MaxWaiters, LeavesTheListedCallAloneWhenOneThatRanAloneEnds) {
  group<int, int> g({.max_waiters = 0, .when_full = group_options::run_alone});
  held_call older(g);
  std::promise<void> alone;
  support::threads runner;
  runner.start([&] {
    (void)g.do_call(0, [&] {
      alone.get_future().wait();
      return 1;
    });
  });
  support::await([&] { return g.stats().in_flight == 2; }, "one to run alone");
  older.end(42);
  held_call newer(g);
  alone.set_value();
  runner.join();
  EXPECT_EQ(g.in_flight().size(), 1U);
  EXPECT_EQ(g.stats().in_flight, 1U);
  newer.end(43);
  EXPECT_EQ(newer.value, 43);
}

TEST(MaxWaiters, KeepsTheFailureOfWhoRunsAloneFromTheOthers) {
  group<int, int> g({.max_waiters = 1, .when_full = group_options::run_alone});
  held_call call(g);
  support::threads follower(1, [&](std::size_t) { expect_followed(g, 42); });
  support::await_followers(g, 1);
  EXPECT_THROW((void)g.do_call(0, []() -> int { throw std::runtime_error("mine"); }),
               std::runtime_error);
  EXPECT_EQ(g.stats().failed, 1U);
  EXPECT_EQ(g.stats().waiting, 1U);
  EXPECT_EQ(g.stats().in_flight, 1U);
  call.end(42);
  EXPECT_EQ(call.value, 42);
}

TEST(MaxWaiters, LetsNoLoaderRunAloneForItsOwnKeyWithoutEnd) {
  group<int, int> g({.max_waiters = 0, .when_full = group_options::run_alone});
  EXPECT_EQ(*g.do_call(0,
                       [&] {
                         try {
                           return *g.do_call(0, [] { return 0; });
                         } catch (const call_error& e) {
                           EXPECT_EQ(e.code(), std::errc::resource_deadlock_would_occur);
                           return 42;
                         }
                       }),
            42);
  EXPECT_EQ(g.stats().rejected, 1U);
}

TEST(MaxWaiters, OfZeroLetsNobodyFollow) {
  group<int, int> rejecting({.max_waiters = 0});
  group<int, int> running({.max_waiters = 0, .when_full = group_options::run_alone});
  expect_ran_alone(rejecting, 1);
  expect_ran_alone(running, 1);
  held_call call(rejecting), another(running);
  expect_refused(rejecting);
  expect_ran_alone(running, 2);
  for (auto* g : {&rejecting, &running}) {
    EXPECT_EQ(g->stats().led, 2U);
    EXPECT_EQ(g->stats().rejected, 1U);
    EXPECT_EQ(g->stats().joined, 0U);
  }
  call.end(42);
  another.end(42);
  EXPECT_FALSE(call.shared);
  EXPECT_FALSE(another.shared);
}

TEST(MaxWaiters, CountsThoseWhoWaitNowAndNotWhoHasLeft) {
  group<int, int> g({.max_waiters = 1});
  held_call call(g);
  for (int i = 0; i < 3; ++i) {
    const auto joined = g.stats().joined;
    while (g.stats().joined == joined) {  // one that is held up until its deadline tries again
      const call_options soon{.deadline = clock::now() + 5ms};
      EXPECT_THROW((void)g.do_call(0, soon, [] { return 0; }), call_error);
    }
  }
  EXPECT_EQ(g.stats().timed_out, g.stats().rejected + 3);  // none of them because the call was full
  support::threads follower(1, [&](std::size_t) { expect_followed(g, 42); });
  support::await_followers(g, 1);
  expect_refused(g);
  call.end(42);
}

}  // namespace
