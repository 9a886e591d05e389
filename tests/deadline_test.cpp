// SPDX-License-Identifier: MIT
// A caller's deadline is its own: it leaves, and neither the leader nor the other followers notice.

#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <future>
#include <random>
#include <ratio>
#include <singleflight/group.hpp>
#include <system_error>
#include <thread>

#include "executors.hpp"
#include "held_call.hpp"
#include "replaced_new.hpp"
#include "support.hpp"

namespace {

using singleflight::call_error;
using singleflight::call_options;
using singleflight::group;
using support::held_call;
using clock = std::chrono::steady_clock;
using namespace std::chrono_literals;

void expect_timed_out(group<int, int>& g, clock::time_point deadline) {
  support::expect_error(g, {.deadline = deadline}, std::errc::timed_out);
}

/// Follows the call for key 0 until a deadline. (A caller that the scheduler holds up until then is
/// refused when it enters, and tries again.)
void follow_until_a_deadline(group<int, int>& g) {
  const auto followed = [&g] { return g.stats().timed_out - g.stats().rejected; };
  const auto before = followed();
  support::await(
      [&] {
        expect_timed_out(g, clock::now() + 5ms);
        return followed() > before;
      },
      "a caller to follow before its deadline");
}

TEST(Deadline, OfOneFollowerIsNoticedByNobodyElse) {
  group<int, int> g;
  held_call call(g);
  support::threads others(3, [&](std::size_t) {
    auto result = g.do_call(0, [] { return 0; });
    EXPECT_EQ(*result, 42);
    EXPECT_FALSE(result.led());
  });
  support::await_followers(g, 3);
  follow_until_a_deadline(g);
  EXPECT_EQ(g.stats().joined, 4U);
  EXPECT_EQ(g.stats().waiting, 3U);
  EXPECT_EQ(g.stats().in_flight, 1U);
  EXPECT_EQ(g.in_flight().at(0).waiters, 3U);
  call.end(42);
  others.join();
  EXPECT_EQ(call.value, 42);
  EXPECT_TRUE(call.shared);
  EXPECT_EQ(g.stats().failed, 0U);
  EXPECT_EQ(g.stats().waiting, 0U);
}

TEST(Deadline, ThatHasPassedAlreadyLeavesNoTrace) {
  group<int, int> g;
  for (auto deadline : {clock::now(), clock::now() - 24h, clock::time_point::min()}) {
    expect_timed_out(g, deadline);
  }
  EXPECT_TRUE(g.in_flight().empty());
  const auto stats = g.stats();
  EXPECT_EQ(stats.in_flight, 0U);
  EXPECT_EQ(stats.waiting, 0U);
  EXPECT_EQ(stats.led, 0U);
  EXPECT_EQ(stats.failed, 0U);
  EXPECT_EQ(stats.timed_out, 3U);
  EXPECT_EQ(stats.rejected, 3U);
}

TEST(Deadline, ThatHasPassedAlreadyJoinsNoCallEither) {
  group<int, int> g;
  held_call call(g);
  expect_timed_out(g, clock::now());
  EXPECT_EQ(g.stats().joined, 0U);
  EXPECT_EQ(g.stats().rejected, 1U);
  EXPECT_EQ(g.stats().timed_out, 1U);
  call.end(42);
  EXPECT_EQ(call.value, 42);
  EXPECT_FALSE(call.shared);
}

TEST(Deadline, OfALeaderDoesNotInterruptIt) {
  group<int, int> g;
  support::await(
      [&] {
        const call_options options{.deadline = clock::now() + 5ms};
        bool ran = false;
        try {
          auto result = g.do_call(0, options, [&] {
            ran = true;
            support::await([&] { return clock::now() > options.deadline; }, "the deadline");
            return 42;
          });
          EXPECT_EQ(*result, 42);
          EXPECT_TRUE(result.led());
        } catch (const call_error&) {
          EXPECT_FALSE(ran);  // the scheduler held it up until its deadline
        }
        return g.stats().led == 1;
      },
      "a caller to lead before its deadline");
  EXPECT_EQ(g.stats().led, 1U);
  EXPECT_EQ(g.stats().timed_out, g.stats().rejected);
  EXPECT_EQ(g.stats().failed, 0U);
}

TEST(Deadline, ThatIsFarAwayGivesTheValue) {
  group<int, int> g;
  held_call call(g);
  support::threads followers;
  for (auto deadline : {clock::now() + 1h, clock::time_point::max() - clock::duration(1),
                        clock::time_point::max()}) {
    followers.start([&g, deadline] {
      auto result = g.do_call(0, call_options{.deadline = deadline}, [] { return 0; });
      EXPECT_EQ(*result, 42);
      EXPECT_TRUE(result.shared());
      EXPECT_FALSE(result.led());
    });
  }
  support::await_followers(g, 3);
  follow_until_a_deadline(g);
  EXPECT_EQ(g.stats().waiting, 3U);
  call.end(42);
}

TEST(Deadline, StartsTheTimeThatSomebodyHasWaitedAnew) {
  group<int, int> g;
  held_call call(g);
  const auto waited = [&g] { return g.in_flight().at(0).waited; };
  follow_until_a_deadline(g);
  EXPECT_EQ(g.in_flight().at(0).waiters, 0U);
  EXPECT_EQ(waited(), 0ns);
  const auto no_follower = clock::now();
  support::threads follower(1,
                            [&](std::size_t) { EXPECT_EQ(*g.do_call(0, [] { return 0; }), 42); });
  support::await_followers(g, 1);
  support::await([&] { return waited() > 0ns; }, "the follower to have waited");
  const auto longest = waited();
  EXPECT_LE(longest, clock::now() - no_follower);
  call.end(42);
}

TEST(Deadline, RacingTheEndOfTheCallGivesTheValueOrTimesOut) {
  constexpr int rounds = 1'000;
  const auto seed = std::random_device{}();
  SCOPED_TRACE(testing::Message() << "seed " << seed);
  std::mt19937 random(seed);
  group<int, int> g;
  std::uint64_t timed_out = 0;
  for (int round = 1; round <= rounds; ++round) {
    const std::chrono::microseconds late(static_cast<int>(random() % 150) - 20);
    const auto entered = static_cast<std::uint64_t>(round);
    std::atomic<clock::time_point> deadline;
    support::threads follower;
    auto led = g.do_call(0, [&] {
      follower.start([&] {
        deadline = clock::now() + 50us;
        try {
          auto followed = g.do_call(0, call_options{.deadline = deadline}, [] { return 0; });
          EXPECT_EQ(*followed, round);
        } catch (const call_error& e) {
          EXPECT_EQ(e.code(), std::errc::timed_out);
          ++timed_out;
        }
      });
      support::await([&] { return g.stats().joined + g.stats().rejected == entered; }, "the other");
      while (clock::now() < deadline.load() + late) {
      }
      return round;
    });
    EXPECT_EQ(*led, round);
    EXPECT_TRUE(led.led());
    follower.join();
  }
  const auto stats = g.stats();
  EXPECT_EQ(stats.led + stats.joined + stats.rejected, 2U * rounds);
  EXPECT_EQ(stats.timed_out, timed_out);
  EXPECT_EQ(stats.in_flight, 0U);
  EXPECT_EQ(stats.waiting, 0U);
}

TEST(Deadline, OfAMillionFollowersOfOneCallLeavesNoMemoryBehind) {
#if defined(SINGLEFLIGHT_TESTS_SANITIZED)
  constexpr std::uint64_t followers = 100'000;
#else
  constexpr std::uint64_t followers = 1'000'000;
#endif
  group<int, int> g({.shards = 1});
  held_call call(g);
  // Several at once, since each sleeps until its deadline and a little longer.
  const auto follow_until = [&](std::uint64_t joined) {
    support::threads(16, [&](std::size_t) {
      while (g.stats().joined < joined) expect_timed_out(g, clock::now() + 20us);
    });
  };
  follow_until(1'000);
  const std::int64_t at_first = support::live_bytes;
  follow_until(followers);
  EXPECT_EQ(support::live_bytes, at_first);
  EXPECT_EQ(g.stats().waiting, 0U);
  EXPECT_EQ(g.in_flight().size(), 1U);
  call.end(42);
  EXPECT_EQ(call.value, 42);
}

TEST(Timeout, MakesAFollowerLeave) {
  group<int, int> g;
  held_call call(g);
  const auto told =
      support::thrown_by([&] { (void)g.do_call(0, {.timeout = 1ms}, [] { return 1; }); });
  EXPECT_EQ(support::call_error_of(told), std::errc::timed_out);
  EXPECT_GE(clock::now() - call.begun, 1ms);
  EXPECT_EQ(g.stats().timed_out, 1U);
  call.end(42);
}

TEST(Timeout, ThatIsNotPositiveIsOver) {
  group<int, int> g;
  for (const auto timeout : {0ms, -1ms}) {
    const auto told =
        support::thrown_by([&] { (void)g.do_call(0, {.timeout = timeout}, [] { return 1; }); });
    EXPECT_EQ(support::call_error_of(told), std::errc::timed_out);
  }
  EXPECT_EQ(g.stats().led, 0U);
  EXPECT_EQ(g.stats().rejected, 2U);
}

TEST(Timeout, AndDeadlineHoldTheEarlierOne) {
  group<int, int> g;
  held_call call(g);
  for (const call_options& options :
       {call_options{.deadline = clock::now() + 1h, .timeout = 1ms},
        call_options{.deadline = clock::now() + 1ms, .timeout = 1h}}) {
    const auto told = support::thrown_by([&] { (void)g.do_call(0, options, [] { return 1; }); });
    EXPECT_EQ(support::call_error_of(told), std::errc::timed_out);
  }
  call.end(42);
}

TEST(Timeout, EndsTheWaitOfACallersOwnCallOnAnExecutor) {
  group<int, int> g;
  support::task_queue queue;
  const auto told = support::thrown_by(
      [&] { (void)g.do_call_on(0, std::ref(queue), {.timeout = 1ms}, [] { return 1; }); });
  EXPECT_EQ(support::call_error_of(told), std::errc::timed_out);
  queue.run();
}

// `now() + hours::max()` overflows before a library can see it; a timeout does not.
TEST(Timeout, ThatTheClockCannotHoldIsNone) {
  group<int, int> g;
  for (const call_options& options : {call_options{.timeout = std::chrono::hours::max()},
                                      call_options{.timeout = std::chrono::nanoseconds::max()},
                                      call_options{.timeout = std::chrono::seconds::max()},
                                      call_options{.timeout = std::chrono::duration<double>(1e300)},
                                      call_options{.timeout = clock::duration::max() - 1ns}}) {
    EXPECT_EQ(*g.do_call(0, options, [] { return 42; }), 42);
    held_call call(g);
    support::threads follower(
        1, [&](std::size_t) { EXPECT_EQ(*g.do_call(0, options, [] { return 0; }), 42); });
    support::await_followers(g, 1);
    call.end(42);
  }
}

TEST(Timeout, ThatTheClockCannotHoldIsOverIfItIsNegative) {
  group<int, int> g;
  // An hour more than the clock can hold; as a number of nanoseconds it would be positive.
  const auto past = std::chrono::duration_cast<std::chrono::hours>(clock::duration::min()) - 1h;
  const auto told =
      support::thrown_by([&] { (void)g.do_call(0, {.timeout = past}, [] { return 1; }); });
  EXPECT_EQ(support::call_error_of(told), std::errc::timed_out);
}

TEST(Deadline, MayBeOfAnyUnitOfTheClock) {
  group<int, int> g;
  using std::chrono::time_point;
  using days = std::chrono::duration<std::int64_t, std::ratio<86'400>>;
  held_call call(g);
  support::threads followers(3, [&](std::size_t i) {
    const call_options options[] = {
        {.deadline = clock::now() + std::chrono::duration<double>(3600.5)},
        {.deadline = time_point<clock, days>::max()},
        {.deadline = time_point<clock, std::chrono::hours>(std::chrono::hours::max())}};
    EXPECT_EQ(*g.do_call(0, options[i], [] { return 0; }), 42);
  });
  support::await_followers(g, 3);
  call.end(42);
}

TEST(MaxAge, ThatTheClockCannotHoldIsNone) {
  group<int, int> g({.max_age = std::chrono::hours::max()});
  held_call call(g);
  support::threads follower(1,
                            [&](std::size_t) { EXPECT_EQ(*g.do_call(0, [] { return 0; }), 42); });
  support::await_followers(g, 1);
  call.end(42);
}

}  // namespace
