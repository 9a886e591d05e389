// SPDX-License-Identifier: MIT
// One call for a key: the results of its leader and of its followers, and when another call begins.

#include <gtest/gtest.h>

#include <atomic>
#include <cstddef>
#include <functional>
#include <singleflight/group.hpp>
#include <string>
#include <thread>
#include <vector>

#include "support.hpp"

namespace {

using singleflight::group;

struct same_hash {
  std::size_t operator()(int) const noexcept { return 42; }
};

// Leads one call for each key in a thread of its own; no loader returns before all of them run.
template <class Group>
void expect_to_run_at_once(Group& g, const std::vector<int>& keys) {
  std::atomic<std::size_t> running{0};
  support::threads(keys.size(), [&](std::size_t i) {
    auto result = g.do_call(keys[i], [&] {
      ++running;
      support::await([&] { return running == keys.size(); }, "the other keys' loaders to run");
      return keys[i];
    });
    EXPECT_EQ(*result, keys[i]);
    EXPECT_TRUE(result.led());
    EXPECT_FALSE(result.shared());
  });
}

TEST(Call, ReturnsWhatItsLoaderReturned) {
  group<std::string, int> g;
  int loads = 0;
  auto result = g.do_call("key", [&] {
    ++loads;
    return 42;
  });
  EXPECT_EQ(*result, 42);
  EXPECT_TRUE(result.led());
  EXPECT_FALSE(result.shared());
  EXPECT_EQ(loads, 1);
}

TEST(Call, RunsOnceForAllWhoJoinedIt) {
  constexpr std::size_t callers = 16;
  group<std::string, int> g;
  std::atomic<int> loads{0}, led{0}, shared{0};
  support::threads(callers, [&](std::size_t) {
    auto result = g.do_call("key", [&] {
      support::await_followers(g, callers - 1);
      return ++loads;
    });
    EXPECT_EQ(*result, 1);
    led += result.led() ? 1 : 0;
    shared += result.shared() ? 1 : 0;
  });
  EXPECT_EQ(loads, 1);
  EXPECT_EQ(led, 1);
  EXPECT_EQ(shared, callers);
}

TEST(Call, RunsAtTheSameTimeAsThoseForOtherKeys) {
  group<int, int> g;
  expect_to_run_at_once(g, {1, 2, 3, 4});
}

TEST(Call, RunsAtTheSameTimeAsThoseForOtherKeysOfItsShard) {
  group<int, int> g({.shards = 1});
  expect_to_run_at_once(g, {1, 2, 3, 4});
}

TEST(Call, RunsAtTheSameTimeAsThoseForOtherKeysWithItsHash) {
  group<int, int, same_hash> g;
  expect_to_run_at_once(g, {1, 2, 3, 4});
}

TEST(Call, IsJoinedByItsOwnKeyAmongOthersWithItsHash) {
  group<int, int, same_hash> g;
  std::atomic<std::size_t> led{0};
  support::threads(6, [&](std::size_t i) {
    const int key = static_cast<int>(i % 3);
    auto result = g.do_call(key, [&] {
      ++led;
      support::await([&] { return g.stats().joined == 3; }, "a follower for each key");
      return key;
    });
    EXPECT_EQ(*result, key);
    EXPECT_TRUE(result.shared());
  });
  EXPECT_EQ(led, 3);
}

TEST(Call, RunsAgainOnceItHasEnded) {
  group<std::string, int> g;
  int loads = 0;
  for (int i = 1; i <= 3; ++i) {
    auto result = g.do_call("key", [&] { return ++loads; });
    EXPECT_EQ(*result, i);
    EXPECT_TRUE(result.led());
    EXPECT_FALSE(result.shared());
  }
}

TEST(Call, RunsAgainOnceItHasEndedForItsFollowers) {
  group<std::string, int> g;
  int loads = 0;
  for (int i = 1; i <= 3; ++i) {
    support::threads follower;
    auto led = g.do_call("key", [&] {
      follower.start([&] {
        auto followed = g.do_call("key", [] { return 0; });
        EXPECT_FALSE(followed.led());
        EXPECT_EQ(*followed, i);
      });
      support::await_followers(g, 1);
      return ++loads;
    });
    EXPECT_EQ(*led, i);
  }
  EXPECT_EQ(loads, 3);
}

TEST(Call, IsNewForWhoeverReturnedFromTheLastOne) {
  constexpr int calls_each = 2'000;
  group<int, int> g;
  std::atomic<int> loads{0}, followed{0};
  support::threads(8, [&](std::size_t) {
    int last = 0;
    for (int i = 0; i < calls_each; ++i) {
      auto result = g.do_call(0, [&] {
        const int number = ++loads;
        if (number == 1) support::await([&] { return g.stats().joined > 0; }, "a follower");
        std::this_thread::yield();
        return number;
      });
      ASSERT_GT(*result, last);
      last = *result;
      followed += result.led() ? 0 : 1;
    }
  });
  EXPECT_EQ(loads + followed, 8 * calls_each);
  EXPECT_GT(followed, 0);
}

// The end of a call begins when its loader returns, and what the loader returns converts to the
// group's value before the call is unlisted.
TEST(Call, ServesWhoeverJoinsItAfterItsLoaderReturned) {
  struct late {
    std::function<int()> value;
    operator int() const { return value(); }
  };
  group<int, int> g;
  support::threads follower;
  auto led = g.do_call(0, [&] {
    return late{[&] {
      follower.start([&] { EXPECT_EQ(*g.do_call(0, [] { return 0; }), 42); });
      support::await_followers(g, 1);
      return 42;
    }};
  });
  EXPECT_EQ(*led, 42);
  EXPECT_TRUE(led.shared());
}

TEST(Call, ServesOrLeadsWhoeverArrivesAtItsEnd) {
  constexpr int rounds = 20'000;
  group<int, int> g;
  std::atomic<int> arrived{0}, loads{0}, led{0};
  support::threads(2, [&](std::size_t) {
    for (int round = 1; round <= rounds; ++round) {
      ++arrived;
      support::await([&] { return arrived >= 2 * round; }, "the other caller of this round");
      auto result = g.do_call(0, [&] { return ++loads; });
      EXPECT_GT(*result, 0);
      led += result.led() ? 1 : 0;
    }
  });
  EXPECT_EQ(loads, led);
  const auto stats = g.stats();
  EXPECT_EQ(stats.led, static_cast<std::size_t>(led));
  EXPECT_EQ(stats.led + stats.joined, std::size_t{2 * rounds});
  EXPECT_EQ(stats.in_flight, 0U);
  EXPECT_EQ(stats.waiting, 0U);
}

}  // namespace
