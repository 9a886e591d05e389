// SPDX-License-Identifier: MIT
// Of the processes that want one key at the same time, one loads it.
// The store is in memory, and its clock is moved by the tests.

#include "singleflight/fleet.hpp"

#include <gtest/gtest.h>

#include <atomic>
#include <chrono>
#include <limits>
#include <memory>
#include <set>
#include <stdexcept>
#include <string>
#include <type_traits>
#include <vector>

#include "../support.hpp"
#include "memory_leases.hpp"
#include "processes.hpp"

#if defined(__unix__)
#include <sys/wait.h>
#include <unistd.h>
#endif

namespace {

using namespace std::chrono_literals;
using fleet_tests::a_while;
using fleet_tests::await_waiting;
using fleet_tests::held_load;
using fleet_tests::memory_fleet;
using fleet_tests::memory_leases;
using fleet_tests::not_called;
using fleet_tests::processes;
using singleflight::fleet_options;
using singleflight::keep;

static_assert(singleflight::lease_store<memory_leases>);
static_assert(!singleflight::lease_store<int>);
// "Held by another", "the store refused" and "no answer" cannot be taken for each other.
static_assert(!std::is_convertible_v<singleflight::lease_entry::kind, bool>);
static_assert(!std::is_convertible_v<singleflight::lease_answer, bool>);
static_assert(!std::is_constructible_v<bool, singleflight::lease_entry>);

TEST(Fleet, LoadsAColdKeyOnceAndEveryProcessGetsTheValue) {
  processes fleet(5);
  held_load load(fleet.leases, fleet[0], "k");
  std::vector<std::string> answers(5);
  support::threads others(
      4, [&](std::size_t i) { answers[i + 1] = fleet[i + 1].load("k", a_while, not_called); });
  await_waiting(fleet.leases, 4);
  load.end("the value");
  others.join();
  EXPECT_EQ(load.value, "the value");
  for (std::size_t i = 1; i < 5; ++i) {
    EXPECT_EQ(answers[i], "the value");
    EXPECT_EQ(fleet[i].stats().followed, 1U);
    EXPECT_EQ(fleet[i].stats().entries(), 1U);
  }
  EXPECT_EQ(fleet[0].stats().led, 1U);
  EXPECT_EQ(fleet[0].stats().lost_fills, 0U);
  EXPECT_EQ(fleet.leases.value("k"), "the value");
  EXPECT_EQ(fleet.leases.leader("k"), "(none)");
}

TEST(Fleet, TakesAValueThatIsInTheCacheAtTheDoor) {
  processes fleet(1);
  fleet.leases.put("k", "cached");
  EXPECT_EQ(fleet[0].load("k", a_while, not_called), "cached");
  EXPECT_EQ(fleet[0].stats().hits, 1U);
  EXPECT_EQ(fleet[0].stats().entries(), 1U);
  EXPECT_EQ(fleet.leases.operations().size(), 1U);
}

TEST(Fleet, CostsTheLeaderAnEntryAndAFill) {
  processes fleet(1);
  EXPECT_EQ(fleet[0].load("k", a_while, [] { return "v"; }), "v");
  using operation = memory_leases::operation;
  EXPECT_EQ(fleet.leases.operations(), (std::vector{operation::enter, operation::fill}));
}

TEST(Fleet, CostsAFollowerAnEntryAWaitAndAnEntry) {
  processes fleet(2);
  held_load load(fleet.leases, fleet[0], "k");
  bool ended = false;
  fleet.leases.meanwhile = [&] {
    if (!std::exchange(ended, true)) load.end("v");
  };
  const auto before = fleet.leases.operations().size();
  EXPECT_EQ(fleet[1].load("k", a_while, not_called), "v");
  auto operations = fleet.leases.operations();
  operations.erase(operations.begin(), operations.begin() + static_cast<std::ptrdiff_t>(before));
  std::erase(operations, memory_leases::operation::fill);  // the leader's
  using operation = memory_leases::operation;
  EXPECT_EQ(operations, (std::vector{operation::enter, operation::wait, operation::enter}));
}

TEST(Fleet, DoesNotLetAKeyWaitForAnother) {
  processes fleet(2);
  held_load slow(fleet.leases, fleet[0], "slow");
  EXPECT_EQ(fleet[1].load("other", a_while, [] { return "at once"; }), "at once");
  EXPECT_EQ(fleet[0].load("third", a_while, [] { return "at once"; }), "at once");
}

TEST(Fleet, StoresForTheLifetimeGiveOrTakeTheJitter) {
  processes fleet(1, {.jitter = 0.1});
  std::set<std::chrono::milliseconds> lifetimes;
  for (int i = 0; i < 200; ++i) {
    const std::string key = std::to_string(i);
    (void)fleet[0].load(key, 10'000ms, [] { return "v"; });
    lifetimes.insert(fleet.leases.lifetime(key));
  }
  EXPECT_GE(*lifetimes.begin(), 9'000ms);
  EXPECT_LE(*lifetimes.rbegin(), 11'000ms);
  EXPECT_LT(*lifetimes.begin(), 9'500ms);
  EXPECT_GT(*lifetimes.rbegin(), 10'500ms);
  EXPECT_GT(lifetimes.size(), 20U);
}

TEST(Fleet, StoresForTheVeryLifetimeWithoutJitter) {
  processes fleet(1);
  (void)fleet[0].load("k", 1234ms, [] { return "v"; });
  EXPECT_EQ(fleet.leases.lifetime("k"), 1234ms);
}

TEST(Fleet, StoresForAtLeastAMillisecondAndAtMostTenYears) {
  processes fleet(1, {.jitter = 0.9});
  for (int i = 0; i < 100; ++i) {
    const std::string key = std::to_string(i);
    (void)fleet[0].load(key, 1ms, [] { return "v"; });
    EXPECT_EQ(fleet.leases.value(key), "v");
  }
  (void)fleet[0].load("short", 1us, [] { return "v"; });
  EXPECT_EQ(fleet.leases.lifetime("short"), 1ms);
  (void)fleet[0].load("ms", std::chrono::milliseconds::max(), [] { return "v"; });
  (void)fleet[0].load("hours", std::chrono::hours::max(), [] { return "v"; });
  (void)fleet[0].load("keep", a_while, [] {
    return keep{std::string("v"), std::chrono::hours::max()};
  });
  for (const char* key : {"ms", "hours", "keep"}) {
    EXPECT_GE(fleet.leases.lifetime(key), 24h * 364) << key;
    EXPECT_LE(fleet.leases.lifetime(key), 24h * 365 * 20) << key;
  }
}

TEST(Fleet, StoresForWhatTheLoaderSays) {
  processes fleet(1);
  EXPECT_EQ(fleet[0].load("k", a_while, [] { return keep{std::string("v"), 5s}; }), "v");
  EXPECT_EQ(fleet.leases.lifetime("k"), 5s);
}

TEST(Fleet, HandsOverAResultThatIsNotKept) {
  for (const auto lifetime : {0ms, -1ms, std::chrono::milliseconds::min()}) {
    processes fleet(3);
    held_load load(fleet.leases, fleet[0], "k", lifetime);
    support::threads others(2, [&](std::size_t i) {
      EXPECT_EQ(fleet[i + 1].load("k", a_while, not_called), "not kept");
    });
    await_waiting(fleet.leases, 2);
    load.end("not kept");
    others.join();
    EXPECT_EQ(fleet[1].stats().handed_over + fleet[2].stats().handed_over, 2U);
    EXPECT_EQ(fleet[0].stats().lost_fills, 0U);
    EXPECT_EQ(fleet.leases.value("k"), "(none)");
    EXPECT_EQ(fleet.leases.leader("k"), "(none)");
  }
}

TEST(Fleet, LetsNobodyJoinWhoComesAfterTheResult) {
  processes fleet(2);
  EXPECT_EQ(fleet[0].load("k", 0ms, [] { return "first"; }), "first");
  EXPECT_EQ(fleet[1].load("k", 0ms, [] { return "second"; }), "second");
  EXPECT_EQ(fleet[1].stats().led, 1U);
}

TEST(Fleet, LeavesAValueThatOthersWroteMeanwhile) {
  processes fleet(2);
  held_load load(fleet.leases, fleet[0], "k");
  fleet.leases.put("k", "written through");
  load.end("loaded");
  EXPECT_EQ(load.value, "loaded");
  EXPECT_EQ(fleet.leases.value("k"), "written through");
}

TEST(Fleet, StoresNothingAfterAnInvalidation) {
  processes fleet(3);
  held_load old(fleet.leases, fleet[0], "k");
  EXPECT_TRUE(fleet[1].invalidate("k"));
  held_load next(fleet.leases, fleet[1], "k");  // enters after it, so joins nothing
  EXPECT_NE(old.token, next.token);
  old.end("old");
  EXPECT_EQ(old.value, "old");
  EXPECT_EQ(fleet[0].stats().lost_fills, 1U);
  EXPECT_EQ(fleet.leases.value("k"), "(none)");
  EXPECT_EQ(fleet.leases.leader("k"), next.token);

  bool ended = false;
  fleet.leases.meanwhile = [&] {
    if (!std::exchange(ended, true)) next.end("new");
  };
  EXPECT_EQ(fleet[2].load("k", a_while, not_called), "new");
  EXPECT_EQ(fleet.leases.value("k"), "new");
}

TEST(Fleet, GivesTheResultToThoseWhoJoinedBeforeAnInvalidation) {
  processes fleet(2);
  held_load old(fleet.leases, fleet[0], "k");
  support::threads other(
      1, [&](std::size_t) { EXPECT_EQ(fleet[1].load("k", a_while, not_called), "old"); });
  await_waiting(fleet.leases, 1);
  EXPECT_TRUE(fleet[0].invalidate("k"));
  old.end("old");
  other.join();
  EXPECT_EQ(fleet[1].stats().handed_over, 1U);
  EXPECT_EQ(fleet.leases.value("k"), "(none)");
}

TEST(Fleet, DropsTheValueAtAnInvalidation) {
  processes fleet(1);
  fleet.leases.put("k", "old");
  EXPECT_TRUE(fleet[0].invalidate("k"));
  EXPECT_EQ(fleet[0].load("k", a_while, [] { return "new"; }), "new");
}

TEST(Fleet, WaitsInSlicesAndNoLongerThanTheLease) {
  processes fleet(2, {.lease = 250ms, .max_wait = 60'000ms});
  held_load load(fleet.leases, fleet[0], "k");
  fleet.leases.meanwhile = [] {};
  const auto begin = fleet.leases.now();
  EXPECT_EQ(fleet[1].load("k", a_while, [] { return "taken over"; }), "taken over");
  EXPECT_EQ(fleet.leases.now() - begin, 250ms);
  EXPECT_EQ(fleet.leases.longest_wait(), 100ms);
  EXPECT_EQ(fleet[1].stats().taken_over, 1U);
}

// A leader that died: of all that wait, one takes over, and the others wait for that one.
TEST(Fleet, HasOneTakeOverWhenTheLeaseEnds) {
  constexpr std::size_t many = 10;
  processes fleet(many + 1, {.lease = 1000ms, .max_wait = 60'000ms});
  held_load dead(fleet.leases, fleet[0], "k");
  std::atomic<int> loads = 0;
  std::atomic<bool> end_it = false;
  support::threads others(many, [&](std::size_t i) {
    EXPECT_EQ(fleet[i + 1].load("k", a_while,
                                [&] {
                                  ++loads;
                                  support::await([&] { return end_it.load(); }, "the test");
                                  return "second";
                                }),
              "second");
  });
  await_waiting(fleet.leases, many);
  support::await(
      [&] {
        if (loads == 0) fleet.leases.advance(10ms);
        return loads == 1 && fleet.leases.waiting() == many - 1;
      },
      "one to take over");
  end_it = true;
  support::await(  // one that still waits for the first leader looks again when its slice is over
      [&] {
        fleet.leases.advance(10ms);
        return fleet.leases.value("k") == "second" && fleet.leases.waiting() == 0;
      },
      "the others to be answered");
  others.join();
  EXPECT_EQ(loads, 1);
  std::uint64_t taken_over = 0;
  std::uint64_t followed = 0;
  for (std::size_t i = 1; i <= many; ++i) {
    taken_over += fleet[i].stats().taken_over;
    followed += fleet[i].stats().followed;
  }
  EXPECT_EQ(taken_over, 1U);
  EXPECT_EQ(followed, many - 1);

  // The first leader was not dead, but late: it changes nothing.
  dead.end("first");
  EXPECT_EQ(dead.value, "first");
  EXPECT_EQ(fleet.leases.value("k"), "second");
  EXPECT_EQ(fleet[0].stats().lost_fills, 1U);
}

// With the defaults: a leader dies, another process takes over and needs nearly all of its lease, and
// who has waited all the time still gets its value.
TEST(Fleet, WaitsByDefaultForTheOneThatTakesOver) {
  processes fleet(3);
  held_load dead(fleet.leases, fleet[0], "k");
  const auto begin = fleet.leases.now();
  std::unique_ptr<held_load> second;
  fleet.leases.meanwhile = [&] {
    const auto passed = fleet.leases.now() - begin;
    if (second == nullptr && passed >= fleet_options().lease - 100ms) {
      fleet.leases.advance(100ms);  // the lease has ended
      second = std::make_unique<held_load>(fleet.leases, fleet[1], "k");
    }
    if (passed == 2 * fleet_options().lease - 100ms) second->end("second");
  };
  EXPECT_EQ(fleet[2].load("k", a_while, not_called), "second");
  EXPECT_EQ(fleet[2].stats().followed, 1U);
}

TEST(Fleet, RunsItsOwnLoaderWhenItHasWaitedLongEnough) {
  processes fleet(2, {.lease = 60'000ms, .max_wait = 350ms});
  held_load slow(fleet.leases, fleet[0], "k");
  fleet.leases.meanwhile = [] {};
  const auto begin = fleet.leases.now();
  EXPECT_EQ(fleet[1].load("k", a_while, [] { return "mine"; }), "mine");
  EXPECT_EQ(fleet.leases.now() - begin, 350ms);
  EXPECT_EQ(fleet[1].stats().alone, 1U);
  EXPECT_EQ(fleet.leases.value("k"), "(none)");  // it holds no lease, so it stores nothing
  slow.end("slow");
  EXPECT_EQ(fleet.leases.value("k"), "slow");
}

TEST(Fleet, DoesNotWaitAtAllIfItMayNot) {
  processes fleet(2, {.max_wait = 0ms});
  held_load slow(fleet.leases, fleet[0], "k");
  EXPECT_EQ(fleet[1].load("k", a_while, [] { return "mine"; }), "mine");
  EXPECT_EQ(fleet[1].stats().alone, 1U);
}

// x needs y in one process, y needs x in another: the lease ends it, or the wait does.
TEST(Fleet, GetsOutOfACircleAcrossProcesses) {
  processes fleet(2, {.lease = 500ms, .max_wait = 400ms});
  std::atomic<int> inside = 0;
  const auto circle = [&](memory_fleet& process, const std::string& first,
                          const std::string& second) {
    return process.load(first, 0ms, [&] {
      ++inside;
      support::await([&] { return inside >= 2; }, "both to lead");
      return process.load(second, 0ms, [&] { return second + " alone"; });
    });
  };
  support::threads both(2, [&](std::size_t i) {
    EXPECT_NE(circle(fleet[i], i == 0 ? "x" : "y", i == 0 ? "y" : "x"), "");
  });
  support::await(
      [&] {
        fleet.leases.advance(10ms);
        return fleet[0].stats().entries() == 2 && fleet[1].stats().entries() == 2;
      },
      "both to be answered");
}

TEST(Fleet, ShowsHowManyWait) {
  processes fleet(2);
  held_load load(fleet.leases, fleet[0], "k");
  support::threads other(1, [&](std::size_t) { (void)fleet[1].load("k", a_while, not_called); });
  support::await([&] { return fleet[1].stats().waiting == 1; }, "the figure");
  load.end("v");
  other.join();
  EXPECT_EQ(fleet[1].stats().waiting, 0U);
}

TEST(Fleet, WorksWithValuesThatCannotBeCopied) {
  struct codec {
    static std::string encode(const std::unique_ptr<int>& value) { return std::to_string(*value); }
    static std::unique_ptr<int> decode(const std::string& bytes) {
      return std::make_unique<int>(std::stoi(bytes));
    }
  };
  memory_leases leases;
  singleflight::fleet<std::unique_ptr<int>, memory_leases, codec> fleet(leases);
  EXPECT_EQ(*fleet.load("k", a_while, [] { return std::make_unique<int>(42); }), 42);
  EXPECT_EQ(leases.value("k"), "42");
  EXPECT_EQ(*fleet.load("k", a_while, [] { return std::make_unique<int>(0); }), 42);
  EXPECT_EQ(fleet.stats().hits, 1U);
}

TEST(Fleet, GivesEachLoadATokenOfItsOwn) {
  processes fleet(2);
  std::set<std::string> tokens;
  for (int i = 0; i < 100; ++i) {
    for (std::size_t p = 0; p < 2; ++p) {
      (void)fleet[p].load("k", 0ms, [&] {
        tokens.insert(fleet.leases.leader("k"));
        return "v";
      });
    }
  }
  EXPECT_EQ(tokens.size(), 200U);
}

#if defined(__unix__)
TEST(Fleet, HasOtherTokensAfterAFork) {
  processes fleet(1);
  const auto token = [&] {
    std::string seen;
    (void)fleet[0].load("k", 0ms, [&] {
      seen = fleet.leases.leader("k");
      return "v";
    });
    return seen;
  };
  int pipe_ends[2];
  ASSERT_EQ(pipe(pipe_ends), 0);
  const pid_t child = fork();
  ASSERT_GE(child, 0);
  if (child == 0) {
    const std::string mine = token();
    const auto written = write(pipe_ends[1], mine.data(), mine.size());
    _exit(written == static_cast<ssize_t>(mine.size()) ? 0 : 1);
  }
  int status = 0;
  ASSERT_EQ(waitpid(child, &status, 0), child);
  EXPECT_EQ(status, 0);
  char text[256];
  const ssize_t length = read(pipe_ends[0], text, sizeof text);
  ASSERT_GT(length, 0);
  EXPECT_NE(std::string(text, static_cast<std::size_t>(length)), token());
  close(pipe_ends[0]);
  close(pipe_ends[1]);
}
#endif

TEST(FleetOptions, AreRefusedInOneSentenceIfTheyMakeNoSense) {
  const auto refused = [](const fleet_options& options) -> std::string {
    memory_leases leases;
    try {
      const memory_fleet fleet(leases, options);
      return "accepted";
    } catch (const std::invalid_argument& error) {
      return error.what();
    }
  };
  const std::string lease = "singleflight: fleet_options::lease must be 1 ms to 1 hour";
  EXPECT_EQ(refused({.lease = 0ms}), lease);
  EXPECT_EQ(refused({.lease = -1ms}), lease);
  EXPECT_EQ(refused({.lease = 2h}), lease);
  const std::string max_wait = "singleflight: fleet_options::max_wait must be 0 to 1 hour";
  EXPECT_EQ(refused({.max_wait = -1ms}), max_wait);
  EXPECT_EQ(refused({.max_wait = std::chrono::milliseconds::max()}), max_wait);
  EXPECT_EQ(refused({.attempts = 0}), "singleflight: fleet_options::attempts must be at least 1");
  EXPECT_EQ(refused({.handover = 0ms}),
            "singleflight: fleet_options::handover must be 1 ms to 1 hour");
  const std::string jitter = "singleflight: fleet_options::jitter must be 0 to less than 1";
  EXPECT_EQ(refused({.jitter = -0.1}), jitter);
  EXPECT_EQ(refused({.jitter = 1}), jitter);
  EXPECT_EQ(refused({.jitter = std::numeric_limits<double>::quiet_NaN()}), jitter);
  EXPECT_EQ(refused({.lease = 1ms, .max_wait = 0ms, .attempts = 1, .handover = 1ms, .jitter = 0}),
            "accepted");
  EXPECT_EQ(refused({}), "accepted");
}

}  // namespace
