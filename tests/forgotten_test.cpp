// SPDX-License-Identifier: MIT
// What `call_context` tells a loader: whether its key was forgotten, and when to stop.
#include <gtest/gtest.h>

#include <chrono>
#include <future>
#include <singleflight/group.hpp>
#include <string>
#include <thread>
#include <tuple>

#include "held_call.hpp"

namespace {

using singleflight::call_context;
using group = singleflight::group<std::string, int>;

// A loader is called with the first of the forms that fits.
TEST(Context, IsGivenToALoaderThatTakesIt) {
  group flights;
  EXPECT_EQ(*flights.do_call("a", [](const call_context& c) { return c.forgotten() ? 1 : 2; }), 2);
  EXPECT_EQ(*flights.do_call("a",
                             [](const std::string& key, const call_context& c) {
                               return static_cast<int>(key.size()) + (c.forgotten() ? 10 : 20);
                             }),
            21);
}

TEST(Forgotten, IsTrueOnceTheKeyWasForgotten) {
  group flights;
  std::ignore = flights.do_call("a", [&](const call_context& c) {
    EXPECT_FALSE(c.forgotten());
    EXPECT_TRUE(flights.forget("a"));
    EXPECT_TRUE(c.forgotten());
    return 1;
  });
}

// A forget that finds no call listed counts, too: the call may have been unlisted before.
TEST(Forgotten, CountsAForgetThatFindsNothing) {
  group flights({.max_waiters = 0, .when_full = singleflight::group_options::run_alone});
  std::thread([&] {
    std::ignore = flights.do_call("a", [&] {
      std::thread([&] {
        std::ignore = flights.do_call("a", [&](const call_context& alone) {  // is not listed
          EXPECT_TRUE(flights.forget("a"));
          EXPECT_TRUE(alone.forgotten());
          return 2;
        });
        std::ignore = flights.do_call("b", [&](const call_context& c) {
          EXPECT_FALSE(c.forgotten());
          EXPECT_TRUE(flights.forget("b"));
          EXPECT_TRUE(c.forgotten());
          return 3;
        });
      }).join();
      return 1;
    });
  }).join();
  std::ignore = flights.do_call("c", [&](const call_context& first) {
    EXPECT_TRUE(flights.forget("c"));
    std::ignore = flights.do_call("d", [&](const call_context& second) {
      EXPECT_FALSE(flights.forget("c"));
      EXPECT_TRUE(first.forgotten());
      return second.forgotten() ? 1 : 2;
    });
    return 1;
  });
}

TEST(Forgotten, CountsAForgetThatFindsNothingWhereACallRunsAlone) {
  singleflight::group<int, int> flights(
      {.max_waiters = 0, .when_full = singleflight::group_options::run_alone});
  support::held_call listed(flights);
  std::ignore = flights.do_call(0, [&](const call_context& alone) {
    listed.end(1);
    EXPECT_FALSE(flights.forget(0));
    EXPECT_TRUE(alone.forgotten());
    return 2;
  });
}

// One shard: every call sees every forget of that shard, and none that came before it.
TEST(Forgotten, DoesNotCountWhatLeavesASharedCallListed) {
  group flights;
  std::thread follower;
  std::ignore = flights.do_call("a", [&](const call_context& c) {
    follower = std::thread([&] { EXPECT_EQ(*flights.do_call("a", [] { return 2; }), 1); });
    while (flights.stats().waiting == 0) std::this_thread::yield();
    EXPECT_FALSE(flights.forget_unshared("a"));
    EXPECT_FALSE(c.forgotten());
    return 1;
  });
  follower.join();
}

TEST(Forgotten, DoesNotCountWhatCameBeforeTheCall) {
  group flights({.shards = 1});
  flights.forget("a");
  std::ignore = flights.do_call("a", [&](const call_context& c) {
    EXPECT_FALSE(c.forgotten());
    return 1;
  });
}

TEST(Forgotten, IsTrueOnceTheCallWasSuperseded) {
  group flights({.max_age = std::chrono::milliseconds(1)});
  std::ignore = flights.do_call("a", [&](const call_context& c) {
    std::thread other([&] {
      while (*flights.do_call("a", [] { return 2; }) != 2) {
      }
    });
    other.join();
    EXPECT_TRUE(c.forgotten());
    return 1;
  });
}

// On an executor, too.
TEST(Forgotten, IsKnownOnAnExecutor) {
  group flights;
  const auto here = [](auto task) { task(); };
  std::ignore = flights.do_call_on("a", here, {}, [&](const call_context& c) {
    EXPECT_FALSE(c.forgotten());
    EXPECT_TRUE(flights.forget("a"));
    EXPECT_TRUE(c.forgotten());
    return 1;
  });
}

#if defined(__cpp_lib_jthread)
// The last caller to leave stops a loader that has asked for the token, before or after.
TEST(Context, GivesTheStopToken) {
  group flights;
  const auto run = [](auto task) { std::thread(std::move(task)).detach(); };
  for (const bool early : {true, false}) {
    std::stop_source caller;
    std::promise<bool> seen;
    const singleflight::call_options options{.stop = caller.get_token()};
    EXPECT_THROW(std::ignore = flights.do_call_on("a", run, options,
                                                  [&](const call_context& c) {
                                                    if (early) {
                                                      const std::stop_token told = c.stop_token();
                                                      caller.request_stop();
                                                      while (!told.stop_requested())
                                                        std::this_thread::yield();
                                                    } else {
                                                      caller.request_stop();
                                                      while (flights.stats().waiting > 0) {
                                                        std::this_thread::yield();
                                                      }
                                                    }
                                                    seen.set_value(c.stop_token().stop_requested());
                                                    return 1;
                                                  }),
                 singleflight::call_error);
    EXPECT_TRUE(seen.get_future().get());
  }
}
#endif

}  // namespace
