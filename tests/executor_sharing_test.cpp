// SPDX-License-Identifier: MIT
// Callers of do_call, do_call_on and do_async share one call for one key, and the counters count
// them all.

#include <gtest/gtest.h>

#include <atomic>
#include <cstddef>
#include <exception>
#include <functional>
#include <future>
#include <memory>
#include <singleflight/group.hpp>
#include <stdexcept>
#include <string>
#include <system_error>
#include <utility>
#include <vector>

#include "executors.hpp"
#include "support.hpp"

namespace {

using singleflight::group;
using singleflight::group_options;
using support::expect_idle;

constexpr auto full = std::errc::resource_unavailable_try_again;

enum class entry { call, call_on, async };

/// One call, begun through one of the entries and joined by four callers through each of them. The
/// loader returns or throws when all have joined.
class mixed_call {
 public:
  static constexpr std::size_t followers = 12;

  explicit mixed_call(bool fails) : fails_(fails) {}

  void run(entry first) {
    {
      support::threads callers;
      callers.start([this, first] { enter(0, first, true); });
      support::await([&] { return g_.stats().led == 1; }, "the call to begin");
      for (std::size_t i = 1; i <= followers; ++i) {
        const entry how = i % 3 == 0 ? entry::call : i % 3 == 1 ? entry::call_on : entry::async;
        callers.start([this, i, how] { enter(i, how, false); });
      }
    }
    elsewhere_.join();
    EXPECT_EQ(loads_, 1);
    EXPECT_EQ(g_.stats().led, 1U);
    EXPECT_EQ(g_.stats().joined, followers);
    EXPECT_EQ(g_.stats().rejected, 0U);
    EXPECT_EQ(g_.stats().failed, fails_ ? 1U : 0U);
    expect_idle(g_);
    for (std::size_t i = 0; i <= followers; ++i) {
      support::expect_same(told_[i], told_[0]);
      EXPECT_EQ(value_[i], value_[0]) << i;
    }
    if (fails_) {
      ASSERT_NE(told_[0], nullptr);
      EXPECT_THROW(std::rethrow_exception(told_[0]), std::runtime_error);
    } else {
      EXPECT_NE(value_[0], nullptr);
    }
  }

 private:
  void enter(std::size_t i, entry how, bool first) {
    const auto load = [this, how] {
      const std::size_t waiting = followers + (how == entry::call_on ? 1 : 0);
      support::await_followers(g_, waiting);
      ++loads_;
      if (fails_) throw std::runtime_error("no such row");
      return std::string(100, 'x');
    };
    told_[i] = support::thrown_by([&] {
      if (how == entry::async) {
        const auto future = std::make_shared<std::shared_future<std::string>>(
            g_.do_async("key", std::ref(elsewhere_), load));
        keep(i, future->get(), future);
        return;
      }
      auto result = std::make_shared<singleflight::result<std::string>>(
          how == entry::call ? g_.do_call("key", load)
                             : g_.do_call_on("key", std::ref(elsewhere_), {}, load));
      EXPECT_EQ(result->led(), first);
      EXPECT_TRUE(result->shared());
      keep(i, **result, result);
    });
  }
  void keep(std::size_t i, const std::string& value, std::shared_ptr<const void> owner) {
    value_[i] = &value;
    owners_[i] = std::move(owner);
  }

  const bool fails_;
  group<std::string, std::string> g_;
  support::thread_executor elsewhere_;
  std::atomic<int> loads_{0};
  std::vector<std::exception_ptr> told_ = std::vector<std::exception_ptr>(1 + followers);
  std::vector<const std::string*> value_ = std::vector<const std::string*>(1 + followers);
  std::vector<std::shared_ptr<const void>> owners_ =  // keep the values where they are
      std::vector<std::shared_ptr<const void>>(1 + followers);
};

class Mix : public testing::TestWithParam<entry> {};

TEST_P(Mix, OfEntriesSharesOneValue) { mixed_call(false).run(GetParam()); }
TEST_P(Mix, OfEntriesSharesOneException) { mixed_call(true).run(GetParam()); }

INSTANTIATE_TEST_SUITE_P(BegunByEach, Mix,
                         testing::Values(entry::call, entry::call_on, entry::async));

TEST(CallOnAnExecutor, LeavesTheMapBeforeItsValueIsPublished) {
  struct value {
    std::function<void()> when_moved;
    explicit value(std::function<void()> f) : when_moved(std::move(f)) {}
    value(value&& other) : when_moved(std::move(other.when_moved)) { when_moved(); }
    value& operator=(value&&) = delete;
    ~value() = default;
  };
  group<std::string, value> g;
  int moves = 0;
  const auto future = g.do_async("key", support::inline_executor, [&] {
    EXPECT_EQ(g.in_flight().size(), 1U);
    return value([&] {
      ++moves;
      EXPECT_TRUE(g.in_flight().empty());
    });
  });
  EXPECT_NO_THROW((void)future.get());
  EXPECT_EQ(moves, 1);
}

TEST(Flags, OfTheFirstCallerOfDoCallOnSayThatItsLoaderRanAndWhetherAnybodyJoined) {
  group<std::string, int> g;
  for (const bool joined : {false, true}) {
    std::shared_future<int> other;
    const auto result = g.do_call_on(
        "key",
        [&](auto task) {
          if (joined) other = g.do_async("key", support::inline_executor, [] { return 0; });
          task();
        },
        {}, [] { return 42; });
    EXPECT_TRUE(result.led());
    EXPECT_EQ(result.shared(), joined);
    if (joined) {
      EXPECT_EQ(&other.get(), &*result);
    }
  }
}

TEST(Flags, OfVoidResultsAreThoseOfOthers) {
  group<std::string, void> g;
  support::threads follower;
  const auto first = g.do_call_on(
      "key",
      [&](auto task) {
        follower.start([&] {
          const auto followed = g.do_call("key", [] {});
          EXPECT_FALSE(followed.led());
          EXPECT_TRUE(followed.shared());
        });
        support::await_followers(g, 2);
        task();
      },
      {}, [] {});
  EXPECT_TRUE(first.led());
  EXPECT_TRUE(first.shared());
}

TEST(AccountsOfExecutors, CountTheFirstCallerOfDoCallOnAndJoinersByDoAsyncAsWaiting) {
  group<std::string, int> g;
  support::task_queue queue;
  support::threads first;
  first.start([&] { EXPECT_EQ(*g.do_call_on("key", queue, {}, [] { return 42; }), 42); });
  support::await([&] { return queue.size() == 1; }, "the first caller, who waits before it queues");
  const auto joined = g.do_async("key", queue, [] { return 0; });
  EXPECT_EQ(g.stats().waiting, 2U);
  EXPECT_EQ(g.stats().in_flight, 1U);
  EXPECT_EQ(g.stats().led, 1U);
  EXPECT_EQ(g.stats().joined, 1U);
  ASSERT_EQ(g.in_flight().size(), 1U);
  EXPECT_EQ(g.in_flight().front().waiters, 2U);
  queue.run();
  first.join();
  EXPECT_EQ(joined.get(), 42);
  expect_idle(g);
}

TEST(AccountsOfExecutors, DoNotCountTheFirstCallerOfDoAsyncAsWaiting) {
  group<std::string, int> g;
  support::task_queue queue;
  const auto future = g.do_async("key", queue, [] { return 42; });
  EXPECT_EQ(g.stats().waiting, 0U);
  EXPECT_EQ(g.stats().in_flight, 1U);
  ASSERT_EQ(g.in_flight().size(), 1U);
  EXPECT_EQ(g.in_flight().front().waited, std::chrono::nanoseconds::zero());
  EXPECT_TRUE(g.forget_unshared("key"));
  EXPECT_EQ(g.stats().in_flight, 1U);
  queue.run();
  EXPECT_EQ(future.get(), 42);
  expect_idle(g);
}

TEST(ForgetUnshared, LetsTheFirstCallerOfDoCallOnBeAlone) {
  group<std::string, int> g;
  bool alone = false, shared = true;
  std::shared_future<int> joined;
  (void)g.do_call_on(
      "key",
      [&](auto task) {
        alone = g.forget_unshared("key");
        task();
      },
      {}, [] { return 42; });
  (void)g.do_call_on(
      "key",
      [&](auto task) {
        joined = g.do_async("key", support::inline_executor, [] { return 0; });
        shared = !g.forget_unshared("key");
        task();
      },
      {}, [] { return 42; });
  EXPECT_TRUE(alone);
  EXPECT_TRUE(shared);
}

/// A call begun by do_call_on, in a group with room for one follower, and that follower.
class full_call {
 public:
  explicit full_call(group_options::full_policy when_full)
      : g({.max_waiters = 1, .when_full = when_full}) {
    first_.start([this] { EXPECT_EQ(*g.do_call_on("key", queue, {}, [] { return 42; }), 42); });
    support::await([&] { return queue.size() == 1; },
                   "the first caller, who waits before it queues");
    follower_ = g.do_async("key", queue, [] { return 0; });
    EXPECT_EQ(g.stats().joined, 1U);
  }
  void end() {
    queue.run();
    first_.join();
    EXPECT_EQ(follower_.get(), 42);
    EXPECT_EQ(g.stats().led, 1U);
    EXPECT_EQ(g.stats().joined, 1U);
    EXPECT_EQ(g.stats().rejected, 3U);
    expect_idle(g);
  }

  group<std::string, int> g;
  support::task_queue queue;

 private:
  std::shared_future<int> follower_;
  support::threads first_;
};

TEST(FullCallOnAnExecutor, RejectsWhoComesByAnyEntry) {
  full_call call(group_options::reject);
  const auto no = [] {
    ADD_FAILURE() << "the loader of a caller that was rejected ran";
    return 0;
  };
  const std::vector<std::function<void()>> entries = {
      [&] { (void)call.g.do_call("key", no); },
      [&] { (void)call.g.do_call_on("key", support::inline_executor, {}, no); },
      [&] { (void)call.g.do_async("key", support::inline_executor, no); }};
  for (const auto& enter : entries) {
    EXPECT_EQ(support::call_error_of(support::thrown_by(enter)), full);
  }
  EXPECT_EQ(call.g.stats().waiting, 2U);
  call.end();
}

TEST(FullCallOnAnExecutor, LetsWhoComesByAnyEntryRunAlone) {
  full_call call(group_options::run_alone);
  support::task_queue own;
  EXPECT_EQ(*call.g.do_call("key", [] { return 1; }), 1);
  const auto second = call.g.do_call_on("key", support::inline_executor, {}, [] { return 2; });
  EXPECT_EQ(*second, 2);
  EXPECT_TRUE(second.led());
  EXPECT_FALSE(second.shared());
  const auto third = call.g.do_async("key", own, [] { return 3; });
  EXPECT_EQ(call.g.stats().in_flight, 2U);
  EXPECT_EQ(call.g.in_flight().size(), 1U);  // the call that runs alone is not listed
  ASSERT_EQ(own.size(), 1U);
  own.run();
  EXPECT_EQ(third.get(), 3);
  EXPECT_EQ(call.g.in_flight().size(), 1U);
  call.end();
}

}  // namespace
