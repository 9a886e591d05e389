// SPDX-License-Identifier: MIT
// A forgotten call goes on for the callers that joined it, and does not change a newer call.

#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <cstddef>
#include <functional>
#include <random>
#include <singleflight/group.hpp>
#include <string>
#include <string_view>
#include <thread>

#include "support.hpp"

namespace {

using singleflight::group;

TEST(Forget, LetsTheNextCallerLeadWhileTheOldCallStillRuns) {
  group<std::string, int> g;
  std::atomic<bool> end{false};
  support::threads old;
  old.start([&] {
    auto result = g.do_call("key", [&] {
      support::await([&] { return end.load(); }, "the newer call to have ended");
      return 1;
    });
    EXPECT_EQ(*result, 1);
    EXPECT_FALSE(result.shared());
  });
  support::await([&] { return g.stats().led == 1; }, "the call to run");
  EXPECT_TRUE(g.forget("key"));
  auto result = g.do_call("key", [] { return 2; });
  EXPECT_EQ(*result, 2);
  EXPECT_TRUE(result.led());
  EXPECT_EQ(g.stats().in_flight, 1U);
  end = true;
}

TEST(Forget, SaysWhetherACallWasListed) {
  group<std::string, int> g;
  EXPECT_FALSE(g.forget("key"));
  EXPECT_FALSE(g.forget_unshared("key"));
  EXPECT_EQ(g.do_call("key",
                      [&] {
                        EXPECT_FALSE(g.forget("another"));
                        EXPECT_TRUE(g.forget("key"));
                        EXPECT_FALSE(g.forget("key"));
                        EXPECT_FALSE(g.forget_unshared("key"));
                        return 42;
                      })
                .value(),
            42);
  EXPECT_FALSE(g.forget("key"));
  EXPECT_EQ(g.stats().in_flight, 0U);
}

TEST(Forget, LetsALoaderCallItsOwnKeyAgain) {
  group<std::string, std::string> g;
  auto result = g.do_call("key", [&] {
    EXPECT_TRUE(g.forget("key"));
    auto inner = g.do_call("key", [] { return "inner"; });
    EXPECT_TRUE(inner.led());
    return *inner + " in outer";
  });
  EXPECT_EQ(*result, "inner in outer");
  EXPECT_EQ(g.stats().led, 2U);
  EXPECT_EQ(g.stats().rejected, 0U);
}

struct string_hash : std::hash<std::string_view> {
  using is_transparent = void;
};

TEST(Forget, LooksUpByAnotherTypeThanTheKeys) {
  group<std::string, int, string_hash, std::equal_to<>> g;
  (void)g.do_call(std::string_view("key"), [&] {
    EXPECT_TRUE(g.forget(std::string_view("key")));
    EXPECT_FALSE(g.forget(std::string_view("key")));
    return 0;
  });
  (void)g.do_call("key", [&] {
    EXPECT_TRUE(g.forget_unshared(std::string_view("key")));
    return 0;
  });
}

/// One key's calls, each led by a thread of its own, which end when they are told to.
class generations {
 public:
  static constexpr std::size_t count = 3;
  group<int, std::size_t> g;

  generations() = default;
  generations(const generations&) = delete;
  generations& operator=(const generations&) = delete;
  ~generations() {
    for (std::atomic<bool>& end : end_) end = true;  // also when the test has failed
  }

  void begin(std::size_t generation) {
    running_.start([this, generation] {
      auto result = g.do_call(0, [&] {
        support::await([&] { return end_[generation].load(); }, "the call to be told to end");
        return generation;
      });
      EXPECT_EQ(*result, generation);
      EXPECT_TRUE(result.led());
      EXPECT_TRUE(result.shared());
      ended_[generation] = true;
    });
    support::await([&] { return g.stats().led == generation + 1; }, "the call to run");
  }
  void join(std::size_t generation) {
    const std::size_t others = g.stats().waiting;
    running_.start([this, generation] {
      auto result = g.do_call(0, [] { return count; });
      EXPECT_EQ(*result, generation);
      EXPECT_FALSE(result.led());
    });
    support::await_followers(g, others + 1);
  }
  void end(std::size_t generation) {
    end_[generation] = true;
    support::await([&] { return ended_[generation].load(); }, "the call to end");
  }

 private:
  std::array<std::atomic<bool>, count> end_{}, ended_{};
  support::threads running_;
};

// In Go, a call that ended after it had been forgotten deleted the newer call of its key from the
// map, so that a third one ran beside the second. https://github.com/golang/go/issues/31420
TEST(Forget, KeepsThreeGenerationsApartWhicheverEndsFirst) {
  std::array<std::size_t, generations::count> order{0, 1, 2};
  do {
    SCOPED_TRACE(testing::Message() << "ending " << order[0] << order[1] << order[2]);
    generations of;
    for (std::size_t generation = 0; generation < generations::count; ++generation) {
      of.begin(generation);
      of.join(generation);
      of.join(generation);
      if (generation + 1 < generations::count) {
        EXPECT_TRUE(of.g.forget(0));
      }
    }
    bool newest_listed = true;
    for (std::size_t generation : order) {
      of.end(generation);
      if (generation + 1 == generations::count) newest_listed = false;
      ASSERT_EQ(of.g.in_flight().size(), newest_listed ? 1U : 0U);
      if (newest_listed) of.join(generations::count - 1);
    }
    EXPECT_EQ(of.g.stats().in_flight, 0U);
    EXPECT_EQ(of.g.stats().waiting, 0U);
  } while (std::next_permutation(order.begin(), order.end()));
}

TEST(ForgetUnshared, ForgetsACallThatNobodyHasJoined) {
  group<std::string, int> g;
  auto result = g.do_call("key", [&] {
    EXPECT_TRUE(g.forget_unshared("key"));
    EXPECT_TRUE(g.in_flight().empty());
    return 0;
  });
  EXPECT_FALSE(result.shared());
}

TEST(ForgetUnshared, KeepsACallThatSomebodyHasJoined) {
  group<std::string, int> g;
  support::threads followers;
  auto result = g.do_call("key", [&] {
    followers.start([&] { EXPECT_EQ(g.do_call("key", [] { return 2; }).value(), 1); });
    support::await_followers(g, 1);
    EXPECT_FALSE(g.forget_unshared("key"));
    EXPECT_EQ(g.in_flight().size(), 1U);
    return 1;
  });
  EXPECT_TRUE(result.shared());
}

// In Go its answer was not always right, and because of that lookups were cancelled that other
// callers waited for. https://github.com/golang/go/issues/55343
TEST(ForgetUnshared, IsExactWhileCallersJoin) {
  constexpr std::size_t joiners = 3;
  constexpr int rounds = 2000;
  const auto seed = std::random_device{}();
  SCOPED_TRACE(testing::Message() << "seed " << seed);
  std::mt19937 random(seed);
  group<int, int> g;
  std::atomic<int> open{-1}, returned{0}, given_the_leaders{0};
  support::threads others(joiners, [&](std::size_t) {
    for (int round = 0; round < rounds; ++round) {
      support::await([&] { return open >= round; }, "the round to open");
      if (*g.do_call(0, [] { return -1; }) == round) ++given_the_leaders;
      ++returned;
    }
  });
  for (int round = 0; round < rounds; ++round) {
    bool forgotten = false;
    const unsigned yields = random() % 8;
    given_the_leaders = 0;
    returned = 0;
    auto result = g.do_call(0, [&] {
      open = round;
      for (unsigned i = 0; i < yields; ++i) std::this_thread::yield();
      forgotten = g.forget_unshared(0);
      support::await(
          [&] { return g.stats().waiting + static_cast<std::size_t>(returned) == joiners; },
          "every caller to have joined, or led and returned");
      return round;
    });
    support::await([&] { return returned == joiners; }, "every caller to have returned");
    EXPECT_EQ(result.shared(), !forgotten);
    EXPECT_EQ(given_the_leaders == 0, forgotten);
  }
}

// A read that joins a query from before the caller's own write answers with what that overwrote.
// https://github.com/vitessio/vitess/issues/4058
TEST(Forget, KeepsAReadFromJoiningACallThatBeganBeforeTheWrite) {
  constexpr int writes = 5000;
  group<std::string, int> g;
  std::atomic<int> stored{0};
  const auto read = [&]() -> int {
    return g.do_call("key", [&] {
      const int row = stored;
      for (int i = 0; i < 3; ++i) std::this_thread::yield();
      return row;
    });
  };
  support::threads readers(4, [&](std::size_t) {
    while (read() < writes) {
    }
  });
  int stale = 0;
  for (int write = 1; write <= writes; ++write) {
    stored = write;
    g.forget("key");
    if (read() != write) ++stale;
  }
  EXPECT_EQ(stale, 0);
}

}  // namespace
