// SPDX-License-Identifier: MIT
// call_options::attempts: a follower whose call failed tries again, in step with the others.

#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstddef>
#include <exception>
#include <functional>
#include <limits>
#include <map>
#include <singleflight/group.hpp>
#include <stdexcept>
#include <string>
#include <system_error>
#include <vector>

#include "executors.hpp"
#include "support.hpp"

namespace {

using singleflight::call_options;
using singleflight::group;
using namespace std::chrono_literals;

struct load_failed : std::runtime_error {
  explicit load_failed(int execution)
      : std::runtime_error("execution " + std::to_string(execution)) {}
};

/// Callers that enter together for one key, and the outcome of each.
struct herd {
  explicit herd(std::size_t n) : callers(n), thrown(n), value(n), led(n) {}

  group<std::string, int> g;
  const std::size_t callers;
  std::atomic<int> executions{0};
  std::vector<std::exception_ptr> thrown;
  std::vector<int> value;
  std::vector<char> led;

  /// Lets one caller lead and the others follow. The n-th execution begins when all remaining
  /// callers have joined it, and then does `nth(n)`. Each failure ends the attempts of its leader.
  void run(std::size_t attempts, const std::function<int(int)>& nth) {
    support::threads(callers, [&](std::size_t i) {
      thrown[i] = support::thrown_by([&] {
        auto result = g.do_call("key", call_options{.attempts = attempts}, [&] {
          const int execution = ++executions;
          support::await_followers(g, callers - static_cast<std::size_t>(execution));
          return nth(execution);
        });
        value[i] = *result;
        led[i] = result.led();
      });
    });
    const auto stats = g.stats();
    EXPECT_EQ(stats.led + stats.joined + stats.rejected, callers);
    EXPECT_EQ(stats.rejected, 0U);
    EXPECT_EQ(stats.in_flight, 0U);
    EXPECT_EQ(stats.waiting, 0U);
  }
  /// By text: the exception objects that were thrown, and how many callers got each.
  std::map<std::string, std::size_t> failures() const {
    std::map<std::string, std::size_t> counts;
    std::map<std::string, std::exception_ptr> objects;
    for (const std::exception_ptr& e : thrown) {
      try {
        if (e) std::rethrow_exception(e);
      } catch (const load_failed& failure) {
        ++counts[failure.what()];
        support::expect_same(objects.emplace(failure.what(), e).first->second, e);
      }
    }
    return counts;
  }
  std::ptrdiff_t succeeded() const {
    return std::count(thrown.begin(), thrown.end(), std::exception_ptr());
  }
};

int fail(int execution) { throw load_failed(execution); }

TEST(Attempts, LetOneFollowerLeadTheSecondCallAndTheOthersJoinIt) {
  herd h(17);
  h.run(2, [](int execution) { return execution == 1 ? fail(1) : 42; });
  EXPECT_EQ(h.executions, 2);
  EXPECT_EQ(h.failures(), (std::map<std::string, std::size_t>{{"execution 1", 1}}));
  EXPECT_EQ(h.succeeded(), 16);
  EXPECT_EQ(std::count(h.value.begin(), h.value.end(), 42), 16);
  EXPECT_EQ(std::count(h.led.begin(), h.led.end(), 1), 1);
  EXPECT_EQ(h.g.stats().led, 1U);
  EXPECT_EQ(h.g.stats().joined, 16U);
  EXPECT_EQ(h.g.stats().failed, 1U);
}

// Where waiters retry one by one, or all at once, a failing backend gets as many requests as there
// are waiters, or the last waits for all the others' failures.
// https://github.com/cloudflare/pingora/issues/474, https://github.com/ben-manes/caffeine/issues/425
TEST(Attempts, AreAsManyExecutionsAsOneCallerHasHoweverManyCallersThereAre) {
  herd h(17);
  h.run(3, fail);
  EXPECT_EQ(h.executions, 3);
  EXPECT_EQ(h.failures(), (std::map<std::string, std::size_t>{
                              {"execution 1", 1}, {"execution 2", 1}, {"execution 3", 15}}));
  EXPECT_EQ(h.g.stats().failed, 3U);
}

TEST(Attempts, LetAFollowerThatLeadsInTheEndThrowItsOwnException) {
  herd h(2);
  h.run(std::numeric_limits<std::size_t>::max(), fail);
  EXPECT_EQ(h.executions, 2);
  EXPECT_EQ(h.failures(),
            (std::map<std::string, std::size_t>{{"execution 1", 1}, {"execution 2", 1}}));
}

TEST(Attempts, AreOneByDefaultSoThatAllThrowTheSharedException) {
  EXPECT_EQ(call_options().attempts, 1U);
  herd h(17);
  h.run(call_options().attempts, fail);
  EXPECT_EQ(h.executions, 1);
  EXPECT_EQ(h.failures(), (std::map<std::string, std::size_t>{{"execution 1", 17}}));
}

TEST(Attempts, AreNotThoseOfALeader) {
  group<std::string, int> g;
  int executions = 0;
  EXPECT_THROW(
      (void)g.do_call("key", call_options{.attempts = 5}, [&] { return fail(++executions); }),
      load_failed);
  EXPECT_EQ(executions, 1);
  EXPECT_THROW((void)g.do_call_on("key", support::inline_executor, call_options{.attempts = 5},
                                  [&] { return fail(++executions); }),
               load_failed);
  EXPECT_EQ(executions, 2);
}

TEST(Attempts, AreEachCallersOwn) {
  group<std::string, int> g;
  std::atomic<int> executions{0};
  std::vector<std::exception_ptr> thrown(4);
  std::vector<int> values(4);
  {
    const auto enter = [&](std::size_t i, std::size_t attempts) {
      thrown[i] = support::thrown_by([&] {
        values[i] = g.do_call("key", call_options{.attempts = attempts}, [&] {
          const int execution = ++executions;
          support::await_followers(g, execution == 1 ? 3 : 1);
          return execution == 1 ? fail(1) : 42;
        });
      });
    };
    support::threads callers;
    for (std::size_t i = 0; i < 4; ++i) {
      callers.start([&, i] { enter(i, i < 2 ? 1 : 2); });
      if (i == 0) support::await([&] { return executions == 1; }, "the first to lead");
    }
  }
  EXPECT_EQ(executions, 2);
  EXPECT_NE(thrown[0], nullptr);
  EXPECT_EQ(thrown[1], thrown[0]);
  EXPECT_EQ(thrown[2], nullptr);
  EXPECT_EQ(thrown[3], nullptr);
  EXPECT_EQ(values, (std::vector<int>{0, 0, 42, 42}));
}

TEST(Attempts, LetAFollowerOfDoCallOnRunItsOwnLoaderOnItsExecutor) {
  group<std::string, int> g;
  support::task_queue queue;
  support::threads caller;
  EXPECT_THROW((void)g.do_call("key",
                               [&]() -> int {
                                 caller.start([&] {
                                   auto result =
                                       g.do_call_on("key", queue, call_options{.attempts = 2},
                                                    [] { return 42; });
                                   EXPECT_TRUE(result.led());
                                   EXPECT_EQ(*result, 42);
                                 });
                                 support::await_followers(g, 1);
                                 throw load_failed(1);
                               }),
               load_failed);
  support::await([&] { return queue.size() == 1; }, "the second call");
  EXPECT_EQ(g.stats().waiting, 1U);
  queue.run();
  caller.join();
  EXPECT_EQ(g.stats().led, 1U);
  EXPECT_EQ(g.stats().joined, 1U);
}

TEST(Attempts, CountCallsThatEndedWithoutAResultToo) {
  group<std::string, int> g;
  support::task_queue queue;
  const auto dropped = g.do_async("key", queue, [] { return 0; });
  support::threads caller;
  caller.start([&] {
    auto result = g.do_call("key", call_options{.attempts = 2}, [] { return 42; });
    EXPECT_TRUE(result.led());
    EXPECT_EQ(*result, 42);
  });
  support::await_followers(g, 1);
  queue.drop();
  caller.join();
  EXPECT_EQ(support::call_error_of(support::thrown_by([&] { (void)dropped.get(); })),
            std::errc::owner_dead);
}

TEST(Attempts, EndAtTheDeadline) {
  group<std::string, int> g;
  support::task_queue first, second;
  const auto failing = g.do_async("key", first, [] { return fail(1); });
  std::exception_ptr told;
  support::threads caller;
  caller.start([&] {
    told = support::thrown_by([&] {
      const call_options patient{.deadline = std::chrono::steady_clock::now() + 100ms,
                                 .attempts = std::numeric_limits<std::size_t>::max()};
      (void)g.do_call("key", patient, [] {
        ADD_FAILURE() << "the follower's loader ran";
        return 0;
      });
    });
  });
  support::await([&] { return g.stats().waiting + g.stats().timed_out > 0; }, "the follower");
  g.forget("key");
  const auto hung = g.do_async("key", second, [] { return 42; });
  first.run();
  caller.join();
  EXPECT_EQ(support::call_error_of(told), std::errc::timed_out);
  EXPECT_EQ(g.stats().timed_out, 1U);
  EXPECT_EQ(g.stats().led + g.stats().joined + g.stats().rejected, 3U);
  EXPECT_EQ(g.stats().waiting, 0U);
  second.run();
  EXPECT_EQ(hung.get(), 42);
}

TEST(Attempts, MustBeAtLeastOne) {
  group<std::string, int> g;
  const auto load = [] {
    ADD_FAILURE() << "the loader ran";
    return 0;
  };
  const call_options none{.attempts = 0};
  const std::vector<std::function<void()>> entries = {
      [&] { (void)g.do_call("key", none, load); },
      [&] { (void)g.do_call_on("key", support::inline_executor, none, load); }};
  for (const auto& enter : entries) {
    try {
      enter();
      ADD_FAILURE() << "no attempt was taken for one";
    } catch (const std::invalid_argument& e) {
      EXPECT_STREQ(e.what(), "singleflight: call_options::attempts must be at least 1");
    }
  }
  EXPECT_EQ(g.stats().led, 0U);
  EXPECT_EQ(g.stats().rejected, 0U);
}

}  // namespace
