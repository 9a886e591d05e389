// SPDX-License-Identifier: MIT
// What fails: loaders, codecs, the store. The caller gets its value or its own exception, and the
// lease is given back.

#include <gtest/gtest.h>

#include <atomic>
#include <chrono>
#include <new>
#include <random>
#include <singleflight/fleet.hpp>
#include <singleflight/group.hpp>
#include <stdexcept>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "../support.hpp"
#include "memory_leases.hpp"
#include "processes.hpp"

#if defined(__unix__)
#include <pthread.h>
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
using fault = memory_leases::fault;
using operation = memory_leases::operation;

struct loader_failed : std::runtime_error {
  using std::runtime_error::runtime_error;
};

/// Calls its faults once for each operation that is listed, then no more.
void fail_once(memory_leases& leases, operation which, fault how) {
  leases.faults = [which, how, done = false](operation now, std::string_view) mutable {
    if (now != which || std::exchange(done, true)) return fault::none;
    return how;
  };
}

void fail_always(memory_leases& leases, operation which, fault how) {
  leases.faults = [which, how](operation now, std::string_view) {
    return now == which ? how : fault::none;
  };
}

TEST(FleetFailure, OfALoaderReachesItsCallerAndLeavesNothing) {
  processes fleet(1);
  EXPECT_THROW((void)fleet[0].load("k", a_while, []() -> std::string { throw loader_failed("x"); }),
               loader_failed);
  EXPECT_EQ(fleet.leases.value("k"), "(none)");
  EXPECT_EQ(fleet.leases.leader("k"), "(none)");
  EXPECT_EQ(fleet[0].stats().led, 1U);
}

// A failed load deletes nothing but its own lease.
TEST(FleetFailure, OfALoaderLeavesAValueAlone) {
  processes fleet(1);
  EXPECT_THROW((void)fleet[0].load("k", a_while,
                                   [&]() -> std::string {
                                     fleet.leases.put("k", "written meanwhile");
                                     throw loader_failed("x");
                                   }),
               loader_failed);
  EXPECT_EQ(fleet.leases.value("k"), "written meanwhile");
}

TEST(FleetFailure, OfALoaderLetsAWaitingProcessLeadAtOnce) {
  processes fleet(2, {.lease = 60'000ms, .max_wait = 60'000ms, .attempts = 2});
  std::atomic<bool> fail_now = false;
  support::threads leader(1, [&](std::size_t) {
    EXPECT_THROW((void)fleet[0].load("k", a_while,
                                     [&]() -> std::string {
                                       support::await([&] { return fail_now.load(); }, "the test");
                                       throw loader_failed("x");
                                     }),
                 loader_failed);
  });
  support::await([&] { return fleet.leases.leader("k") != "(none)"; }, "the leader");
  support::threads other(1, [&](std::size_t) {
    EXPECT_EQ(fleet[1].load("k", a_while, [] { return "second"; }), "second");
  });
  await_waiting(fleet.leases, 1);
  fail_now = true;
  other.join();
  leader.join();
  EXPECT_EQ(fleet[1].stats().taken_over, 1U);  // the clock has not moved
  EXPECT_EQ(fleet.leases.value("k"), "second");
}

TEST(FleetFailure, OfSeveralLeadersElsewhereMakesACallerTryForItself) {
  processes fleet(2, {.max_wait = 60'000ms, .attempts = 2});
  // The other process leads twice and fails twice, while this caller waits.
  std::string other_token = "other-1";
  (void)fleet.leases.enter("k", other_token, 60'000ms);
  int failures = 0;
  fleet.leases.meanwhile = [&] {
    (void)fleet.leases.release("k", other_token, 1000ms);
    other_token = "other-" + std::to_string(2 + failures++);
    (void)fleet.leases.enter("k", other_token, 60'000ms);
  };
  EXPECT_EQ(fleet[1].load("k", a_while, [] { return "mine"; }), "mine");
  EXPECT_EQ(failures, 2);
  EXPECT_EQ(fleet[1].stats().alone, 1U);
  EXPECT_EQ(fleet.leases.leader("k"), other_token);
}

#if defined(__unix__) && !defined(_LIBCPP_VERSION)  // libc++ ends the program at a forced unwinding
TEST(FleetFailure, OfALoaderWhoseThreadExitsGivesTheLeaseBack) {
  processes fleet(1);
  support::threads leader(1, [&](std::size_t) {
    (void)fleet[0].load("k", a_while, []() -> std::string { pthread_exit(nullptr); });
  });
  leader.join();
  EXPECT_EQ(fleet.leases.leader("k"), "(none)");
  EXPECT_EQ(fleet.leases.operations(), (std::vector{operation::enter, operation::release}));
}
#endif

struct broken_codec {
  bool encodes = true;
  [[nodiscard]] std::string encode(const std::string& value) const {
    if (!encodes) throw std::range_error("cannot encode");
    return "<" + value + ">";
  }
  [[nodiscard]] static std::string decode(const std::string& bytes) {
    if (bytes == "no memory") throw std::bad_alloc();
    if (bytes.size() < 2 || bytes.front() != '<') throw std::range_error("cannot decode");
    return bytes.substr(1, bytes.size() - 2);
  }
};
using broken_fleet = singleflight::fleet<std::string, memory_leases, broken_codec>;

TEST(FleetFailure, OfTheEncodingReachesTheCallerAndGivesTheLeaseBack) {
  memory_leases leases;
  broken_fleet fleet(leases, {}, {.encodes = false});
  EXPECT_THROW((void)fleet.load("k", a_while, [] { return "v"; }), std::range_error);
  EXPECT_EQ(leases.leader("k"), "(none)");
  EXPECT_EQ(leases.value("k"), "(none)");
}

TEST(FleetFailure, OfTheDecodingReplacesTheBytes) {
  memory_leases leases;
  broken_fleet fleet(leases);
  leases.put("k", "written by somebody else");
  EXPECT_EQ(fleet.load("k", a_while, [] { return "v"; }), "v");
  EXPECT_EQ(leases.value("k"), "<v>");
  EXPECT_EQ(fleet.stats().led, 1U);
  EXPECT_EQ(fleet.stats().entries(), 1U);
}

TEST(FleetFailure, OfTheDecodingIsMendedOnceAndNotForever) {
  memory_leases leases;
  broken_fleet fleet(leases);
  leases.put("k", "bad");
  fail_always(leases, operation::invalidate, fault::refused);
  EXPECT_EQ(fleet.load("k", a_while, [] { return "v"; }), "v");
  EXPECT_EQ(fleet.stats().alone, 1U);
  EXPECT_EQ(leases.value("k"), "bad");
}

TEST(FleetFailure, OfTheDecodingOfWhatIsHandedOverRunsTheLoader) {
  memory_leases leases;
  broken_fleet fleet(leases);
  (void)leases.enter("k", "other", 60'000ms);
  leases.meanwhile = [&] { (void)leases.fill("k", "other", "bad", 0ms, 1000ms); };
  EXPECT_EQ(fleet.load("k", a_while, [] { return "v"; }), "v");
  EXPECT_EQ(fleet.stats().alone, 1U);
}

TEST(FleetFailure, ForWantOfMemoryIsNotTakenForBadBytes) {
  memory_leases leases;
  broken_fleet fleet(leases);
  leases.put("k", "no memory");
  EXPECT_THROW((void)fleet.load("k", a_while, not_called), std::bad_alloc);
  EXPECT_EQ(leases.value("k"), "no memory");
}

// Every operation of the leader, every way to fail: its caller gets the value of its own loader.
TEST(FleetFailure, OfTheStoreNeverReachesTheLeader) {
  for (const operation which : {operation::enter, operation::fill}) {
    for (const fault how : {fault::refused, fault::unreachable, fault::reply_lost, fault::throws}) {
      processes fleet(1);
      fail_always(fleet.leases, which, how);
      int loads = 0;
      EXPECT_EQ(fleet[0].load("k", a_while,
                              [&] {
                                ++loads;
                                return "v";
                              }),
                "v");
      EXPECT_EQ(loads, 1);
      const auto stats = fleet[0].stats();
      EXPECT_EQ(stats.entries(), 1U);
      if (which == operation::enter) {
        EXPECT_EQ(how == fault::refused ? stats.refused : stats.unreachable, 1U);
        EXPECT_EQ(stats.lost_fills, 0U);
      } else {
        EXPECT_EQ(stats.led, 1U);
        EXPECT_EQ(stats.lost_fills, 1U);
      }
    }
  }
}

TEST(FleetFailure, OfAFillThatWasToKeepNothingLosesNothing) {
  processes fleet(1);
  fail_always(fleet.leases, operation::fill, fault::refused);
  EXPECT_EQ(fleet[0].load("k", 0ms, [] { return "v"; }), "v");
  EXPECT_EQ(fleet[0].stats().lost_fills, 0U);
}

TEST(FleetFailure, OfTheStoreNeverReplacesTheLoadersException) {
  for (const operation which : {operation::enter, operation::release}) {
    for (const fault how : {fault::refused, fault::unreachable, fault::reply_lost, fault::throws}) {
      processes fleet(1);
      fail_always(fleet.leases, which, how);
      EXPECT_THROW(
          (void)fleet[0].load("k", a_while, []() -> std::string { throw loader_failed("x"); }),
          loader_failed);
    }
  }
}

TEST(FleetFailure, OfTheStoreNeverReachesAFollower) {
  for (const fault how : {fault::refused, fault::unreachable, fault::reply_lost, fault::throws}) {
    processes fleet(2);
    held_load load(fleet.leases, fleet[0], "k");
    fail_always(fleet.leases, operation::wait, how);
    EXPECT_EQ(fleet[1].load("k", a_while, [] { return "mine"; }), "mine");
    EXPECT_EQ(fleet[1].stats().unreachable, 1U);
    EXPECT_EQ(fleet[1].stats().entries(), 1U);
    // One connection that breaks is no reason to load: the next entry says how things are.
    fail_once(fleet.leases, operation::wait, how);
    bool ended = false;
    fleet.leases.meanwhile = [&] {
      if (!std::exchange(ended, true)) load.end("v");
    };
    EXPECT_EQ(fleet[1].load("k", a_while, not_called), "v");
    EXPECT_EQ(fleet[1].stats().followed, 1U);
  }
}

TEST(FleetFailure, OfAnInvalidationIsSaid) {
  processes fleet(1);
  for (const fault how : {fault::refused, fault::unreachable, fault::throws}) {
    fail_always(fleet.leases, operation::invalidate, how);
    EXPECT_FALSE(fleet[0].invalidate("k"));
  }
}

// The request arrived and its reply did not: the caller holds a lease that it does not know of. It
// fills it all the same, so nobody waits for it.
TEST(FleetFailure, OfTheReplyToAnEntryLeavesNoLease) {
  processes fleet(2);
  fail_once(fleet.leases, operation::enter, fault::reply_lost);
  EXPECT_EQ(fleet[0].load("k", a_while, [] { return "v"; }), "v");
  EXPECT_EQ(fleet[0].stats().unreachable, 1U);
  EXPECT_EQ(fleet.leases.leader("k"), "(none)");
  EXPECT_EQ(fleet.leases.value("k"), "v");

  fail_once(fleet.leases, operation::enter, fault::reply_lost);
  EXPECT_THROW((void)fleet[0].load("j", a_while, []() -> std::string { throw loader_failed("x"); }),
               loader_failed);
  EXPECT_EQ(fleet.leases.leader("j"), "(none)");
}

TEST(FleetFailure, OfTheStoreIsNotWaitedFor) {
  processes fleet(2);
  held_load load(fleet.leases, fleet[0], "k");
  fail_always(fleet.leases, operation::enter, fault::refused);
  const auto begin = fleet.leases.now();
  EXPECT_EQ(fleet[1].load("k", a_while, [] { return "mine"; }), "mine");
  EXPECT_EQ(fleet.leases.now(), begin);
  EXPECT_EQ(fleet[1].stats().refused, 1U);
}

TEST(FleetFailure, OfTheLeaseLeavesTheResultToItsCaller) {
  struct way {
    const char* what;
    void (*lose)(memory_leases&);
  };
  for (const way& lost : {way{"evicted", [](memory_leases& l) { l.evict_lease("k"); }},
                          way{"flushed", [](memory_leases& l) { l.flush(); }},
                          way{"expired", [](memory_leases& l) { l.advance(2000ms); }}}) {
    SCOPED_TRACE(lost.what);
    processes fleet(1);
    held_load load(fleet.leases, fleet[0], "k");
    lost.lose(fleet.leases);
    load.end("v");
    EXPECT_EQ(load.value, "v");
    EXPECT_EQ(fleet.leases.value("k"), "(none)");
    EXPECT_EQ(fleet[0].stats().lost_fills, 1U);
  }
}

TEST(FleetFailure, OfALateLeaderLeavesTheNewLeaseAlone) {
  processes fleet(2);
  std::atomic<bool> fail_now = false;
  support::threads late(1, [&](std::size_t) {
    EXPECT_THROW((void)fleet[0].load("k", a_while,
                                     [&]() -> std::string {
                                       support::await([&] { return fail_now.load(); }, "the test");
                                       throw loader_failed("x");
                                     }),
                 loader_failed);
  });
  support::await([&] { return fleet.leases.leader("k") != "(none)"; }, "the leader");
  fleet.leases.advance(2000ms);
  held_load next(fleet.leases, fleet[1], "k");
  fail_now = true;
  late.join();
  EXPECT_EQ(fleet.leases.leader("k"), next.token);
}

// A load that takes longer than its lease costs one more, not one for each process.
TEST(FleetFailure, OfALeaseThatIsTooShortCostsOneLoadMore) {
  constexpr std::size_t many = 6;
  processes fleet(many, {.lease = 100ms, .max_wait = 60'000ms});
  std::atomic<int> loads = 0;
  std::atomic<bool> end_it = false;
  support::threads all(many, [&](std::size_t i) {
    (void)fleet[i].load("k", a_while, [&] {
      ++loads;
      support::await([&] { return end_it.load(); }, "the test");
      return "v";
    });
  });
  support::await([&] { return fleet.leases.waiting() == many - 1; }, "the first lease");
  fleet.leases.advance(100ms);
  support::await([&] { return loads == 2 && fleet.leases.waiting() == many - 2; }, "the second");
  end_it = true;
  all.join();
  EXPECT_EQ(loads, 2);
  EXPECT_EQ(fleet.leases.value("k"), "v");
}

// Whatever leaders elsewhere do, a caller waits no longer than `max_wait`. Time passes only while it
// waits, and in its loader not at all.
TEST(FleetFailure, OfOthersMakesNobodyWaitLongerThanAllowed) {
  constexpr unsigned seed = 20130429;
  std::mt19937 random(seed);
  for (int run = 0; run < 2000; ++run) {
    SCOPED_TRACE("run " + std::to_string(run));
    const std::chrono::milliseconds lease(1 + random() % 300);
    const std::chrono::milliseconds max_wait(random() % 500);
    processes fleet(
        1, {.lease = lease, .max_wait = max_wait, .attempts = 1 + random() % 5, .jitter = 0});
    memory_leases& leases = fleet.leases;
    std::string token;  // of whoever leads
    const auto lead = [&] {
      token = std::to_string(random());
      (void)leases.enter("k", token, lease);
    };
    lead();
    leases.meanwhile = [&] {
      switch (random() % 8) {
        case 0:
          (void)leases.fill("k", token, "v", a_while * (random() % 2), 1000ms);
          break;
        case 1:
          (void)leases.release("k", token, 1000ms);
          break;
        case 2:
          leases.evict_lease("k");
          break;
        case 3:
          (void)leases.invalidate("k");
          break;
        case 4:
          leases.flush();
          break;
        default:
          break;
      }
      lead();
    };
    leases.faults = [&](operation what, std::string_view) {
      if (what != operation::wait || random() % 8 != 0) return fault::none;
      return random() % 2 == 0 ? fault::refused : fault::unreachable;
    };
    const auto begin = leases.now();
    const std::string value = fleet[0].load("k", a_while, [] { return "mine"; });
    EXPECT_TRUE(value == "mine" || value == "v") << value;
    EXPECT_LE(leases.now() - begin, max_wait);
    if (testing::Test::HasFailure()) return;
  }
}

// With the store down, the group in front is what remains: one load in each process, whatever the
// crowd.
TEST(FleetFailure, OfTheWholeStoreLeavesOneLoadForEachProcess) {
  for (const fault how : {fault::refused, fault::unreachable}) {
    processes fleet(3);
    fleet.leases.faults = [how](operation, std::string_view) { return how; };
    singleflight::group<std::string, std::string> groups[3];
    std::atomic<int> loads = 0;
    std::atomic<bool> end_it = false;
    support::threads crowd(12, [&](std::size_t i) {
      auto& process = fleet[i % 3];
      const std::string value = groups[i % 3].do_call("k", [&] {
        return process.load("k", a_while, [&] {
          ++loads;
          support::await([&] { return end_it.load(); }, "the test");
          return "v";
        });
      });
      EXPECT_EQ(value, "v");
    });
    for (const auto& group : groups) support::await_followers(group, 3);
    support::await([&] { return loads == 3; }, "a load in each process");
    end_it = true;
    crowd.join();
    EXPECT_EQ(loads, 3);
  }
}

// Callers that time out do not stop the load: it ends, fills, and the next caller hits.
TEST(FleetFailure, OfCallersToWaitDoesNotStopTheLoad) {
  processes fleet(2);
  singleflight::group<std::string, std::string> flights;
  std::atomic<bool> end_it = false;
  support::threads leader(1, [&](std::size_t) {
    (void)flights.do_call("k", [&] {
      return fleet[0].load("k", a_while, [&] {
        support::await([&] { return end_it.load(); }, "the test");
        return "v";
      });
    });
  });
  support::await([&] { return flights.stats().in_flight == 1; }, "the load");
  EXPECT_THROW(
      (void)flights.do_call("k", {.deadline = std::chrono::steady_clock::now() + 1ms}, not_called),
      singleflight::call_error);
  end_it = true;
  leader.join();
  EXPECT_EQ(fleet[1].load("k", a_while, not_called), "v");
}

}  // namespace
