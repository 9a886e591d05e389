// SPDX-License-Identifier: MIT
// The types that a key may have, the arguments that convert to it, and its copies and moves.

#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <cctype>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <singleflight/group.hpp>
#include <stdexcept>
#include <string>
#include <string_view>
#include <tuple>
#include <utility>
#include <variant>
#include <vector>

#include "support.hpp"

namespace {

using singleflight::group;

// Has `follower()` join the call whose loader calls this, and waits until it has.
template <class Group, class Follower>
void be_joined(const Group& g, support::threads& threads, const Follower& follower) {
  const std::size_t before = g.stats().waiting;
  threads.start(follower);
  support::await_followers(g, before + 1);
}

struct transparent_hash {
  using is_transparent = void;
  std::size_t operator()(std::string_view s) const noexcept {
    return std::hash<std::string_view>()(s);
  }
};

// A text that counts how often a key was made: of characters, of another key, by moving.
struct text {
  explicit text(std::string_view s) : characters(s) { ++made; }
  text(const text& other) : characters(other.characters) { ++made; }
  text(text&& other) noexcept : characters(std::move(other.characters)) { ++made; }
  operator std::string_view() const noexcept { return characters; }

  std::string characters;
  static std::atomic<int> made;
};
std::atomic<int> text::made{0};

struct transparent_equal {
  using is_transparent = void;
  bool operator()(std::string_view a, std::string_view b) const noexcept { return a == b; }
};

TEST(Key, MayBeATemporaryOrAnythingThatConverts) {
  group<std::string, int> g;
  support::threads followers;
  const auto load = [] { return 0; };
  auto led = g.do_call(std::string("key"), [&] {
    be_joined(g, followers, [&] { EXPECT_EQ(*g.do_call(std::string("key"), load), 42); });
    be_joined(g, followers, [&] { EXPECT_EQ(*g.do_call("key", load), 42); });
    be_joined(g, followers, [&] { EXPECT_EQ(*g.do_call({"keyhole", 3}, load), 42); });
    be_joined(g, followers, [&] {
      const std::string named = "key";
      EXPECT_EQ(*g.do_call(named, load), 42);
    });
    return 42;
  });
  EXPECT_TRUE(led.shared());
}

TEST(Key, MayBeInBraces) {
  struct pair_hash {
    std::size_t operator()(const std::pair<std::string, int>& p) const noexcept {
      return std::hash<std::string>()(p.first) ^ std::hash<int>()(p.second);
    }
  };
  group<std::pair<std::string, int>, int, pair_hash> g;
  support::threads followers;
  auto led = g.do_call({"a", 1}, [&] {
    be_joined(g, followers, [&] { EXPECT_EQ(*g.do_call({"a", 1}, [] { return 0; }), 42); });
    EXPECT_TRUE(g.do_call({"a", 2}, [] { return 0; }).led());
    EXPECT_TRUE(g.do_call({"b", 1}, [] { return 0; }).led());
    return 42;
  });
  EXPECT_TRUE(led.shared());
}

TEST(Key, IsMadeOnceByTheLeaderAndByNoFollowerIfLookupIsTransparent) {
  group<text, int, transparent_hash, transparent_equal> g;
  text::made = 0;
  support::threads followers;
  auto led = g.do_call(std::string_view("key"), [&] {
    EXPECT_EQ(text::made, 1);
    for (int i = 0; i < 4; ++i) {
      be_joined(g, followers,
                [&] { EXPECT_EQ(*g.do_call(std::string_view("key"), [] { return 0; }), 42); });
    }
    be_joined(g, followers, [&] { EXPECT_EQ(*g.do_call("key", [] { return 0; }), 42); });
    EXPECT_FALSE(g.forget("another key"));
    EXPECT_FALSE(g.forget_unshared(std::string_view("key")));
    return 42;
  });
  EXPECT_EQ(text::made, 1);
}

TEST(Key, OfTheGroupsOwnTypeIsCopiedByTheLeaderOnly) {
  group<text, int, transparent_hash, transparent_equal> g;
  const text key("key");
  text::made = 0;
  support::threads followers;
  (void)g.do_call(key, [&] {
    for (int i = 0; i < 4; ++i) {
      be_joined(g, followers, [&] { (void)g.do_call(key, [] { return 0; }); });
    }
    return 42;
  });
  EXPECT_EQ(text::made, 1);
}

TEST(Key, MayBeMovedFromByTheLoader) {
  group<std::string, int> g;
  std::string key = "a key too long for the string object itself";
  const std::string same = key;
  support::threads followers;
  auto led = g.do_call(key, [&] {
    const std::string taken = std::move(key);
    key = "another key";
    be_joined(g, followers, [&] { EXPECT_EQ(*g.do_call(same, [] { return 0; }), 42); });
    EXPECT_EQ(g.in_flight().at(0).key, same);
    return 42;
  });
  EXPECT_TRUE(led.shared());
  EXPECT_TRUE(g.in_flight().empty());
}

TEST(Key, MayBeDestroyedByTheLoader) {
  const std::string same = "a key too long for the string object itself";
  support::threads followers;
  auto key = std::make_unique<std::string>(same);
  group<std::string, int> g;
  auto led = g.do_call(*key, [&] {
    key.reset();
    be_joined(g, followers, [&] { EXPECT_EQ(*g.do_call(same, [] { return 0; }), 42); });
    return 42;
  });
  EXPECT_TRUE(led.shared());
}

// The copy of a string may be made in the buffer of an ended call's key.
TEST(Key, OfAnEndedCallLeavesNoTraceInTheNext) {
  group<std::string, int> g({.shards = 1});
  const auto listed_inside = [&](const std::string& key) {
    return [&g, key] {
      EXPECT_EQ(g.in_flight().at(0).key, key);
      return 0;
    };
  };
  for (const std::size_t length : {1'000U, 0U, 50U, 2'000U, 15U, 16U, 1'000U, 1U}) {
    const std::string key(length, static_cast<char>('a' + length % 26));
    (void)g.do_call(key, listed_inside(key));
    (void)g.do_call(std::string(key), listed_inside(key));
    (void)g.do_call_on(
        key, [](auto task) { task(); }, {}, listed_inside(key));
    EXPECT_EQ(key, std::string(length, static_cast<char>('a' + length % 26)));
  }
}

TEST(Key, ThatIsAnRvalueIsMovedFromByTheLeaderOnly) {
  const std::string same = "a key too long for the string object itself";
  group<std::string, int> g;
  std::string leaders = same, followers = same;
  support::threads threads;
  (void)g.do_call(std::move(leaders), [&] {
    be_joined(g, threads, [&] { (void)g.do_call(std::move(followers), [] { return 0; }); });
    return 42;
  });
  threads.join();
  EXPECT_NE(leaders, same);  // NOLINT(bugprone-use-after-move): that is the question
  EXPECT_EQ(followers, same);
}

template <class Group>
constexpr bool lists_its_calls = requires(const Group& g) {
  g.in_flight();
};

TEST(Key, MayBeMoveOnly) {
  struct hash {
    std::size_t operator()(const std::unique_ptr<int>& p) const noexcept {
      return static_cast<std::size_t>(*p);
    }
  };
  struct equal {
    bool operator()(const std::unique_ptr<int>& a, const std::unique_ptr<int>& b) const noexcept {
      return *a == *b;
    }
  };
  group<std::unique_ptr<int>, int, hash, equal> g;
  support::threads followers;
  auto led = g.do_call(std::make_unique<int>(1), [&] {
    be_joined(g, followers,
              [&] { EXPECT_EQ(*g.do_call(std::make_unique<int>(1), [] { return 0; }), 42); });
    EXPECT_TRUE(g.do_call(std::make_unique<int>(2), [] { return 0; }).led());
    EXPECT_FALSE(g.forget_unshared(std::make_unique<int>(1)));
    return 42;
  });
  EXPECT_TRUE(led.shared());
  static_assert(lists_its_calls<group<std::string, int>>);
  static_assert(!lists_its_calls<decltype(g)>);
}

TEST(Key, IsHashedAndComparedByTheObjectsThatTheGroupWasGiven) {
  struct modulo_hash {
    explicit modulo_hash(int m) : modulus(m) {}
    std::size_t operator()(int n) const noexcept { return static_cast<std::size_t>(n % modulus); }
    int modulus;
  };
  struct modulo_equal {
    explicit modulo_equal(int m) : modulus(m) {}
    bool operator()(int a, int b) const noexcept { return a % modulus == b % modulus; }
    int modulus;
  };
  group<int, int, modulo_hash, modulo_equal> g({}, modulo_hash(10), modulo_equal(10));
  support::threads followers;
  auto led = g.do_call(3, [&] {
    be_joined(g, followers, [&] { EXPECT_EQ(*g.do_call(13, [] { return 0; }), 42); });
    EXPECT_TRUE(g.do_call(4, [] { return 0; }).led());
    return 42;
  });
  EXPECT_TRUE(led.shared());
}

TEST(Key, IsTheSameAsAnotherIfItsKeyEqualSaysSo) {
  static const auto lower = [](unsigned char c) { return std::tolower(c); };
  struct length_hash {
    std::size_t operator()(const std::string& s) const noexcept { return s.size(); }
  };
  struct caseless_equal {
    bool operator()(const std::string& a, const std::string& b) const {
      return std::ranges::equal(a, b, {}, lower, lower);
    }
  };
  group<std::string, int, length_hash, caseless_equal> g;
  support::threads followers;
  auto led = g.do_call("Key", [&] {
    be_joined(g, followers, [&] { EXPECT_EQ(*g.do_call("kEY", [] { return 0; }), 42); });
    EXPECT_TRUE(g.do_call("Kez", [] { return 0; }).led());
    EXPECT_EQ(g.in_flight().at(0).key, "Key");
    return 42;
  });
  EXPECT_TRUE(led.shared());
}

TEST(IntegerKey, OfAnotherTypeIsTheSameKey) {
  group<std::uint64_t, int> g;
  (void)g.do_call(7U, [&](std::uint64_t key) {
    EXPECT_EQ(key, 7U);
    EXPECT_FALSE(g.forget(8));
    EXPECT_TRUE(g.forget(7));
    return 42;
  });
  group<int, int> small;
  EXPECT_EQ(*small.do_call(std::uint32_t{7}, [](int key) { return key; }), 7);
  EXPECT_EQ(*small.do_call(std::uint32_t{0}, [](int key) { return key; }), 0);
  EXPECT_EQ(*small.do_call('7', [](int key) { return key; }), '7');
  EXPECT_EQ(*small.do_call(true, [](int key) { return key; }), 1);
}

// An id that Key cannot hold would be another id's.
TEST(IntegerKey, BeyondTheRangeOfKeyIsRefused) {
  group<std::uint64_t, int> g;
  const auto load = [] { return 42; };
  EXPECT_THROW((void)g.do_call(-1, load), std::invalid_argument);
  EXPECT_THROW(g.forget(-1), std::invalid_argument);
  group<int, int> small;
  EXPECT_THROW((void)small.do_call(0x8000'0000U, load), std::invalid_argument);
  enum number : int { minus_one = -1, seven = 7 };
  EXPECT_THROW((void)g.do_call(minus_one, load), std::invalid_argument);
  EXPECT_EQ(g.stats().led + small.stats().led, 0U);
  EXPECT_EQ(*g.do_call(seven, [](std::uint64_t key) { return static_cast<int>(key); }), 7);
}

template <class K, class Key>
constexpr bool fits = singleflight::detail::converts_without_loss<K, Key>();
enum class scoped : int {};
enum unscoped : std::uint64_t {};

static_assert(fits<int, int> && fits<int, long long> && fits<unsigned, long long>);
static_assert(fits<int, unsigned> && fits<unsigned, int>);  // checked when it runs
static_assert(!fits<std::int64_t, std::int32_t> && !fits<std::uint64_t, std::uint32_t>);
static_assert(!fits<std::uint64_t&, std::uint32_t> && !fits<const std::uint64_t&, std::int32_t>);
static_assert(!fits<int, short> && !fits<int, char> && !fits<int, bool> && fits<bool, int>);
static_assert(!fits<double, int> && !fits<float, std::uint64_t> && !fits<double, float>);
static_assert(fits<float, double> && fits<int, double> && !fits<std::int64_t, double>);
static_assert(!fits<unscoped, std::uint32_t> && fits<unscoped, std::uint64_t>);
static_assert(fits<const char*, std::string> &&
              fits<double, std::string>);  // other errors' business

using std::pair;
using std::tuple;
template <class T>
using maybe = std::optional<T>;
using u32 = std::uint32_t;
using u64 = std::uint64_t;
using singleflight::detail::is_view;
static_assert(is_view<const unsigned char*> && is_view<signed char*> && is_view<const char8_t*>);
static_assert(is_view<std::variant<int, std::string_view>> && !is_view<std::variant<int, char>>);
static_assert(is_view<std::array<std::string_view, 2>> && !is_view<std::array<std::string, 2>>);
static_assert(is_view<std::vector<pair<int, const char*>>> && !is_view<std::vector<int*>>);

// The converting constructors of these cut numbers where no compiler warns.
static_assert(!fits<maybe<u64>, maybe<u32>> && !fits<u64, maybe<u32>> && !fits<u64&, maybe<u32>>);
static_assert(fits<maybe<u32>, maybe<u64>> && fits<u32, maybe<u64>> &&
              fits<maybe<u32>, maybe<u32>>);
static_assert(fits<std::nullopt_t, maybe<u32>> && fits<maybe<const char*>, maybe<std::string>>);
static_assert(!fits<pair<u64, int>, pair<u32, int>> && !fits<pair<int, u64>, pair<int, u32>>);
static_assert(fits<pair<u32, const char*>, pair<u64, std::string>>);
static_assert(!fits<tuple<u64>, tuple<u32>> && !fits<u64, tuple<u32>> && fits<u32, tuple<u64>>);
static_assert(!fits<tuple<int, u64&>, tuple<int, u32>> && fits<tuple<int, u32>, tuple<int, u64>>);
static_assert(!fits<pair<int, u64>, tuple<int, u32>> && fits<pair<int, u32>, tuple<int, u32>>);
static_assert(!fits<pair<int, maybe<tuple<u64>>>, pair<int, maybe<tuple<u32>>>>);
static_assert(!fits<unscoped, maybe<u32>> && fits<tuple<>, tuple<>>);

using singleflight::detail::is_in_range;
static_assert(is_in_range<std::uint32_t>(7LL) && !is_in_range<std::uint32_t>(7 + (1LL << 32)));
static_assert(!is_in_range<std::uint32_t>(-1) && !is_in_range<int>(0xFFFF'FFFFU));
static_assert(is_in_range<int>(-1LL) && is_in_range<bool>(1) && !is_in_range<bool>(2));

struct no_hash {
  template <class Key>
  std::size_t operator()(const Key&) const noexcept {
    return 0;
  }
};

TEST(IntegerKey, BeyondTheRangeOfAPartOfKeyIsRefused) {
  const auto load = [] { return 42; };
  group<maybe<u64>, int> optionals;
  EXPECT_THROW((void)optionals.do_call(-1, load), std::invalid_argument);
  EXPECT_THROW((void)optionals.do_call(maybe<int>(-1), load), std::invalid_argument);
  EXPECT_EQ(*optionals.do_call(maybe<int>(), load), 42);
  EXPECT_EQ(*optionals.do_call(std::nullopt, load), 42);
  EXPECT_EQ(*optionals.do_call(7, [](const auto& key) { return static_cast<int>(*key); }), 7);
  group<pair<u64, u64>, int, no_hash> pairs;
  EXPECT_THROW((void)pairs.do_call(pair(-1, 1), load), std::invalid_argument);
  EXPECT_THROW((void)pairs.do_call(pair(1, -1), load), std::invalid_argument);
  EXPECT_EQ(*pairs.do_call(pair(1, 1), load), 42);
  group<tuple<u64, maybe<u64>>, int, no_hash> tuples;
  EXPECT_THROW((void)tuples.do_call(tuple(1, maybe<int>(-1)), load), std::invalid_argument);
  EXPECT_THROW((void)tuples.do_call(pair(-1, 1), load), std::invalid_argument);
  EXPECT_EQ(*tuples.do_call(pair(1, 1), load), 42);
  group<tuple<u64>, int, no_hash> ones;
  EXPECT_THROW((void)ones.do_call(-1, load), std::invalid_argument);
  EXPECT_EQ(*ones.do_call(1, load), 42);
}

// Neighbours, and multiples of a power of two as `tenant << 32` makes them, spread over the shards.
TEST(IntegerKeys, SpreadOverTheShardsWhateverTheirStride) {
  for (int shift = 0; shift < 60; ++shift) {
    std::array<bool, 16> used{};
    for (std::uint64_t i = 0; i < 16; ++i) {
      used[static_cast<std::size_t>(singleflight::detail::mix(i << shift) >> 60)] = true;
    }
    EXPECT_GE(std::count(used.begin(), used.end(), true), 6) << shift;
  }
}

}  // namespace
