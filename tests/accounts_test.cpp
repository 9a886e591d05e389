// SPDX-License-Identifier: MIT
// Counters and gauges of a group, the calls that it lists, its shards, its memory.

#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <functional>
#include <initializer_list>
#include <limits>
#include <optional>
#include <random>
#include <singleflight/group.hpp>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

#include "replaced_new.hpp"
#include "support.hpp"

namespace {

using singleflight::call_error;
using singleflight::group;
using singleflight::group_stats;
using support::expect_idle;

TEST(Stats, CountEachEntryOnceAsLedJoinedOrRejected) {
  constexpr std::size_t callers = 8;
  constexpr int entries_each = 2000, keys = 4;
  const auto seed = std::random_device{}();
  SCOPED_TRACE(testing::Message() << "seed " << seed);
  group<int, int> g;
  std::atomic<std::uint64_t> entries{0}, loads{0}, throws{0}, refusals{0}, joins{0};
  support::threads(callers, [&](std::size_t caller) {
    std::mt19937 random(seed + static_cast<unsigned>(caller));
    for (int i = 0; i < entries_each; ++i) {
      const int key = static_cast<int>(random() % keys);
      const auto fate = random() % 4;
      bool mine = false;
      ++entries;
      try {
        (void)g.do_call(key, [&]() -> int {
          mine = true;
          ++loads;
          std::this_thread::yield();
          if (fate == 0) {
            ++throws;
            throw std::string("no such row");
          }
          if (fate == 1) {
            ++entries;
            EXPECT_THROW((void)g.do_call(key, [] { return 0; }), call_error);
            ++refusals;
          }
          if (fate == 2) g.forget(key);
          return key;
        });
      } catch (const std::string&) {
      }
      if (!mine) ++joins;
    }
  });
  const group_stats stats = g.stats();
  EXPECT_EQ(stats.led, loads);
  EXPECT_EQ(stats.joined, joins);
  EXPECT_EQ(stats.rejected, refusals);
  EXPECT_EQ(stats.led + stats.joined + stats.rejected, entries);
  EXPECT_EQ(stats.failed, throws);
  EXPECT_EQ(stats.timed_out + stats.cancelled + stats.superseded, 0U);
  expect_idle(g);
  EXPECT_TRUE(g.in_flight().empty());
}

TEST(Stats, CountACallAsFailedIfItEndsWithoutAValue) {
  group<std::string, int> g;
  (void)g.do_call("key", [] { return 0; });
  EXPECT_EQ(g.stats().failed, 0U);
  EXPECT_THROW((void)g.do_call("key", []() -> int { throw 1; }), int);
  EXPECT_EQ(g.stats().failed, 1U);
  EXPECT_THROW((void)g.do_call("key",
                               [&]() -> int {
                                 g.forget("key");
                                 throw 1;
                               }),
               int);
  EXPECT_EQ(g.stats().failed, 2U);
  EXPECT_EQ(g.stats().led, 3U);
  expect_idle(g);
}

TEST(Stats, AddUpOverTheShards) {
  constexpr int keys = 64;
  group<int, int> g({.shards = 16});
  std::size_t most_in_flight = 0;
  std::vector<int> listed;
  const std::function<int(int)> nest = [&](int key) -> int {
    return g.do_call(key, [&, key] {
      if (key < keys) return nest(key + 1);
      most_in_flight = g.stats().in_flight;
      for (const auto& call : g.in_flight()) listed.push_back(call.key);
      return 0;
    });
  };
  (void)nest(1);
  EXPECT_EQ(most_in_flight, std::size_t{keys});
  EXPECT_EQ(g.stats().led, std::uint64_t{keys});
  std::sort(listed.begin(), listed.end());
  ASSERT_EQ(listed.size(), std::size_t{keys});
  for (int key = 1; key <= keys; ++key) EXPECT_EQ(listed[static_cast<std::size_t>(key - 1)], key);
  expect_idle(g);
}

TEST(InFlight, TellsHowManyFollowACallAndHowLongTheFirstHasWaited) {
  using namespace std::chrono_literals;
  group<std::string, int> g;
  support::threads followers;
  const auto waited = [&] { return g.in_flight().at(0).waited; };
  (void)g.do_call("key", [&] {
    EXPECT_EQ(g.in_flight().size(), 1U);
    EXPECT_EQ(g.in_flight().at(0).key, "key");
    EXPECT_EQ(g.in_flight().at(0).waiters, 0U);
    EXPECT_EQ(waited(), 0ns);
    for (std::size_t n = 1; n <= 3; ++n) {
      const auto before = n == 1 ? 0ns : waited();
      followers.start([&] { (void)g.do_call("key", [] { return 0; }); });
      support::await_followers(g, n);
      EXPECT_EQ(g.in_flight().at(0).waiters, n);
      support::await([&] { return waited() > before; }, "the first follower to have waited longer");
    }
    return 0;
  });
  EXPECT_TRUE(g.in_flight().empty());
}

TEST(InFlight, CountsTheTimeOfACallerThatBeginsACallFromWhenItWaits) {
  using namespace std::chrono_literals;
  group<int, int> g;
  std::optional<singleflight::leader<int>> lead;
  const auto call = [&] { return g.in_flight().at(0); };
  g.async_call(
      1, singleflight::resume_inline, {},
      [&](singleflight::leader<int> mine) {
        EXPECT_EQ(call().waiters, 1U);
        EXPECT_EQ(call().waited, 0ns);
        lead.emplace(std::move(mine));
      },
      [](const auto&) {});
  EXPECT_EQ(call().waiters, 1U);
  support::await([&] { return call().waited > 0ns; }, "the caller to have waited");
  EXPECT_LT(call().waited, 1h);
  std::move(*lead).set_value(42);
}

TEST(InFlight, CountsTheTimeOfAFollowerFromWhenItJoinsACallThatIsBeingBegun) {
  using namespace std::chrono_literals;
  group<int, int> g;
  std::optional<singleflight::leader<int>> lead;
  const auto call = [&] { return g.in_flight().at(0); };
  g.async_call(
      1, singleflight::resume_inline, {},
      [&](singleflight::leader<int> mine) {
        g.async_call(
            1, singleflight::resume_inline, {}, [](const auto&) {}, [](const auto&) {});
        EXPECT_EQ(call().waiters, 2U);
        support::await([&] { return call().waited > 0ns; }, "the follower to have waited");
        EXPECT_LT(call().waited, 1h);
        lead.emplace(std::move(mine));
      },
      [](const auto&) {});
  std::move(*lead).set_value(42);
}

// Not from when its executor returns.
TEST(InFlight, CountsTheTimeOfACallerFromWhenItCallsItsExecutor) {
  group<int, int> g;
  const auto looks = [&](const auto& task) {
    support::await([&] { return g.in_flight().at(0).waited > std::chrono::nanoseconds::zero(); },
                   "the caller to have waited");
    task();
  };
  EXPECT_EQ(*g.do_call_on(1, looks, {}, [] { return 42; }), 42);
}

TEST(InFlight, BeginsToCountAnewWhenAllWhoWaitedHaveLeft) {
  using namespace std::chrono_literals;
  group<int, int> g;
  support::threads followers;
  (void)g.do_call(1, [&] {
    const auto first_came = std::chrono::steady_clock::now();
    followers.start([&] {
      EXPECT_THROW((void)g.do_call(1, {.timeout = 20ms}, [] { return 0; }),
                   singleflight::call_error);
    });
    followers.join();
    EXPECT_EQ(g.in_flight().at(0).waited, 0ns);
    const auto second_comes = std::chrono::steady_clock::now();
    followers.start([&] { (void)g.do_call(1, [] { return 0; }); });
    support::await_followers(g, 1);
    const auto waited = g.in_flight().at(0).waited;
    EXPECT_LE(waited, std::chrono::steady_clock::now() - second_comes);
    EXPECT_LT(waited, std::chrono::steady_clock::now() - first_came);
    return 42;
  });
}

TEST(InFlight, DoesNotForgetTheFirstFollowersTimeWhenTheSecondComes) {
  group<int, int> g;
  support::threads followers;
  const auto now = [] { return std::chrono::steady_clock::now(); };
  (void)g.do_call(1, [&] {
    followers.start([&] { (void)g.do_call(1, [] { return 0; }); });
    support::await_followers(g, 1);
    const auto first_waits = now();
    support::await([&] { return now() > first_waits + std::chrono::milliseconds(20); }, "time");
    followers.start([&] { (void)g.do_call(1, [] { return 0; }); });
    support::await_followers(g, 2);
    const auto both_wait = now();
    EXPECT_GE(g.in_flight().at(0).waited, both_wait - first_waits);
    return 42;
  });
}

TEST(InFlight, LeavesOutForgottenCallsWhichTheGaugesCount) {
  group<std::string, int> g;
  support::threads followers;
  (void)g.do_call("key", [&] {
    followers.start([&] { (void)g.do_call("key", [] { return 0; }); });
    support::await_followers(g, 1);
    g.forget("key");
    EXPECT_TRUE(g.in_flight().empty());
    EXPECT_EQ(g.stats().in_flight, 1U);
    EXPECT_EQ(g.stats().waiting, 1U);
    return 0;
  });
  followers.join();
  expect_idle(g);
}

struct one_hash {
  std::size_t operator()(int) const { return 42; }
};

TEST(Flood, OfKeysWithOneHashIsToldApart) {
  constexpr int keys = 500;
  group<int, int, one_hash> g;
  int found = 0, strangers = 0;
  std::size_t listed_after = 0;
  const std::function<int(int)> nest = [&](int key) -> int {
    return g.do_call(key, [&, key] {
      if (key < keys) {
        EXPECT_EQ(nest(key + 1), key + 1);
        return key;
      }
      for (int k = 2; k <= keys; k += 2) found += g.forget(k) ? 1 : 0;
      for (int k = 2; k <= keys; k += 2) strangers += g.forget(k) ? 1 : 0;
      for (int k = 1; k <= keys; k += 2) {
        EXPECT_THROW((void)g.do_call(k, [] { return 0; }), call_error);
      }
      listed_after = g.in_flight().size();
      return key;
    });
  };
  EXPECT_EQ(nest(1), 1);
  EXPECT_EQ(found, keys / 2);
  EXPECT_EQ(strangers, 0);
  EXPECT_EQ(listed_after, std::size_t{keys / 2});
  EXPECT_EQ(g.stats().led, std::uint64_t{keys});
  EXPECT_EQ(g.stats().rejected, std::uint64_t{keys / 2});
  expect_idle(g);
}

TEST(Memory, IsNotHeldAfterTenMillionKeys) {
#if defined(SINGLEFLIGHT_TESTS_SANITIZED)
  constexpr std::uint64_t keys = 1'000'000;
#else
  constexpr std::uint64_t keys = 10'000'000;
#endif
  constexpr std::size_t callers = 2;
  group<std::uint64_t, std::uint64_t> g;
  std::array<std::uint64_t, callers> made{}, wrong{};
  support::threads(callers, [&](std::size_t caller) {
    const std::uint64_t before = support::allocated_by_this_thread.blocks;
    for (std::uint64_t key = caller; key < keys; key += callers) {
      if (*g.do_call(key, [&] { return key; }) != key) ++wrong[caller];
    }
    made[caller] = support::allocated_by_this_thread.blocks - before;
  });
  for (std::size_t caller = 0; caller < callers; ++caller) {
    EXPECT_EQ(made[caller], 0U);
    EXPECT_EQ(wrong[caller], 0U);
  }
  EXPECT_EQ(g.stats().led, keys);
  expect_idle(g);
  EXPECT_TRUE(g.in_flight().empty());
}

TEST(Shards, MayBeAnyNumberUpTo65536) {
  for (std::size_t shards : std::initializer_list<std::size_t>{0, 1, 2, 3, 5, 64, 65535, 65536}) {
    group<int, int> g({.shards = shards});
    for (int key : {0, 1, -1, std::numeric_limits<int>::min()}) {
      EXPECT_EQ(*g.do_call(key, [&] { return g.forget(key) ? key : ~key; }), key);
    }
    expect_idle(g);
  }
}

/// A key whose copy, under its shard's lock, ends when the test lets it.
struct slow_key {
  static inline std::atomic<bool> copied{false}, goes_on{false};

  explicit slow_key(int n) : number(n) {}
  slow_key(const slow_key& other) : number(other.number) {
    if (number != 0) return;
    copied = true;
    support::await([] { return goes_on.load(); }, "the test to let a key's copy go on");
  }
  slow_key& operator=(const slow_key&) = delete;
  ~slow_key() = default;
  friend bool operator==(const slow_key&, const slow_key&) = default;

  int number;
};

struct number_of {
  std::size_t operator()(const slow_key& key) const { return static_cast<std::size_t>(key.number); }
};

// Keys that follow each other, with a hash that is the key itself, are spread over the shards.
TEST(Shards, AreSeveralForKeysInARow) {
  for (const std::size_t shards : {0U, 2U, 16U}) {
    constexpr int keys = 32;
    slow_key::copied = slow_key::goes_on = false;
    group<slow_key, int, number_of> g({.shards = shards});
    std::atomic<int> passed{0};
    const auto call = [&](int n) {
      const slow_key key(n);
      (void)g.do_call(key, [] { return 42; });
      ++passed;
    };
    support::threads callers;
    callers.start([&] { call(0); });
    support::await([] { return slow_key::copied.load(); }, "the lock of one shard to be held");
    for (int n = 1; n <= keys; ++n) callers.start([&, n] { call(n); });
    support::await([&] { return passed >= keys / 4; }, "the keys of other shards");
    slow_key::goes_on = true;
  }
}

// A chain is no longer than the hashes of its calls are alike.
TEST(Shard, SpreadsItsCallsOverAllOfItsBuckets) {
  using shard = singleflight::detail::call_map<int, int>;
  constexpr int bits = 10;
  shard s;
  std::deque<shard::call_type> calls;  // which cannot be moved
  const singleflight::detail::lock guard(s.mutex);
  for (std::uint64_t i = 0; i < std::uint64_t{1} << bits; ++i) {
    s.list(calls.emplace_back(i << (64 - bits), 0, std::thread::id(),
                              singleflight::detail::no_stop_source()));
  }
  for (auto& c : calls) EXPECT_EQ(c.next, nullptr) << c.hash;
  for (auto& c : calls) s.unlist(c);
}

TEST(Shards, MayNotBeMore) {
  for (std::size_t shards : {std::size_t{65537}, std::numeric_limits<std::size_t>::max()}) {
    try {
      const group<int, int> g({.shards = shards});
      ADD_FAILURE() << shards << " shards were accepted";
    } catch (const std::invalid_argument& e) {
      EXPECT_STREQ(
          e.what(),
          "singleflight: group_options::shards must be at most 65536; leave it 0 if in doubt");
    }
  }
}

TEST(Shards, CanBeNamedWhereTheGroupIsMade) {
  constexpr std::size_t n = 4;
  group<int, int> g(singleflight::group_options{.shards = n});
  EXPECT_EQ(*g.do_call(1, [] { return 42; }), 42);
}

}  // namespace
