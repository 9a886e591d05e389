// SPDX-License-Identifier: MIT
// The types that a value may have, how it is taken out of a result, and its lifetime.

#include <gtest/gtest.h>

#include <atomic>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <exception>
#include <memory>
#include <optional>
#include <singleflight/group.hpp>
#include <stdexcept>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#include "support.hpp"

namespace {

using singleflight::group;
using singleflight::result;

static_assert(std::movable<result<int>> && !std::copyable<result<int>>);
static_assert(!std::is_copy_constructible_v<result<int>> &&
              !std::is_copy_assignable_v<result<int>>);
static_assert(std::same_as<decltype(std::declval<result<int>&>().value()), const int&>);
static_assert(std::same_as<decltype(std::declval<result<int>>().value()), int>);
static_assert(std::is_convertible_v<result<int>, int>);
static_assert(!std::is_convertible_v<result<int>&, int>);

using move_only = std::unique_ptr<int>;
static_assert(std::movable<result<move_only>>);
static_assert(std::same_as<decltype(std::declval<result<move_only>&>().value()), const move_only&>);
static_assert(!std::is_constructible_v<move_only, result<move_only>>);
static_assert(!std::is_convertible_v<result<move_only>, move_only>);

struct no_default {
  explicit no_default(int n) : number(n) {}
  int number;
};

struct alignas(128) over_aligned {
  char bytes[256] = {};
};

// These two have no default constructor: MSVC's std::promise would use it, and then assign.
struct throws_when_copied {
  explicit throws_when_copied(int) {}
  throws_when_copied(throws_when_copied&&) = default;
  throws_when_copied(const throws_when_copied&) { throw std::runtime_error("copied"); }
};

struct throws_when_moved {
  explicit throws_when_moved(int) {}
  throws_when_moved(throws_when_moved&&) { throw std::runtime_error("moved"); }
};

struct counts_copies {
  explicit counts_copies(int& n) : copies(&n) {}
  counts_copies(counts_copies&&) = default;
  counts_copies(const counts_copies& other) : copies(other.copies) { ++*copies; }
  int* copies;
};

// Leads a call for key 0 that `n` threads join by `follow()`.
template <class Group, class Load, class Follow>
auto lead_for(Group& g, std::size_t n, support::threads& followers, const Load& load,
              const Follow& follow) {
  return g.do_call(0, [&] {
    for (std::size_t i = 0; i < n; ++i) followers.start(follow);
    support::await([&] { return g.stats().joined == n; }, "the followers to have joined");
    return load();
  });
}

TEST(Value, MayBeVoid) {
  group<int, void> g;
  auto alone = g.do_call(0, [] {});
  EXPECT_TRUE(alone.led());
  EXPECT_FALSE(alone.shared());
  support::threads follower;
  auto led = lead_for(
      g, 1, follower, [] {},
      [&] {
        auto followed = g.do_call(0, [] {});
        followed.value();
        *followed;
        EXPECT_FALSE(followed.led());
        EXPECT_TRUE(followed.shared());
      });
  EXPECT_TRUE(led.led());
  EXPECT_TRUE(led.shared());
}

TEST(Value, MayBeMoveOnly) {
  group<int, move_only> g;
  auto alone = g.do_call(0, [] { return std::make_unique<int>(42); });
  EXPECT_EQ(*alone.value(), 42);
  EXPECT_EQ(**alone, 42);
  support::threads followers;
  auto led = lead_for(
      g, 4, followers, [] { return std::make_unique<int>(42); },
      [&] {
        const auto followed = g.do_call(0, [] { return move_only(); });
        EXPECT_EQ(**followed, 42);
      });
  auto moved = std::move(led);
  EXPECT_EQ(**moved, 42);
}

TEST(Value, NeedsNoDefaultConstructor) {
  group<int, no_default> g;
  EXPECT_EQ((*g.do_call(0, [] { return no_default(1); })).number, 1);
  support::threads follower;
  auto led = lead_for(
      g, 1, follower, [] { return no_default(2); },
      [&] {
        const no_default taken = g.do_call(0, [] { return no_default(0); });
        EXPECT_EQ(taken.number, 2);
      });
  EXPECT_EQ(led->number, 2);
}

TEST(Value, MayBeOverAligned) {
  const auto misaligned_by = [](const over_aligned& v) {
    return reinterpret_cast<std::uintptr_t>(&v) % alignof(over_aligned);
  };
  group<int, over_aligned> g;
  auto alone = g.do_call(0, [] { return over_aligned(); });
  EXPECT_EQ(misaligned_by(*alone), 0U);
  support::threads follower;
  auto led = lead_for(
      g, 1, follower, [] { return over_aligned(); },
      [&] {
        auto followed = g.do_call(0, [] { return over_aligned(); });
        EXPECT_EQ(misaligned_by(*followed), 0U);
      });
  EXPECT_EQ(misaligned_by(*led), 0U);
}

TEST(Value, ThatThrowsWhenCopiedThrowsOnlyAtWhoTakesACopy) {
  group<int, throws_when_copied> g;
  const auto make = [] { return throws_when_copied(0); };
  EXPECT_NO_THROW((void)g.do_call(0, make).value());
  std::atomic<std::size_t> returned{0}, threw{0};
  support::threads followers;
  auto led = lead_for(g, 4, followers, make, [&] {
    auto followed = g.do_call(0, make);
    if (returned++ % 2 == 0) return;
    try {
      [[maybe_unused]] const throws_when_copied taken = std::move(followed);
    } catch (const std::runtime_error&) {
      ++threw;
    }
  });
  EXPECT_NO_THROW((void)*led);
  EXPECT_THROW((void)std::move(led).value(), std::runtime_error);
  followers.join();
  EXPECT_EQ(returned, 4U);
  EXPECT_EQ(threw, 2U);
  EXPECT_EQ(g.stats().failed, 0U);
}

// A caller that is refused, because it would wait for itself, has not joined the call.
TEST(Value, IsNotCopiedBecauseOfACallerThatWasRefused) {
  group<int, throws_when_copied> g;
  group<int, int> other;
  support::threads threads;
  threads.start([&] {
    auto led = g.do_call(0, [&] {
      support::await([&] { return other.stats().led == 1; }, "the other call");
      (void)other.do_call(1, [] { return 0; });
      return throws_when_copied(0);
    });
    EXPECT_FALSE(led.shared());
    EXPECT_NO_THROW((void)std::move(led).value());
  });
  support::await([&] { return g.stats().led == 1; }, "the call");
  (void)other.do_call(1, [&] {
    support::await_followers(other, 1);
    try {
      (void)g.do_call(0, [] { return throws_when_copied(0); });
      ADD_FAILURE() << "was not refused";
    } catch (const singleflight::call_error&) {
    }
    return 0;
  });
  threads.join();
  EXPECT_EQ(g.stats().rejected, 1U);
}

TEST(Value, ThatThrowsWhenMovedFailsItsCall) {
  group<int, throws_when_moved> g;
  const auto make = [] { return throws_when_moved(0); };
  EXPECT_THROW((void)g.do_call(0, make), std::runtime_error);
  EXPECT_EQ(g.stats().failed, 1U);
  EXPECT_THROW((void)g.do_call(0, make), std::runtime_error);
  EXPECT_EQ(g.stats().led, 2U);
  EXPECT_EQ(g.stats().in_flight, 0U);
}

// Each failure is counted, of calls without followers and of calls on an executor.
TEST(Value, ThatThrowsWhenMovedIsCountedHoweverManyDo) {
  constexpr std::size_t callers = 4, calls_each = 5000;
  group<std::size_t, throws_when_moved> g({.shards = 1});
  const auto make = [] { return throws_when_moved(0); };
  support::threads(callers, [&](std::size_t key) {
    for (std::size_t i = 0; i < calls_each; ++i) {
#ifndef SINGLEFLIGHT_TESTS_CALL_ONCE_HANGS
      if (i % 2 == 0) {
        EXPECT_THROW((void)g.do_call_on(
                         key, [](auto task) { task(); }, {}, make),
                     std::runtime_error);
        continue;
      }
#endif
      EXPECT_THROW((void)g.do_call(key, make), std::runtime_error);
    }
  });
  EXPECT_EQ(g.stats().failed, callers * calls_each);
}

TEST(Value, ThatThrowsWhenMovedFailsItsCallForEverybody) {
#ifdef SINGLEFLIGHT_TESTS_CALL_ONCE_HANGS
  GTEST_SKIP() << "std::call_once, in std::promise, hangs once its function has thrown";
#endif
  group<int, throws_when_moved> g;
  const auto make = [] { return throws_when_moved(0); };
  std::atomic<std::size_t> n{0};
  std::vector<std::exception_ptr> caught(5);
  support::threads followers;
  const auto catch_failure = [&](const auto& enter) {
    try {
      (void)enter();
    } catch (const std::runtime_error&) {
      caught[n++] = std::current_exception();
    }
  };
  catch_failure([&] {
    return lead_for(g, 4, followers, make,
                    [&] { catch_failure([&] { return g.do_call(0, make); }); });
  });
  followers.join();
  EXPECT_EQ(n, caught.size());
  for (const auto& e : caught) support::expect_same(e, caught[0]);
  EXPECT_EQ(g.stats().failed, 1U);
  EXPECT_EQ(g.stats().in_flight, 0U);
  EXPECT_THROW((void)g.do_call(0, make), std::runtime_error);
  EXPECT_EQ(g.stats().led, 2U);
}

TEST(Value, ThatThrowsWhenMovedIsCountedBeforeAnybodyIsTold) {
#ifdef SINGLEFLIGHT_TESTS_CALL_ONCE_HANGS
  GTEST_SKIP() << "std::call_once, in std::promise, hangs once its function has thrown";
#endif
  group<int, throws_when_moved> g;
  std::uint64_t failed = 0;
  const auto load = [&] {
    g.async_call(
        0, singleflight::resume_inline, {}, [](const auto&) { ADD_FAILURE() << "began a call"; },
        [&](const auto& o) {
          EXPECT_FALSE(o.has_value());
          failed = g.stats().failed;
        });
    return throws_when_moved(0);
  };
  EXPECT_THROW((void)g.do_call(0, load), std::runtime_error);
  EXPECT_EQ(failed, 1U);
}

TEST(Value, IsTakenOutOfAResultInEveryForm) {
  group<int, std::string> g;
  const auto load = [] { return std::string("value"); };
  const std::string initialised = g.do_call(0, load);
  const auto returned = [&]() -> std::string { return g.do_call(0, load); }();
  const std::optional<std::string> wrapped = g.do_call(0, load);
  std::string assigned;
  assigned = g.do_call(0, load);
  auto r = g.do_call(0, load);
  EXPECT_EQ(initialised, "value");
  EXPECT_EQ(returned, "value");
  EXPECT_EQ(wrapped, "value");
  EXPECT_EQ(assigned, "value");
  EXPECT_EQ(*r, "value");
  EXPECT_EQ(r->size(), 5U);
  EXPECT_EQ(r.value(), "value");
  EXPECT_EQ(std::move(r).value(), "value");
}

TEST(Value, IsReplacedWhenItsResultIsAssignedTo) {
  group<int, std::string> g;
  auto r = g.do_call(0, [] { return std::string("first"); });
  r = g.do_call(0, [] { return std::string("second"); });
  EXPECT_EQ(*r, "second");
}

TEST(Value, IsConvertedFromWhatTheLoaderReturns) {
  group<int, std::string> g;
  const std::string value = g.do_call(0, [] { return "characters"; });
  EXPECT_EQ(value, "characters");
}

TEST(Value, IsCopiedOnceFromAReferenceThatTheLoaderReturns) {
  int copies = 0;
  const counts_copies original(copies);
  group<int, counts_copies> g;
  auto alone = g.do_call(0, [&]() -> const counts_copies& { return original; });
  EXPECT_EQ(copies, 1);
  EXPECT_NE(&*alone, &original);
}

TEST(Value, BringsWhatItsLeaderWroteBefore) {
  group<int, void> g;
  int written = 0;
  support::threads followers;
  lead_for(
      g, 4, followers, [&] { written = 42; },
      [&] {
        g.do_call(0, [] {});
        EXPECT_EQ(written, 42);
      });
}

// A temporary result gives its value by value, so that neither of these refers to what is gone.
TEST(TemporaryResult, MayBeIteratedOverAndKeptByReference) {
  group<int, std::vector<std::string>> g;
  const auto load = [] { return std::vector<std::string>(3, std::string(40, 'x')); };
  std::size_t length = 0;
  for (const std::string& s : *g.do_call(0, load)) length += s.size();
  for (const std::string& s : g.do_call(0, load).value()) length += s.size();
  const auto& kept = *g.do_call(0, load);
  const auto& also = g.do_call(0, load).value();
  EXPECT_EQ(length + kept.size() + also.size(), 246U);
}

static_assert(std::same_as<decltype(*std::declval<result<int>>()), int>);
static_assert(std::same_as<decltype(*std::declval<result<int>&>()), const int&>);
static_assert(std::same_as<decltype(*std::declval<const result<int>&>()), const int&>);

}  // namespace
