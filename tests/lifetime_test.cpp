// SPDX-License-Identifier: MIT
// The lifetimes of values, keys and loaders, whose destructors may call the group again.

#include <gtest/gtest.h>

#include <atomic>
#include <cstddef>
#include <optional>
#include <singleflight/group.hpp>
#include <string>
#include <utility>
#include <vector>

#include "support.hpp"

namespace {

using singleflight::group;
using singleflight::result;

// Counts its objects and how many of them there are at the moment.
class counted {
 public:
  explicit counted(std::atomic<int>& alive) : alive_(&alive) { ++*alive_; }
  counted(counted&& other) noexcept : alive_(other.alive_) { ++*alive_; }
  ~counted() { --*alive_; }

 private:
  std::atomic<int>* alive_;
};

// Leads a call for key 1, which `n` threads join by `follow()`.
template <class Group, class Load, class Follow>
auto lead_for(Group& g, std::size_t n, support::threads& followers, const Load& load,
              const Follow& follow) {
  return g.do_call(1, [&] {
    for (std::size_t i = 0; i < n; ++i) followers.start(follow);
    support::await_followers(g, n);
    return load();
  });
}

TEST(Lifetime, OfAValueIsThatOfItsResultIfNobodyJoined) {
  std::atomic<int> alive{0};
  group<int, counted> g;
  {
    auto alone = g.do_call(1, [&] { return counted(alive); });
    EXPECT_EQ(alive, 1);
    auto moved = std::move(alone);
    EXPECT_EQ(alive, 2);
  }
  EXPECT_EQ(alive, 0);
}

TEST(Lifetime, OfAValueEndsWithTheLastOfTheResultsThatShareIt) {
  constexpr std::size_t n = 4;
  std::atomic<int> alive{0};
  std::atomic<std::size_t> returned{0};
  group<int, counted> g;
  std::vector<std::optional<result<counted>>> followed(n);
  support::threads followers;
  std::optional<result<counted>> led = lead_for(
      g, n, followers, [&] { return counted(alive); },
      [&] { followed[returned++].emplace(g.do_call(1, [&] { return counted(alive); })); });
  followers.join();
  EXPECT_EQ(alive, 1);
  for (const auto& f : followed) EXPECT_EQ(&**f, &**led);
  led.reset();
  for (auto& f : followed) {
    EXPECT_EQ(alive, 1);
    f.reset();
  }
  EXPECT_EQ(alive, 0);
}

TEST(Lifetime, OfAResultMayExceedThatOfItsGroup) {
  std::optional<result<std::string>> alone, led, followed;
  {
    group<int, std::string> g;
    alone = g.do_call(1, [] { return std::string("alone"); });
    support::threads follower;
    led = lead_for(
        g, 1, follower, [] { return std::string("shared"); },
        [&] { followed = g.do_call(1, [] { return std::string(); }); });
  }
  EXPECT_EQ(**alone, "alone");
  EXPECT_EQ(**led, "shared");
  led.reset();
  EXPECT_EQ(**followed, "shared");
}

TEST(Lifetime, OfALoaderEndsInItsCallersFrameAndAFollowersOwnIsNeverInvoked) {
  std::atomic<int> alive{0}, alive_while_loading{0}, loads{0};
  group<int, int> g;
  support::threads followers;
  (void)lead_for(
      g, 4, followers,
      [&, captured = counted(alive)] {
        alive_while_loading = alive.load();
        return ++loads;
      },
      [&] { (void)g.do_call(1, [&, captured = counted(alive)] { return ++loads; }); });
  followers.join();
  EXPECT_EQ(alive_while_loading, 5);
  EXPECT_EQ(alive, 0);
  EXPECT_EQ(loads, 1);
}

// Each destructor calls the group again, for the key of the call that it belonged to and for
// another of the same shard. If one ran under the lock, the test would hang.
class calls_again {
 public:
  using group_type = group<int, calls_again>;

  // Does not call. (No default constructor: MSVC's std::promise would use it, and then assign.)
  explicit calls_again(std::nullptr_t) {}
  calls_again(group_type& g, std::atomic<int>& calls) : group_(&g), calls_(&calls) {}
  calls_again(calls_again&& other) noexcept : group_(other.group_), calls_(other.calls_) {}
  ~calls_again() {
    if (group_ == nullptr) return;
    for (const int key : {1, 2}) {
      if (group_->do_call(key, [] { return calls_again(nullptr); }).led()) ++*calls_;
    }
  }

 private:
  group_type* group_ = nullptr;
  std::atomic<int>* calls_ = nullptr;
};

TEST(Lifetime, OfAValueThatNobodyJoinedMayEndWithACallOfTheGroup) {
  std::atomic<int> calls{0};
  group<int, calls_again> g({.shards = 1});
  (void)g.do_call(1, [&] { return calls_again(g, calls); });
  EXPECT_EQ(calls, 4);  // the loader's value and the result's
  EXPECT_EQ(g.stats().in_flight, 0U);
}

TEST(Lifetime, OfASharedValueMayEndWithACallOfTheGroup) {
  std::atomic<int> calls{0};
  group<int, calls_again> g({.shards = 1});
  {
    support::threads followers;
    (void)lead_for(
        g, 4, followers, [&] { return calls_again(g, calls); },
        [&] { (void)g.do_call(1, [] { return calls_again(nullptr); }); });
  }
  EXPECT_GE(calls, 1);
  EXPECT_EQ(g.stats().in_flight, 0U);
}

TEST(Lifetime, OfWhatALoaderCapturedMayEndWithACallOfTheGroup) {
  std::atomic<int> calls{0};
  group<int, calls_again> g({.shards = 1});
  (void)g.do_call(1, [captured = calls_again(g, calls)] { return calls_again(nullptr); });
  EXPECT_EQ(calls, 2);
  support::threads follower;
  (void)lead_for(
      g, 1, follower, [] { return calls_again(nullptr); },
      [&] {
        (void)g.do_call(1, [captured = calls_again(g, calls)] { return calls_again(nullptr); });
      });
  follower.join();
  EXPECT_EQ(g.stats().in_flight, 0U);
}

// Its destructor calls the group with copies of itself whose destructors do not.
struct key_that_calls_again {
  struct hash {
    std::size_t operator()(const key_that_calls_again& k) const noexcept {
      return static_cast<std::size_t>(k.number);
    }
  };
  using group_type = group<key_that_calls_again, int, hash>;

  explicit key_that_calls_again(int n, group_type* g = nullptr) : number(n), again(g) {}
  key_that_calls_again(const key_that_calls_again&) = default;
  ~key_that_calls_again() {
    if (again == nullptr) return;
    for (const int n : {1, 2}) (void)again->do_call(key_that_calls_again(n), [] { return 0; });
  }
  bool operator==(const key_that_calls_again& other) const { return number == other.number; }

  int number;
  group_type* again;
};

TEST(Lifetime, OfAKeyMayEndWithACallOfTheGroup) {
  key_that_calls_again::group_type g({.shards = 1});
  (void)g.do_call(key_that_calls_again(1, &g), [] { return 0; });
  EXPECT_EQ(g.stats().led, 5U);  // one; two for the call's own copy, two for the caller's key
  support::threads follower;
  (void)g.do_call(key_that_calls_again(1, &g), [&] {
    follower.start([&] { (void)g.do_call(key_that_calls_again(1, &g), [] { return 0; }); });
    support::await_followers(g, 1);
    return 0;
  });
  follower.join();
  EXPECT_EQ(g.stats().in_flight, 0U);
}

}  // namespace
