// SPDX-License-Identifier: MIT
// The outcome for every caller when a loader throws, or when its thread exits.

#include <gtest/gtest.h>
#if !defined(_WIN32)
#include <pthread.h>
#endif

#include <atomic>
#include <cstddef>
#include <exception>
#include <functional>
#include <singleflight/group.hpp>
#include <stdexcept>
#include <string>
#include <system_error>
#include <vector>

#include "support.hpp"

namespace {

using singleflight::call_error;
using singleflight::group;
using support::expect_idle;

/// The exceptions that `callers` callers of one call get when its loader does `fail`, after all of
/// them have joined. The exceptions outlive the threads: TSan does not see what orders their last
/// release.
std::vector<std::exception_ptr> caught_by(std::size_t callers, const std::function<int()>& fail) {
  group<std::string, int> g;
  std::vector<std::exception_ptr> caught(callers);
  support::threads(callers, [&](std::size_t i) {
    try {
      (void)g.do_call("key", [&] {
        support::await_followers(g, callers - 1);
        return fail();
      });
    } catch (...) {
      caught[i] = std::current_exception();
    }
  });
  EXPECT_EQ(g.stats().led, 1U);
  EXPECT_EQ(g.stats().failed, 1U);
  expect_idle(g);
  EXPECT_EQ(g.do_call("key", [] { return 42; }).value(), 42);
  return caught;
}

TEST(Failure, IsTheSameExceptionObjectForEverybody) {
  const auto caught = caught_by(8, []() -> int { throw std::runtime_error("no such row"); });
  [[maybe_unused]] const std::exception* first = nullptr;
  for (const std::exception_ptr& e : caught) {
    support::expect_same(e, caught.front());
    try {
      std::rethrow_exception(e);
    } catch (const std::runtime_error& thrown) {
      EXPECT_STREQ(thrown.what(), "no such row");
#if !defined(_MSC_VER)  // where each rethrow throws a copy
      if (first == nullptr) first = &thrown;
      EXPECT_EQ(&thrown, first);
#endif
    }
  }
}

TEST(Failure, MayBeAnythingThatCanBeThrown) {
  const auto caught = caught_by(4, []() -> int { throw 42; });
  for (const std::exception_ptr& e : caught) {
    support::expect_same(e, caught.front());
    try {
      std::rethrow_exception(e);
    } catch (int thrown) {
      EXPECT_EQ(thrown, 42);
    }
  }
}

TEST(Failure, KeepsASystemErrorOfTheLoaderApartFromTheGroupsOwn) {
  const auto caught = caught_by(4, []() -> int {
    throw std::system_error(std::make_error_code(std::errc::owner_dead), "database");
  });
  for (const std::exception_ptr& e : caught) {
    support::expect_same(e, caught.front());
    try {
      std::rethrow_exception(e);
    } catch (const call_error&) {
      ADD_FAILURE() << "the loader's error has become the group's";
    } catch (const std::system_error& thrown) {
      EXPECT_EQ(thrown.code(), std::errc::owner_dead);
    }
  }
}

TEST(Failure, FreesTheKeyAThousandTimesOver) {
  constexpr std::size_t callers = 4, rounds = 1000;
  group<std::string, int> g;
  std::vector<std::vector<std::exception_ptr>> caught(callers);
  support::threads(callers, [&](std::size_t i) {
    for (std::size_t round = 0; round < rounds; ++round) {
      try {
        (void)g.do_call("key", [&]() -> int {
          support::await_followers(g, callers - 1);
          throw round;
        });
      } catch (...) {
        caught[i].push_back(std::current_exception());
      }
    }
  });
  EXPECT_EQ(g.stats().led, rounds);
  EXPECT_EQ(g.stats().failed, rounds);
  expect_idle(g);
  for (const auto& of_one_caller : caught) {
    ASSERT_EQ(of_one_caller.size(), rounds);
    for (std::size_t round = 0; round < rounds; ++round) {
      support::expect_same(of_one_caller[round], caught.front()[round]);
    }
  }
}

TEST(Failure, CanBeRethrownByManyThreadsAtOnce) {
  constexpr std::size_t callers = 32;
  group<std::string, int> g;
  std::vector<std::exception_ptr> caught(callers);
  std::atomic<std::size_t> arrived{0}, rethrown{0};
  support::threads(callers, [&](std::size_t i) {
    try {
      (void)g.do_call("key", [&]() -> int {
        support::await_followers(g, callers - 1);
        throw std::runtime_error("no such row");
      });
    } catch (...) {
      caught[i] = std::current_exception();
    }
    ++arrived;
    support::await([&] { return arrived == callers; }, "every caller to have its exception");
    for (int n = 0; n < 100; ++n) {
      try {
        std::rethrow_exception(caught[i]);
      } catch (const std::runtime_error& e) {
        if (e.what() == std::string("no such row")) ++rethrown;
      }
    }
  });
  EXPECT_EQ(rethrown, callers * 100);
}

#if defined(SINGLEFLIGHT_TESTS_THREAD_EXIT_UNWINDS)
/// A thread that leads a call for key 1 and, within its loader, one for key 2, in which it ends.
struct ending_thread {
  group<int, int> g;
  std::function<void()> end;
  std::vector<std::exception_ptr> told = std::vector<std::exception_ptr>(4);  // by follower
  bool frames_unwound = false;
  bool went_on = false;

  static void* run(void* self) {
    static_cast<ending_thread*>(self)->lead();
    return nullptr;
  }
  void lead() {
    struct at_unwinding {
      bool& unwound;
      ~at_unwinding() { unwound = true; }
    } const frame{frames_unwound};
    (void)g.do_call(1, [&] {
      return g.do_call(2, [&] {
        end();
        return 0;
      });
    });
    went_on = true;
  }
  /// Starts it, joins two followers to each of its calls and returns what its thread returned.
  void* exit_with_followers() {
    pthread_t leader{};
    EXPECT_EQ(pthread_create(&leader, nullptr, &run, this), 0);
    support::await([&] { return g.stats().led == 2; }, "the calls to run");
    support::threads(told.size(), [&](std::size_t i) {
      try {
        (void)g.do_call(1 + static_cast<int>(i % 2), [] { return 0; });
      } catch (...) {
        told[i] = std::current_exception();
      }
    });
    void* returned = nullptr;
    EXPECT_EQ(pthread_join(leader, &returned), 0);
    return returned;
  }
  void expect_ended() {
    EXPECT_TRUE(frames_unwound);
    EXPECT_FALSE(went_on);
    for (const std::exception_ptr& e : told) {
      ASSERT_NE(e, nullptr);
      try {
        std::rethrow_exception(e);
      } catch (const call_error& why) {
        EXPECT_EQ(why.code(), std::errc::owner_dead);
      }
    }
    EXPECT_EQ(g.stats().failed, 2U);
    expect_idle(g);
    for (int key : {1, 2}) {
      auto next = g.do_call(key, [] { return 42; });
      EXPECT_TRUE(next.led());
      EXPECT_EQ(*next, 42);
    }
  }
};

// A thread that exits inside its loader neither returns nor throws: x/sync leaked its waiters,
// go-zero returned (nil, nil) to them. https://github.com/golang/go/issues/52557
TEST(Failure, TellsTheFollowersOfALeaderWhoseThreadExitsInItsLoader) {
  ending_thread leading;
  leading.end = [&] {
    support::await_followers(leading.g, 4);
    pthread_exit(&leading);
  };
  EXPECT_EQ(leading.exit_with_followers(), &leading);
  leading.expect_ended();
}

TEST(Failure, TellsTheFollowersOfALeaderWhoseThreadIsCancelledInItsLoader) {
  ending_thread leading;
  leading.end = [&] {
    support::await_followers(leading.g, 4);
    pthread_cancel(pthread_self());
    pthread_testcancel();
  };
  EXPECT_EQ(leading.exit_with_followers(), PTHREAD_CANCELED);
  leading.expect_ended();
}
#endif

}  // namespace
