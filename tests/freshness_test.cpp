// SPDX-License-Identifier: MIT
// No caller gets the result of a call that ended before the caller came, and no key is loaded twice
// at once.

#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <exception>
#include <functional>
#include <future>
#include <singleflight/group.hpp>
#include <thread>
#include <vector>

#include "support.hpp"

namespace {

using singleflight::group;

template <class Number>
void raise_to(std::atomic<Number>& highest, Number n) {
  Number seen = highest;
  while (seen < n && !highest.compare_exchange_weak(seen, n)) {
  }
}

void yield_a_few_times() {
  for (int i = 0; i < 3; ++i) std::this_thread::yield();
}

// Publishing first and unlisting afterwards gives callers the results of calls that have ended,
// most often under load: callers that return enter again before the leader unlists the call.
TEST(Freshness, GivesNobodyAnEndedCallUnderSaturation) {
  constexpr std::size_t callers = 16;
  constexpr int entries_each = 10'000;
  group<int, std::uint64_t> g;
  std::atomic<std::uint64_t> calls{0}, returned{0}, stale{0};
  support::threads(callers, [&](std::size_t) {
    for (int i = 0; i < entries_each; ++i) {
      const std::uint64_t returned_before = returned;
      const std::uint64_t number = g.do_call(1, [&] {
        const std::uint64_t mine = ++calls;
        yield_a_few_times();
        return mine;
      });
      if (number <= returned_before) ++stale;
      raise_to(returned, number);
    }
  });
  EXPECT_EQ(stale, 0U);
  EXPECT_EQ(g.stats().led, calls);
  EXPECT_EQ(g.stats().led + g.stats().joined, callers * entries_each);
}

TEST(Freshness, GivesNobodyAnEndedFailureUnderSaturation) {
  constexpr std::size_t callers = 16;
  constexpr int entries_each = 200;
  group<int, int> g;
  std::atomic<std::uint64_t> calls{0}, returned{0}, stale{0};
  std::vector<std::vector<std::exception_ptr>> kept(callers);
  support::threads(callers, [&](std::size_t caller) {
    for (int i = 0; i < entries_each; ++i) {
      const std::uint64_t returned_before = returned;
      try {
        (void)g.do_call(1, [&]() -> int {
          const std::uint64_t mine = ++calls;
          yield_a_few_times();
          throw mine;
        });
      } catch (const std::uint64_t& number) {
        kept[caller].push_back(std::current_exception());
        if (number <= returned_before) ++stale;
        raise_to(returned, number);
      }
    }
  });
  EXPECT_EQ(stale, 0U);
  EXPECT_EQ(g.stats().failed, calls);
}

struct tells_when_moved {
  explicit tells_when_moved(const std::function<void()>& tell) : moved(&tell) {}
  tells_when_moved(tells_when_moved&& other) : moved(other.moved) { (*moved)(); }
  const std::function<void()>* moved;
};

TEST(Freshness, UnlistsTheCallBeforeItsValueIsPublished) {
  group<int, tells_when_moved> g;
  int moves = 0;
  std::size_t listed_when_moved = 0, waiting_when_moved = 0;
  const std::function<void()> look = [&] {
    ++moves;
    listed_when_moved += g.in_flight().size();
    waiting_when_moved += g.stats().waiting;
  };
  support::threads followers;
  auto result = g.do_call(1, [&] {
    followers.start([&] { (void)g.do_call(1, [&] { return tells_when_moved(look); }); });
    support::await_followers(g, 1);
    return tells_when_moved(look);
  });
  EXPECT_TRUE(result.shared());
  EXPECT_GE(moves, 1);
  EXPECT_EQ(listed_when_moved, 0U);
  EXPECT_EQ(waiting_when_moved, 0U);
}

struct one_hash {
  std::size_t operator()(int) const { return 42; }
};

/// Holds the lock of its shard while it compares two keys, and checks whether a result is
/// published.
struct watching_equal {
  std::atomic<bool>* holds;
  const std::function<bool()>* is_out;
  std::atomic<bool>* seen;

  bool operator()(int a, int b) const {
    if (a == b) return true;
    *holds = true;
    for (int i = 0; i < 1000 && !*seen; ++i) {
      if ((*is_out)()) *seen = true;
      std::this_thread::yield();
    }
    return false;
  }
};

/// A call without a value moves nothing that a test could watch. But its result must not be
/// published while another thread holds the lock that its end needs. `enter(g, load)` enters with
/// key 0.
template <class Enter>
void expect_unlisted_before_its_end_is_known(const Enter& enter) {
  std::atomic<bool> holds{false}, seen{false};
  std::shared_future<void> result;
  const std::function<bool()> is_out = [&] {
    return result.wait_for(std::chrono::seconds(0)) == std::future_status::ready;
  };
  group<int, void, one_hash, watching_equal> g({.shards = 1}, {}, {&holds, &is_out, &seen});
  support::threads watcher;
  enter(g, [&] {
    EXPECT_EQ(g.in_flight().size(), 1U);
    result = g.do_async(
        0, [](auto task) { task(); }, [] {});
    watcher.start([&] { g.forget(1); });
    support::await([&] { return holds.load(); }, "the lock to be held");
  });
  watcher.join();
  result.wait();
  EXPECT_FALSE(seen);
}

TEST(Freshness, UnlistsTheCallBeforeTheEndOfItsLoaderIsKnown) {
  expect_unlisted_before_its_end_is_known([](auto& g, const auto& load) { g.do_call(0, load); });
}

TEST(Freshness, UnlistsTheCallOnAnExecutorBeforeTheEndOfItsLoaderIsKnown) {
  expect_unlisted_before_its_end_is_known([](auto& g, const auto& load) {
    g.do_call_on(
        0, [](auto task) { task(); }, {}, load);
  });
}

TEST(Freshness, RunsOneCallPerKeyAtATime) {
  constexpr std::size_t callers = 16, keys = 5;
  constexpr std::size_t entries_each = 2000;
  group<std::size_t, int> g({.shards = 1});
  std::array<std::atomic<int>, keys> running{};
  std::atomic<int> most_of_one_key{0};
  std::atomic<std::uint64_t> calls{0};
  support::threads(callers, [&](std::size_t caller) {
    for (std::size_t i = 0; i < entries_each; ++i) {
      const std::size_t key = (caller + i) % keys;
      (void)g.do_call(key, [&] {
        raise_to(most_of_one_key, ++running[key]);
        ++calls;
        yield_a_few_times();
        return --running[key];
      });
    }
  });
  EXPECT_EQ(most_of_one_key, 1);
  EXPECT_EQ(g.stats().led, calls);
  EXPECT_EQ(g.stats().led + g.stats().joined, callers * entries_each);
}

TEST(Freshness, ListsEachKeyOnceAtAnyInstant) {
  constexpr std::size_t callers = 8, keys = 3;
  group<std::size_t, int> g({.shards = 1});
  std::atomic<std::size_t> finished{0};
  std::size_t looks = 0, twice_listed = 0;
  support::threads loaders;
  for (std::size_t caller = 0; caller < callers; ++caller) {
    loaders.start([&, caller] {
      for (std::size_t i = 0; i < 1000; ++i) {
        (void)g.do_call((caller + i) % keys, [] {
          yield_a_few_times();
          return 0;
        });
      }
      ++finished;
    });
  }
  while (finished < callers) {
    std::array<int, keys> listed{};
    for (const auto& call : g.in_flight()) ++listed.at(call.key);
    if (std::any_of(listed.begin(), listed.end(), [](int n) { return n > 1; })) ++twice_listed;
    ++looks;
    std::this_thread::yield();
  }
  EXPECT_GT(looks, 0U);
  EXPECT_EQ(twice_listed, 0U);
}

}  // namespace
