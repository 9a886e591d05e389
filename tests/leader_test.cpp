// SPDX-License-Identifier: MIT
// The leadership token: lead here, complete elsewhere.
#include <gtest/gtest.h>

#include <atomic>
#include <chrono>
#include <exception>
#include <functional>
#include <memory>
#include <optional>
#include <singleflight/group.hpp>
#include <stdexcept>
#include <string>
#include <system_error>
#include <thread>
#include <tuple>
#include <type_traits>
#include <utility>
#include <variant>
#include <vector>

#include "async_callers.hpp"
#include "executors.hpp"
#include "support.hpp"
#if defined(__cpp_lib_jthread)
#include <stop_token>
#endif

namespace {

using namespace support;
using singleflight::call_error;
using singleflight::leader;
using singleflight::outcome;
using singleflight::result;
using singleflight::resume_inline;

using led_or_followed = std::variant<result<int>, leader<int>>;

static_assert(std::is_nothrow_move_constructible_v<leader<int>>);
static_assert(std::is_nothrow_move_assignable_v<leader<int>>);
static_assert(!std::is_copy_constructible_v<leader<int>>);
static_assert(!std::is_copy_assignable_v<leader<int>>);
static_assert(!std::is_default_constructible_v<leader<int>>);

leader<int> lead(group& flights, int key) {
  led_or_followed r = flights.lead_or_follow(key);
  EXPECT_TRUE(std::holds_alternative<leader<int>>(r));
  return std::get<leader<int>>(std::move(r));
}

/// A follower in a thread, and what it got.
class follower {
 public:
  explicit follower(group& flights, int key = 1) {
    const auto before = flights.stats().waiting;
    thread_.start([this, &flights, key] {
      try {
        led_or_followed r = flights.lead_or_follow(key);
        if (auto* const got = std::get_if<result<int>>(&r)) {
          said_.set(*got);
        } else {
          ADD_FAILURE() << "leads";
        }
      } catch (...) {
        said_.fail(std::current_exception());
      }
    });
    await([&] { return flights.stats().waiting == before + 1; }, "the follower");
  }
  const seen& back() {
    thread_.join();
    return said_;
  }

 private:
  seen said_;
  threads thread_;
};

TEST(LeadOrFollow, ReturnsTheLeaderAtOnceAndTheResultToTheOthers) {
  group flights;
  leader<int> mine = lead(flights, 1);
  EXPECT_EQ(flights.stats().led, 1U);
  EXPECT_EQ(flights.stats().in_flight, 1U);
  EXPECT_EQ(flights.stats().waiting, 0U);
  follower other(flights);
  std::move(mine).set_value(4);
  EXPECT_EQ(other.back().value(), 4);
  EXPECT_EQ(flights.stats().joined, 1U);
  expect_idle(flights);
}

TEST(LeadOrFollow, FollowsTheCallsOfThreadsAndCoroutines) {
  group flights;
  std::optional<leader<int>> other;
  seen first;
  flights.async_call(1, resume_inline, {}, keep(other), std::ref(first));
  follower waits(flights);
  std::move(*other).set_value(3);
  EXPECT_EQ(waits.back().value(), 3);
  EXPECT_EQ(first.value(), 3);
}

TEST(LeadOrFollow, LeavesAtItsDeadlineAsDoCallDoes) {
  group flights;
  leader<int> mine = lead(flights, 1);
  EXPECT_EQ(call_error_of(thrown_by([&] {
              std::ignore = flights.lead_or_follow(1, {.timeout = std::chrono::milliseconds(1)});
            })),
            std::errc::timed_out);
  EXPECT_THROW(std::ignore = flights.lead_or_follow(1, {.attempts = 0}), std::invalid_argument);
  EXPECT_EQ(flights.stats().timed_out, 1U);
  std::move(mine).set_value(1);
}

TEST(LeadOrFollow, TriesAgainAndThenLeads) {
  group flights;
  leader<int> mine = lead(flights, 1);
  std::optional<leader<int>> next;
  threads other;
  other.start([&] {
    led_or_followed r = flights.lead_or_follow(1, {.attempts = 2});
    next.emplace(std::get<leader<int>>(std::move(r)));
  });
  await_followers(flights, 1);
  std::move(mine).set_exception(std::make_exception_ptr(std::runtime_error("no")));
  other.join();
  ASSERT_TRUE(next.has_value());
  std::move(*next).set_value(2);
  expect_idle(flights);
}

TEST(LeadOrFollow, TakesOverFromACallThatIsTooOld) {
  group flights({.max_age = std::chrono::nanoseconds(1)});
  leader<int> old = lead(flights, 1);
  const auto begun = std::chrono::steady_clock::now();
  await([&] { return std::chrono::steady_clock::now() > begun; }, "the clock");
  leader<int> fresh = lead(flights, 1);
  EXPECT_TRUE(old.forgotten());
  std::move(old).set_value(1);
  EXPECT_EQ(flights.in_flight().size(), 1U);
  std::move(fresh).set_value(2);
  expect_idle(flights);
}

TEST(LeadOrFollow, RunsAloneBesideACallThatIsFull) {
  group flights({.max_waiters = 0, .when_full = singleflight::group_options::run_alone});
  leader<int> listed = lead(flights, 1);
  leader<int> alone = lead(flights, 1);
  EXPECT_EQ(flights.in_flight().size(), 1U);
  std::move(alone).set_value(1);
  std::move(listed).set_value(2);
  expect_idle(flights);
}

// --- Ending ------------------------------------------------------------------------------------------

TEST(Leader, EndsItsCallOnAnyThread) {
  group flights;
  leader<int> mine = lead(flights, 1);
  follower other(flights);
  std::thread([l = std::move(mine)]() mutable { std::move(l).set_value(6); }).join();
  EXPECT_EQ(other.back().value(), 6);
}

TEST(Leader, ThatIsDroppedFailsTheCallWithOwnerDead) {
  group flights;
  std::optional<leader<int>> mine = lead(flights, 1);
  follower other(flights);
  seen callback;
  flights.async_call(1, resume_inline, {}, never, std::ref(callback));
  mine.reset();
  EXPECT_EQ(other.back().code(), std::errc::owner_dead);
  EXPECT_EQ(callback.code(), std::errc::owner_dead);
  expect_same(other.back().error(), callback.error());
  EXPECT_EQ(flights.stats().failed, 1U);
  expect_idle(flights);
}

// Those who brought a loader and may try again elect one of them.
TEST(Leader, ThatIsDroppedIsSucceededByOneOfThoseWhoMayTryAgain) {
  group flights;
  std::optional<leader<int>> mine = lead(flights, 1);
  std::optional<leader<int>> next;
  std::vector<seen> said(3);
  int begun = 0;
  const auto start = [&](leader<int> l) {
    ++begun;
    next.emplace(std::move(l));
  };
  for (seen& s : said) flights.async_call(1, resume_inline, {.attempts = 2}, start, std::ref(s));
  mine.reset();
  EXPECT_EQ(begun, 1);
  std::move(*next).set_value(5);
  for (const seen& s : said) EXPECT_EQ(s.value(), 5);
}

TEST(Leader, ThatIsAssignedToGivesUpWhatItLed) {
  group flights;
  seen one;
  seen two;
  std::optional<leader<int>> first;
  std::optional<leader<int>> second;
  flights.async_call(1, resume_inline, {}, keep(first), std::ref(one));
  flights.async_call(2, resume_inline, {}, keep(second), std::ref(two));
  *first = std::move(*second);
  EXPECT_EQ(one.code(), std::errc::owner_dead);
  EXPECT_FALSE(two.came());
  second.reset();  // moved from: ends nothing
  EXPECT_FALSE(two.came());
  std::move(*first).set_value(2);
  EXPECT_EQ(two.value(), 2);
}

TEST(Leader, MayBeMovedToItself) {
  group flights;
  leader<int> mine = lead(flights, 1);
  leader<int>& same = mine;
  mine = std::move(same);
  EXPECT_EQ(flights.stats().in_flight, 1U);
  std::move(mine).set_value(1);
  expect_idle(flights);
}

// One that has ended its call may be assigned to, and used for the next.
TEST(Leader, MayBeUsedForTheNextCall) {
  group flights;
  leader<int> mine = lead(flights, 1);
  std::move(mine).set_value(1);
  mine = lead(flights, 1);
  std::move(mine).set_value(2);
  EXPECT_EQ(flights.stats().led, 2U);
  EXPECT_EQ(flights.stats().failed, 0U);
  expect_idle(flights);
}

TEST(Leader, EndsItsCallWithWhatAFunctionReturnsOrThrows) {
  group flights;
  seen value;
  seen error;
  std::optional<leader<int>> mine;
  flights.async_call(1, resume_inline, {}, keep(mine), std::ref(value));
  std::move(*mine).set_from([&] {
    EXPECT_FALSE(mine->forgotten());  // it may still ask
    return 3;
  });
  EXPECT_EQ(value.value(), 3);
  flights.async_call(1, resume_inline, {}, keep(mine), std::ref(error));
  std::move(*mine).set_from([]() -> int { throw std::runtime_error("thrown"); });
  EXPECT_EQ(text_of(error.error()), "thrown");

  singleflight::group<int, void> nothing;
  std::optional<leader<void>> of_nothing;
  bool done = false;
  nothing.async_call(1, resume_inline, {}, keep(of_nothing),
                     [&](const outcome<void>& o) { done = o.has_value(); });
  bool ran = false;
  std::move(*of_nothing).set_from([&] { ran = true; });
  EXPECT_TRUE(ran);
  EXPECT_TRUE(done);
}

#if defined(SINGLEFLIGHT_TESTS_THREAD_EXIT_UNWINDS)
TEST(Leader, FailsItsCallWithAFunctionThatEndsItsThread) {
  group flights;
  seen got;
  std::optional<leader<int>> mine;
  flights.async_call(1, resume_inline, {}, keep(mine), std::ref(got));
  std::thread([&] { std::move(*mine).set_from([]() -> int { pthread_exit(nullptr); }); }).join();
  EXPECT_EQ(got.code(), std::errc::owner_dead);
  EXPECT_EQ(text_of(got.error()).rfind("singleflight: the leader's thread ended", 0), 0U);
  expect_idle(flights);
}
#endif

// The value is that of the group: what converts to it is converted before the call ends.
TEST(Leader, ConvertsTheValue) {
  singleflight::group<int, std::string> flights;
  auto r = flights.lead_or_follow(1);
  auto& mine = std::get<leader<std::string>>(r);
  std::optional<std::string> got;
  flights.async_call(1, resume_inline, {}, never,
                     [&](const outcome<std::string>& o) { got = o.value(); });
  std::move(mine).set_value("text");
  EXPECT_EQ(got, "text");
}

// --- Lifetime ----------------------------------------------------------------------------------------

TEST(Leader, MayOutliveItsGroup) {
  std::optional<group> flights(std::in_place);
  seen first;
  std::optional<leader<int>> mine;
  flights->async_call(1, resume_inline, {}, keep(mine), std::ref(first));
  flights.reset();
  EXPECT_FALSE(first.came());
  std::move(*mine).set_value(9);
  EXPECT_EQ(first.value(), 9);
}

TEST(Leader, MayBeDroppedAfterItsGroup) {
  std::optional<group> flights(std::in_place);
  std::optional<leader<int>> mine = lead(*flights, 1);
  flights.reset();
  mine.reset();
}

TEST(Leader, HasTheCallForgottenWhileItIsOut) {
  group flights;
  leader<int> old = lead(flights, 1);
  EXPECT_FALSE(old.forgotten());
  EXPECT_TRUE(flights.forget(1));
  EXPECT_TRUE(old.forgotten());
  leader<int> fresh = lead(flights, 1);
  EXPECT_FALSE(fresh.forgotten());
  std::move(old).set_value(1);
  EXPECT_EQ(flights.in_flight().size(), 1U);
  std::move(fresh).set_value(2);
}

TEST(Leader, OfAnUnsharedCallCanBeForgottenAsUnshared) {
  group flights;
  leader<int> mine = lead(flights, 1);
  EXPECT_TRUE(flights.forget_unshared(1));
  std::move(mine).set_value(1);
  leader<int> next = lead(flights, 1);
  seen joined;
  flights.async_call(1, resume_inline, {}, never, std::ref(joined));
  EXPECT_FALSE(flights.forget_unshared(1));
  std::move(next).set_value(2);
}

#if defined(__cpp_lib_jthread)

// The caller of lead_or_follow stays interested, so nobody's leaving stops the work.
TEST(LeadersToken, IsNotTriggeredWhileTheCallerOfLeadOrFollowLeads) {
  group flights;
  leader<int> mine = lead(flights, 1);
  const std::stop_token told = mine.stop_token();
  std::stop_source stop;
  seen left;
  flights.async_call(1, resume_inline, {.stop = stop.get_token()}, never, std::ref(left));
  stop.request_stop();
  EXPECT_EQ(left.code(), std::errc::operation_canceled);
  EXPECT_FALSE(told.stop_requested());
  EXPECT_EQ(flights.in_flight().size(), 1U);
  std::move(mine).set_value(1);
}

// The token is made when it is first asked for: also when it is too late.
TEST(LeadersToken, IsTheSameBeforeAndAfterTheLastCallerHasLeft) {
  for (const bool before : {true, false}) {
    group flights;
    std::stop_source stop;
    std::optional<leader<int>> mine;
    seen first;
    flights.async_call(1, resume_inline, {.stop = stop.get_token()}, keep(mine), std::ref(first));
    int calls = 0;
    const auto count = [&] { ++calls; };
    std::optional<std::stop_callback<std::function<void()>>> told;
    if (before) told.emplace(mine->stop_token(), count);
    stop.request_stop();
    if (!before) told.emplace(mine->stop_token(), count);
    EXPECT_EQ(calls, 1);
    EXPECT_TRUE(mine->stop_token().stop_requested());
    EXPECT_TRUE(mine->context().stop_token().stop_requested());
    std::move(*mine).set_value(1);
    EXPECT_EQ(calls, 1);
  }
}

TEST(LeadersToken, IsNotTriggeredByTheEndOfTheCall) {
  group flights;
  std::optional<leader<int>> mine;
  seen first;
  flights.async_call(1, resume_inline, {}, keep(mine), std::ref(first));
  const std::stop_token told = mine->stop_token();
  std::move(*mine).set_value(1);
  EXPECT_FALSE(told.stop_requested());
}

// A thread that waits and can be stopped.
TEST(LeadOrFollow, LeavesAtItsStopRequest) {
  group flights;
  leader<int> mine = lead(flights, 1);
  std::stop_source stop;
  std::exception_ptr why;
  threads other;
  other.start([&] {
    why = thrown_by([&] { std::ignore = flights.lead_or_follow(1, {.stop = stop.get_token()}); });
  });
  await_followers(flights, 1);
  stop.request_stop();
  other.join();
  EXPECT_EQ(call_error_of(why), std::errc::operation_canceled);
  std::move(mine).set_value(1);
}

#endif

}  // namespace
