// SPDX-License-Identifier: MIT
// Stop requests: each caller leaves for itself, and a call whose last caller has left is stopped.

#include <version>

#if defined(__cpp_lib_jthread)

#include <gtest/gtest.h>

#include <array>
#include <atomic>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <random>
#include <singleflight/group.hpp>
#include <stdexcept>
#include <stop_token>
#include <string>
#include <system_error>
#include <vector>

#include "held_call.hpp"
#include "support.hpp"

namespace {

using singleflight::call_error;
using singleflight::call_options;
using singleflight::group;
using support::expect_error;
using clock = std::chrono::steady_clock;
using namespace std::chrono_literals;

/// A held call whose loader can be told to stop.
struct watched_call : support::held_call {
  explicit watched_call(
      group<int, int>& g, const call_options& options = {},
      const std::function<void()>& when_stopped = [] {})
      : held_call(g, options, when_stopped) {}
};

void expect_value(group<int, int>& g, const call_options& options, int value) {
  auto result = g.do_call(0, options, [] { return 0; });
  EXPECT_EQ(*result, value);
  EXPECT_FALSE(result.led());
}

TEST(Stop, OfAFollowerIsNoticedByNobodyElse) {
  group<int, int> g;
  watched_call call(g);
  std::stop_source stop, other_stop;
  support::threads followers;
  followers.start([&] { expect_value(g, {}, 42); });
  followers.start([&] { expect_value(g, {.stop = other_stop.get_token()}, 42); });
  followers.start(
      [&] { expect_error(g, {.stop = stop.get_token()}, std::errc::operation_canceled); });
  support::await_followers(g, 3);
  stop.request_stop();
  support::await_followers(g, 2);
  EXPECT_EQ(g.in_flight().at(0).waiters, 2U);
  call.end(42);
  followers.join();
  EXPECT_EQ(call.value, 42);
  EXPECT_TRUE(call.shared);
  EXPECT_EQ(call.stops, 0);
  EXPECT_EQ(g.stats().joined, 3U);
  EXPECT_EQ(g.stats().cancelled, 1U);
  EXPECT_EQ(g.stats().failed, 0U);
}

// In Go's resolver all callers used the first caller's context: when it was cancelled, the lookups
// of the others failed. https://github.com/golang/go/issues/22724
TEST(Stop, OfTheLeaderLeavesItsFollowersAndItselfTheValue) {
  group<int, int> g;
  std::stop_source stop;
  watched_call call(g, {.stop = stop.get_token()});
  support::threads followers;
  followers.start([&] { expect_value(g, {}, 42); });
  support::await_followers(g, 1);
  stop.request_stop();
  EXPECT_EQ(g.stats().cancelled, 1U);
  followers.start([&] { expect_value(g, {}, 42); });  // the call can still be joined
  support::await_followers(g, 2);
  EXPECT_EQ(call.stops, 0);
  call.end(42);
  followers.join();
  EXPECT_EQ(call.stops, 0);
  EXPECT_EQ(call.value, 42);
  EXPECT_TRUE(call.shared);
  EXPECT_EQ(g.stats().led, 1U);
}

TEST(Stop, ReachesTheLoaderOnceWhenTheLastCallerLeavesWhoeverItIs) {
  constexpr std::size_t callers = 3;
  for (std::size_t first = 0; first < callers; ++first) {
    group<int, int> g;
    std::array<std::stop_source, callers> stops;
    watched_call call(g, {.stop = stops[0].get_token()});
    support::threads followers(callers - 1, [&](std::size_t i) {
      expect_error(g, {.stop = stops[i + 1].get_token()}, std::errc::operation_canceled);
    });
    support::await_followers(g, callers - 1);
    for (std::size_t i = 0; i < callers; ++i) {
      EXPECT_EQ(call.stops, 0);
      EXPECT_EQ(g.in_flight().size(), 1U);
      stops[(first + i) % callers].request_stop();
      support::await([&] { return g.stats().cancelled == i + 1; }, "the caller to leave");
    }
    followers.join();
    EXPECT_EQ(call.stops, 1);
    EXPECT_TRUE(g.in_flight().empty());
    EXPECT_EQ(g.stats().in_flight, 1U);
    call.end(42);
    EXPECT_EQ(call.value, 42);
    EXPECT_EQ(call.stops, 1);
    EXPECT_EQ(g.stats().in_flight, 0U);
  }
}

TEST(Stop, DoesNotReachTheLoaderWhileOneCallerCannotBeStopped) {
  group<int, int> g;
  std::stop_source stop;
  watched_call call(g, {.stop = stop.get_token()});
  support::threads stoppable(3, [&](std::size_t) {
    expect_error(g, {.stop = stop.get_token()}, std::errc::operation_canceled);
  });
  support::threads patient(1, [&](std::size_t) { expect_value(g, {}, 42); });
  support::await_followers(g, 4);
  stop.request_stop();
  stoppable.join();
  EXPECT_EQ(g.stats().cancelled, 4U);
  EXPECT_EQ(g.stats().waiting, 1U);
  EXPECT_EQ(call.stops, 0);
  call.end(42);
  patient.join();
  EXPECT_EQ(call.stops, 0);
}

TEST(Stop, ReachesTheLoaderWhenTheLastCallerLeavesByItsDeadline) {
  group<int, int> g;
  std::stop_source stop;
  watched_call call(g, {.stop = stop.get_token()});
  support::threads follower;
  follower.start([&] {  // one that the scheduler holds up until its deadline tries again
    while (g.stats().joined == 0)
      expect_error(g, {.deadline = clock::now() + 20ms}, std::errc::timed_out);
  });
  support::await([&] { return g.stats().joined == 1; }, "the follower");
  stop.request_stop();
  follower.join();
  EXPECT_EQ(call.stops, 1);
  EXPECT_TRUE(g.in_flight().empty());
}

// A caller joined a call whose last caller had left, and was given the cancellation of that one.
// https://github.com/tailscale/tailscale/issues/18919
TEST(Stop, OfAllCallersLetsNoNewcomerJoinTheDyingCall) {
  group<int, int> g;
  std::stop_source stop;
  watched_call dying(g, {.stop = stop.get_token()});
  stop.request_stop();
  auto newer = g.do_call(0, [&](std::stop_token token) {
    EXPECT_EQ(g.stats().in_flight, 2U);
    dying.end(1);
    EXPECT_EQ(g.in_flight().size(), 1U);
    EXPECT_FALSE(token.stop_requested());
    return 2;
  });
  EXPECT_EQ(*newer, 2);
  EXPECT_TRUE(newer.led());
  EXPECT_FALSE(newer.shared());
  EXPECT_EQ(dying.value, 1);
  EXPECT_FALSE(dying.shared);
  EXPECT_EQ(dying.stops, 1);
}

TEST(Stop, ReachesTheLoaderWhenItsCallIsUnlistedAlready) {
  group<int, int> g;
  std::stop_source stop;
  int listed = -1;
  bool led = false;
  watched_call call(g, {.stop = stop.get_token()}, [&] {
    listed = static_cast<int>(g.in_flight().size());
    support::threads newcomer;
    newcomer.start([&] { led = g.do_call(0, [] { return 2; }).led(); });
  });
  stop.request_stop();
  EXPECT_EQ(call.stops, 1);
  EXPECT_EQ(listed, 0);
  EXPECT_TRUE(led);
}

TEST(Stop, MayHaveTheLoadersCallbackCallTheGroupAgain) {
  group<int, int> g;
  std::stop_source stop, follower_stop;
  int again = 0;
  watched_call call(g, {.stop = stop.get_token()}, [&] {
    EXPECT_FALSE(g.forget(0));
    again = g.do_call(0, [&] { return static_cast<int>(g.stats().in_flight); });
  });
  support::threads follower(1, [&](std::size_t) {
    expect_error(g, {.stop = follower_stop.get_token()}, std::errc::operation_canceled);
  });
  support::await_followers(g, 1);
  stop.request_stop();
  EXPECT_EQ(again, 0);
  follower_stop.request_stop();
  follower.join();
  EXPECT_EQ(again, 2);
}

TEST(Stop, RequestedByALoaderOfItsOwnCallerReachesItAtOnce) {
  group<int, int> g;
  std::stop_source stop;
  auto result = g.do_call(0, call_options{.stop = stop.get_token()}, [&](std::stop_token token) {
    EXPECT_FALSE(token.stop_requested());
    stop.request_stop();
    EXPECT_TRUE(token.stop_requested());
    return 42;
  });
  EXPECT_EQ(*result, 42);
  EXPECT_EQ(g.stats().cancelled, 1U);
}

TEST(Stop, MayMakeALoaderThrowWhatItsCallerGets) {
  group<int, int> g;
  std::stop_source stop;
  const auto load = [&](std::stop_token token) -> int {
    stop.request_stop();
    if (token.stop_requested()) throw std::runtime_error("stopped");
    return 0;
  };
  EXPECT_THROW((void)g.do_call(0, call_options{.stop = stop.get_token()}, load),
               std::runtime_error);
  EXPECT_EQ(g.stats().failed, 1U);
  EXPECT_EQ(g.stats().in_flight, 0U);
}

/// A value that does something when it is moved, which is after the end of its call.
struct acts_when_moved {
  explicit acts_when_moved(const std::function<void()>& a) : act(&a) {}
  acts_when_moved(acts_when_moved&& other) noexcept : act(other.act) { (*act)(); }
  const std::function<void()>* act;
};

TEST(Stop, RequestedWhenTheCallHasEndedIsNotHeardByItsLoader) {
  group<int, acts_when_moved> g;
  std::stop_source stop;
  std::stop_token seen;
  const std::function<void()> act = [&] { stop.request_stop(); };
  (void)g.do_call(0, call_options{.stop = stop.get_token()}, [&](std::stop_token token) {
    seen = token;
    return acts_when_moved(act);
  });
  EXPECT_TRUE(stop.stop_requested());
  EXPECT_FALSE(seen.stop_requested());
  EXPECT_EQ(g.stats().cancelled, 0U);
}

TEST(Stop, RequestedWhileTheValueIsOnItsWayLetsAFollowerGo) {
  group<int, acts_when_moved> g;
  std::stop_source stop;
  const std::function<void()> act = [&] {
    stop.request_stop();
    support::await([&] { return g.stats().cancelled == 1; }, "the follower to leave");
  };
  support::threads follower;
  auto led = g.do_call(0, [&](std::stop_token) {
    follower.start([&] {
      EXPECT_THROW((void)g.do_call(0, call_options{.stop = stop.get_token()},
                                   [&] { return acts_when_moved(act); }),
                   call_error);
    });
    support::await_followers(g, 1);
    return acts_when_moved(act);
  });
  follower.join();
  EXPECT_TRUE(led.shared());
  EXPECT_EQ(g.stats().in_flight, 0U);
  EXPECT_EQ(g.stats().waiting, 0U);
}

TEST(Stop, RequestedAlreadyLeavesNoTrace) {
  group<int, int> g;
  std::stop_source stop;
  stop.request_stop();
  expect_error(g, {.stop = stop.get_token()}, std::errc::operation_canceled);
  EXPECT_TRUE(g.in_flight().empty());
  EXPECT_EQ(g.stats().led, 0U);
  EXPECT_EQ(g.stats().in_flight, 0U);
  watched_call call(g);
  expect_error(g, {.stop = stop.get_token()}, std::errc::operation_canceled);
  EXPECT_EQ(g.stats().joined, 0U);
  EXPECT_EQ(g.stats().rejected, 2U);
  EXPECT_EQ(g.stats().cancelled, 2U);
  call.end(42);
  EXPECT_FALSE(call.shared);
  EXPECT_EQ(call.stops, 0);
}

TEST(Stop, OrDeadlineEndsTheWaitWhicheverComesFirst) {
  group<int, int> g;
  watched_call call(g);
  std::stop_source stop, never;
  support::threads followers;
  followers.start([&] {
    expect_error(g, {.deadline = clock::now() + 1h, .stop = stop.get_token()},
                 std::errc::operation_canceled);
  });
  followers.start(
      [&] { expect_value(g, {.deadline = clock::now() + 1h, .stop = never.get_token()}, 42); });
  support::await_followers(g, 2);
  while (g.stats().joined == 2) {
    expect_error(g, {.deadline = clock::now() + 5ms, .stop = never.get_token()},
                 std::errc::timed_out);
  }
  EXPECT_EQ(g.stats().waiting, 2U);
  stop.request_stop();
  support::await_followers(g, 1);
  EXPECT_EQ(g.stats().cancelled, 1U);
  EXPECT_EQ(call.stops, 0);
  call.end(42);
}

/// Keeps this thread busy for that time, so that over many rounds a race goes either way.
void keep_busy(std::chrono::nanoseconds time) {
  const auto until = clock::now() + time;
  while (clock::now() < until) {
  }
}

TEST(Stop, RacingTheEndOfTheCallGivesTheValueOrCancels) {
  constexpr std::uint64_t rounds = 1'000;
  const auto seed = std::random_device{}();
  SCOPED_TRACE(testing::Message() << "seed " << seed);
  std::mt19937 random(seed);
  group<int, int> g;
  std::uint64_t values = 0, cancelled = 0;
  for (std::uint64_t round = 1; round <= rounds; ++round) {
    std::stop_source stop;
    const std::chrono::nanoseconds delay(random() % 60'000);
    support::latch ending(2);
    std::atomic<int> stops{0};
    support::threads others;
    others.start([&] {
      ending.arrive_and_wait();
      stop.request_stop();
    });
    auto led = g.do_call(0, [&](std::stop_token token) {
      const std::stop_callback count(token, [&] { ++stops; });
      others.start([&] {
        try {
          const int value = g.do_call(0, call_options{.stop = stop.get_token()}, [] { return 0; });
          EXPECT_EQ(value, 42);
          ++values;
        } catch (const call_error& e) {
          EXPECT_EQ(e.code(), std::errc::operation_canceled);
          ++cancelled;
        }
      });
      support::await_followers(g, 1);
      ending.arrive_and_wait();
      keep_busy(delay);
      return 42;
    });
    EXPECT_EQ(*led, 42);
    others.join();
    EXPECT_EQ(stops, 0);
  }
  EXPECT_EQ(values + cancelled, rounds);
  EXPECT_EQ(g.stats().cancelled, cancelled);
  EXPECT_EQ(g.stats().led, rounds);
  EXPECT_EQ(g.stats().joined, rounds);
  EXPECT_EQ(g.stats().in_flight, 0U);
  EXPECT_EQ(g.stats().waiting, 0U);
}

// Calls live in their leaders' frames, and each round's takes the place of the last one's: a late
// stop request must not reach the next call.
TEST(Stop, OfALeaderThatIsReturningTouchesNoCallButItsOwn) {
  constexpr int rounds = 3'000;
  const auto seed = std::random_device{}();
  SCOPED_TRACE(testing::Message() << "seed " << seed);
  std::mt19937 random(seed);
  group<int, int> g;
  std::array<std::stop_source, 2> stops;
  std::atomic<int> ended{0};
  support::threads stopper;
  for (int round = 0; round < rounds; ++round) {
    auto& stop = stops[static_cast<std::size_t>(round % 2)] = std::stop_source();
    const std::chrono::nanoseconds delay(random() % 50'000);
    support::latch ending(2);
    stopper.start([&] {
      ending.arrive_and_wait();
      keep_busy(delay);
      stop.request_stop();
    });
    auto stopped = g.do_call(0, call_options{.stop = stop.get_token()}, [&](std::stop_token) {
      ending.arrive_and_wait();
      return round;
    });
    EXPECT_EQ(*stopped, round);
    auto next = g.do_call(0, [&](std::stop_token token) {
      stopper.join();
      EXPECT_FALSE(token.stop_requested());
      EXPECT_EQ(g.in_flight().size(), 1U);
      return ++ended;
    });
    EXPECT_TRUE(next.led());
  }
  EXPECT_EQ(ended, rounds);
  EXPECT_LE(g.stats().cancelled, std::uint64_t{rounds});
  EXPECT_EQ(g.stats().in_flight, 0U);
}

TEST(Stop, OrDeadlineOfACrowdLeavesNobodyBehind) {
  constexpr std::size_t callers = 8, entries_each = 300;
  group<int, int> g;
  std::vector<std::vector<std::stop_source>> stops(callers);
  for (auto& of_one : stops) of_one.resize(entries_each);
  std::atomic<std::size_t> left{0};
  support::held_call held(g);
  support::threads(callers, [&](std::size_t caller) {
    for (std::size_t i = 0; i < entries_each; ++i) {
      stops[(caller + 1) % callers][i].request_stop();
      try {
        (void)g.do_call(0,
                        call_options{.deadline = clock::now() + std::chrono::microseconds(i % 100),
                                     .stop = stops[caller][i].get_token()},
                        [] { return 0; });
      } catch (const call_error&) {
        ++left;
      }
    }
  });
  EXPECT_EQ(left, callers * entries_each);
  EXPECT_EQ(g.stats().timed_out + g.stats().cancelled, callers * entries_each);
  EXPECT_EQ(g.stats().waiting, 0U);
  held.end(42);
  EXPECT_EQ(held.value, 42);
}

TEST(StopToken, OfACallThatNobodyLeavesIsNeverTriggered) {
  group<int, int> g;
  std::stop_source stop;
  std::stop_token seen;
  const auto load = [&](std::stop_token token) {
    EXPECT_TRUE(token.stop_possible());
    EXPECT_FALSE(token.stop_requested());
    seen = token;
    return 42;
  };
  EXPECT_EQ(*g.do_call(0, load), 42);
  EXPECT_FALSE(seen.stop_requested());
  EXPECT_EQ(*g.do_call(0, call_options{.stop = stop.get_token()}, load), 42);
  stop.request_stop();
  EXPECT_FALSE(seen.stop_requested());
  EXPECT_EQ(g.stats().cancelled, 0U);
}

TEST(StopToken, IsNotGivenToALoaderThatIsCallableWithNothing) {
  struct loader {
    std::string operator()() const { return "without"; }
    std::string operator()(const std::stop_token& token) const {
      return token.stop_possible() ? "with" : "with an empty one";
    }
  };
  group<int, std::string> g;
  EXPECT_EQ(*g.do_call(0, loader()), "without");
}

}  // namespace

#endif
