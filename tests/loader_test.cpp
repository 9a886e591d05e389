// SPDX-License-Identifier: MIT
// What a loader may take of its call, and what becomes of what it returns.

#include <gtest/gtest.h>

#include <concepts>
#include <cstddef>
#include <functional>
#include <memory>
#include <singleflight/group.hpp>
#include <string>
#include <string_view>
#include <thread>
#include <utility>

#include "executors.hpp"
#include "support.hpp"

#if defined(__cpp_lib_jthread)
#include <stop_token>
#endif

namespace {

using singleflight::group;
using support::inline_executor;

const std::string long_key = "a key too long for the string object itself";

TEST(LoaderWithKey, GetsTheCallsOwnKey) {
  group<std::string, std::string> g;
  const std::string* callers = &long_key;
  (void)g.do_call(long_key, [&](const std::string& key) {
    EXPECT_EQ(key, long_key);
    EXPECT_NE(&key, callers);
    return key;
  });
  EXPECT_EQ(*g.do_call(long_key, [](const auto& key) { return key; }), long_key);
  EXPECT_EQ(*g.do_call(long_key, [](auto&& key) { return std::string(key); }), long_key);
  EXPECT_EQ(*g.do_call(long_key, [](std::string_view key) { return std::string(key); }), long_key);
}

TEST(LoaderWithKey, IsGivenItOnAnExecutor) {
  group<std::string, std::string> g;
  const auto load = [](const std::string& key) { return "row of " + key; };
  EXPECT_EQ(*g.do_call_on(long_key, inline_executor, {}, load), "row of " + long_key);
  EXPECT_EQ(g.do_async(long_key, inline_executor, load).get(), "row of " + long_key);
  EXPECT_EQ(*g.do_call_on(
                long_key, [](auto task) { std::thread(std::move(task)).join(); }, {}, load),
            "row of " + long_key);
}

// https://github.com/scylladb/scylladb/issues/6446: an argument is moved from in the expression in
// which another one uses it. The key that was given away is empty; the loader's is not.
TEST(LoaderWithKey, HasItWhereTheCallerHasGivenItAway) {
  group<std::string, std::string> g;
  const auto load = [](const auto& key) { return "row of " + key; };
  std::string id = long_key;
  EXPECT_EQ(*g.do_call(std::move(id), load), "row of " + long_key);
  id = long_key;
  EXPECT_EQ(*g.do_call_on(std::move(id), inline_executor, {}, load), "row of " + long_key);
  id = long_key;
  EXPECT_EQ(g.do_async(std::move(id), inline_executor, load).get(), "row of " + long_key);
}

struct view_hash : std::hash<std::string_view> {
  using is_transparent = void;
};

TEST(LoaderWithKey, GetsAKeyAlsoWhereTheCallerGaveAnotherType) {
  group<std::string, std::string, view_hash, std::equal_to<>> g;
  const auto load = [](const auto& key) {
    static_assert(std::same_as<decltype(key), const std::string&>);
    return key;
  };
  EXPECT_EQ(*g.do_call(std::string_view("key"), load), "key");
  EXPECT_EQ(*g.do_call("key", load), "key");
}

TEST(LoaderWithKey, GetsTheKeyOfACallThatRunsAlone) {
  group<std::string, std::string> g(
      {.max_waiters = 0, .when_full = singleflight::group_options::run_alone});
  (void)g.do_call(long_key, [&](const auto& key) {
    support::threads(1, [&](std::size_t) {
      EXPECT_EQ(*g.do_call(std::string(long_key), [](const auto& own) { return own; }), long_key);
    });
    return key;
  });
}

TEST(LoaderWithKey, StillHasItAfterTheCallWasForgotten) {
  group<std::string, std::string> g({.shards = 1});
  (void)g.do_call(long_key, [&](const auto& key) {
    EXPECT_TRUE(g.forget(key));
    EXPECT_EQ(*g.do_call(key, [](const auto& again) { return again; }), long_key);
    EXPECT_EQ(key, long_key);
    return key;
  });
}

TEST(Loader, ThatIsCallableWithNothingIsCalledWithNothing) {
  struct both {
    std::string operator()() const { return "nothing"; }
    std::string operator()(int) const { return "the key"; }
  };
  group<int, std::string> g;
  EXPECT_EQ(*g.do_call(1, both()), "nothing");
}

#if defined(__cpp_lib_jthread)

TEST(LoaderWithStopToken, MayTakeTheKeyBeforeIt) {
  group<std::string, std::string> g;
  const auto load = [](const auto& key, const std::stop_token& token) {
    return token.stop_possible() ? key : "no token";
  };
  EXPECT_EQ(*g.do_call(long_key, load), long_key);
  EXPECT_EQ(*g.do_call_on(long_key, inline_executor, {}, load), long_key);
  EXPECT_EQ(g.do_async(long_key, inline_executor, load).get(), long_key);
}

// std::bind takes any arguments and drops them.
TEST(LoaderWithStopToken, IsNotMadeForABoundFunction) {
  struct counts {
    int operator()() const { return 0; }
  };
  using bound = decltype(std::bind(counts()));
  static_assert(!singleflight::detail::takes_stop_token<bound, int>);
  group<int, int> g;
  EXPECT_EQ(*g.do_call(1, std::bind([](int n) { return n; }, 42)), 42);
}

TEST(LoaderWithStopToken, AndKeyIsStoppedWhenAllHaveLeft) {
  group<int, int> g;
  std::stop_source stop;
  (void)g.do_call(1, {.stop = stop.get_token()}, [&](int, const std::stop_token& token) {
    EXPECT_FALSE(token.stop_requested());
    stop.request_stop();
    EXPECT_TRUE(token.stop_requested());
    return 42;
  });
}

#endif

TEST(Loader, MayBeCallableOnlyAsAnLvalue) {
  struct lvalue_only {
    int operator()() & { return 42; }
  };
  group<int, int> g;
  EXPECT_EQ(*g.do_call(1, lvalue_only()), 42);
  EXPECT_EQ(*g.do_call_on(1, inline_executor, {}, lvalue_only()), 42);
}

TEST(Loader, MayBeCallableOnlyAsAnRvalue) {
  struct rvalue_only {
    int operator()(int key) && { return key; }
  };
  group<int, int> g;
  EXPECT_EQ(*g.do_call(1, rvalue_only()), 1);
  EXPECT_EQ(*g.do_call_on(1, inline_executor, {}, rvalue_only()), 1);
}

struct amount {
  amount(double whole) : cents(static_cast<int>(whole * 100)) {}  // NOLINT: implicit on purpose
  explicit amount(int c) : cents(c) {}
  int cents;
};

TEST(LoadersValue, ConvertsImplicitly) {
  group<int, amount> g;
  const amount implicit = 5;
  EXPECT_EQ((*g.do_call(1, [] { return 5; })).cents, implicit.cents);
}

// Like many a variant: it can be made of anything.
struct dynamic {
  dynamic() = default;
  dynamic(const dynamic&) = default;
  dynamic(dynamic&&) = default;
  template <class T>
  dynamic(T&&) : wraps_another(true) {}  // NOLINT: greedy on purpose
  bool wraps_another = false;
};

TEST(LoadersValue, IsTakenOutOfTheResultOfAnInnerGroup) {
  group<int, dynamic> inner;
  group<int, dynamic> outer;
  const dynamic direct = inner.do_call(1, [] { return dynamic(); });
  const dynamic through =
      outer.do_call(1, [&] { return inner.do_call(1, [] { return dynamic(); }); });
  EXPECT_EQ(through.wraps_another, direct.wraps_another);
}

}  // namespace
