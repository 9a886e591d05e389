// SPDX-License-Identifier: MIT
// Several processes and a real Redis: one load, also when a process dies,
// stops, is late or throws.

#include <gtest/gtest.h>
#include <signal.h>

#include <chrono>
#include <string>
#include <vector>

#include "../support.hpp"
#include "redis_server.hpp"
#include "workers.hpp"

namespace {

using fleet_tests::redis_server;
using fleet_tests::worker;
using fleet_tests::workers;

class FleetProcesses : public testing::Test {
 protected:
  redis_server redis;

  /// The keys that are there, but values.
  std::vector<std::string> leases() {
    std::vector<std::string> found;
    for (const auto& key : redis.reply({"KEYS", "sf1:*"}).list) found.push_back(key.text);
    return found;
  }
};

TEST_F(FleetProcesses, LoadAColdKeyOnce) {
  workers fleet(5, redis.port());
  for (const long lifetime : {60'000L, 0L}) {
    const std::string key = "key" + std::to_string(lifetime);
    const std::string leader = fleet[0].load(key, lifetime, "hold");
    fleet[0].await_loading(leader);
    std::vector<std::string> ids;
    for (std::size_t i = 1; i < fleet.size(); ++i) {
      ids.push_back(fleet[i].load(key, lifetime, "value"));
      ids.push_back(fleet[i].load(key, lifetime, "value"));  // it joins in its own process
    }
    fleet.await_waiting(4);
    fleet[0].end(leader, "the-value");
    EXPECT_EQ(fleet[0].result(leader), "the-value");
    for (std::size_t i = 0; i < ids.size(); ++i) {
      worker& its = fleet[1 + i / 2];
      EXPECT_EQ(its.result(ids[i]), "the-value");
      EXPECT_FALSE(its.has_loaded(ids[i]));
    }
    EXPECT_EQ(redis.text({"GET", key}), lifetime > 0 ? "the-value" : "(nil)");
  }
  for (std::size_t i = 1; i < fleet.size(); ++i) {
    EXPECT_EQ(fleet[i].stats()["followed"], 1);
    EXPECT_EQ(fleet[i].stats()["handed_over"], 1);
  }
}

// The table of the design: what a miss costs, the GET before it not counted.
TEST_F(FleetProcesses, CostAMissAsManyCommandsAsPlanned) {
  workers fleet(2, redis.port());
  EXPECT_EQ(fleet[0].result(fleet[0].load("warm-up", 0, "value")).substr(0, 5), "value");
  (void)redis.reply({"CONFIG", "RESETSTAT"});
  (void)fleet[0].result(fleet[0].load("k", 60'000, "value"));
  auto calls = redis.calls();
  EXPECT_EQ(calls["evalsha"], 2);  // enter, fill
  EXPECT_EQ(calls["eval"] + calls["xread"] + calls["ping"], 0);

  const std::string leader = fleet[0].load("j", 60'000, "hold");
  fleet[0].await_loading(leader);
  (void)redis.reply({"CONFIG", "RESETSTAT"});
  const std::string other = fleet[1].load("j", 60'000, "value");
  fleet.await_waiting(1);
  fleet[0].end(leader, "v");
  EXPECT_EQ(fleet[1].result(other), "v");
  (void)fleet[0].result(leader);
  calls = redis.calls();
  // enter and enter of the one; for each slice of the wait that was over one more; fill of the
  // other
  EXPECT_EQ(calls["evalsha"], calls["xread"] + 2);
}

TEST_F(FleetProcesses, TakeOverFromALeaderThatWasKilled) {
  workers fleet(5, redis.port(), {{"lease", 300}});
  const std::string dead = fleet[0].load("k", 60'000, "hold");
  fleet[0].await_loading(dead);
  std::vector<std::string> ids;
  for (std::size_t i = 1; i < fleet.size(); ++i) ids.push_back(fleet[i].load("k", 60'000, "value"));
  fleet.await_waiting(4);
  fleet[0].kill();
  int loads = 0;
  for (std::size_t i = 1; i < fleet.size(); ++i) {
    EXPECT_EQ(fleet[i].result(ids[i - 1]).substr(0, 9), "value-of-");
    if (fleet[i].has_loaded(ids[i - 1])) ++loads;
  }
  EXPECT_EQ(loads, 1);
}

// Who waits owns nothing.
TEST_F(FleetProcesses, AreNotHeldUpByOneThatWasKilledWhileItWaited) {
  workers fleet(3, redis.port());
  const std::string leader = fleet[0].load("k", 60'000, "hold");
  fleet[0].await_loading(leader);
  (void)fleet[1].load("k", 60'000, "value");
  const std::string other = fleet[2].load("k", 60'000, "value");
  fleet.await_waiting(2);
  fleet[1].kill();
  fleet[0].end(leader, "v");
  EXPECT_EQ(fleet[2].result(other), "v");
  EXPECT_EQ(redis.text({"GET", "k"}), "v");
}

// As while it is rolled out: a process without a fleet makes its own load, and its value is there for
// all. Neither keeps the other waiting, and nothing is left.
TEST_F(FleetProcesses, ShareTheCacheWithProcessesThatHaveNoFleet) {
  workers fleet(2, redis.port());
  worker old(redis.port(), {{"fleet", 0}});
  const std::string leader = fleet[0].load("k", 60'000, "hold");
  fleet[0].await_loading(leader);
  const std::string waits = fleet[1].load("k", 60'000, "value");
  fleet.await_waiting(1);
  const std::string own = old.load("k", 60'000, "value");
  EXPECT_EQ(old.result(own), "value-of-" + own);
  EXPECT_EQ(fleet[1].result(waits), "value-of-" + own);  // when its slice is over
  fleet[0].end(leader, "later");
  EXPECT_EQ(fleet[0].result(leader), "later");
  EXPECT_EQ(redis.text({"GET", "k"}), "value-of-" + own);
  EXPECT_EQ(redis.text({"GET", "sf1:{k}"}), "(nil)");
  EXPECT_EQ(old.result(old.load("j", 60'000, "value")).substr(0, 9), "value-of-");
  EXPECT_EQ(fleet[0].result(fleet[0].load("j", 60'000, "value")), redis.text({"GET", "j"}));
  EXPECT_EQ(fleet[0].stats()["hits"], 1);
}

TEST_F(FleetProcesses, RefuseTheResultOfALeaderThatWasStoppedForTooLong) {
  workers fleet(3, redis.port(), {{"lease", 200}});
  const std::string stopped = fleet[0].load("k", 60'000, "hold");
  fleet[0].await_loading(stopped);
  fleet[0].send(SIGSTOP);
  const std::string next = fleet[1].load("k", 60'000, "value");
  EXPECT_EQ(fleet[1].result(next), "value-of-" + next);
  EXPECT_EQ(fleet[2].ask("invalidate", "k"), "yes");
  const std::string third = fleet[2].load("k", 60'000, "hold");
  fleet[2].await_loading(third);
  fleet[0].send(SIGCONT);
  fleet[0].end(stopped, "stale");
  EXPECT_EQ(fleet[0].result(stopped), "stale");  // its own caller's loader
  EXPECT_EQ(fleet[0].stats()["lost_fills"], 1);
  EXPECT_EQ(redis.text({"GET", "k"}), "(nil)");
  fleet[2].end(third, "fresh");
  EXPECT_EQ(fleet[2].result(third), "fresh");
}

TEST_F(FleetProcesses, StoreNothingThatWasBegunBeforeAnInvalidation) {
  workers fleet(3, redis.port());
  const std::string old = fleet[0].load("k", 60'000, "hold");
  fleet[0].await_loading(old);
  const std::string joined = fleet[1].load("k", 60'000, "value");
  fleet.await_waiting(1);
  EXPECT_EQ(fleet[2].ask("invalidate", "k"), "yes");
  fleet[0].end(old, "old");
  EXPECT_EQ(fleet[0].result(old), "old");
  EXPECT_EQ(fleet[1].result(joined), "old");
  EXPECT_EQ(redis.text({"GET", "k"}), "(nil)");
  const std::string fresh = fleet[2].load("k", 60'000, "value");
  EXPECT_EQ(fleet[2].result(fresh), "value-of-" + fresh);
}

TEST_F(FleetProcesses, GoOnAtOnceWhenALeaderFails) {
  workers fleet(2, redis.port());
  const std::string failing = fleet[0].load("k", 60'000, "hold");
  fleet[0].await_loading(failing);
  const std::string other = fleet[1].load("k", 60'000, "value");
  fleet.await_waiting(1);
  fleet[0].tell("fail " + failing);
  EXPECT_EQ(fleet[0].result(failing), "the loader failed");
  EXPECT_EQ(fleet[1].result(other), "value-of-" + other);
  EXPECT_EQ(fleet[1].stats()["taken_over"], 1);
}

TEST_F(FleetProcesses, LeaveNothingOfAFailedLoadButItsEnd) {
  workers fleet(1, redis.port());
  EXPECT_EQ(fleet[0].result(fleet[0].load("k", 60'000, "throw")), "the loader failed");
  EXPECT_EQ(redis.text({"GET", "k"}), "(nil)");
  support::await([&] { return leases().empty(); }, "the result for those who wait to expire");
}

TEST_F(FleetProcesses, LoseTheLeaseAndStoreNothing) {
  workers fleet(1, redis.port());
  const std::string pexpire = fleet[0].load("k", 60'000, "hold");
  fleet[0].await_loading(pexpire);
  EXPECT_EQ(redis.text({"PEXPIRE", "sf1:{k}", "0"}), "1");
  fleet[0].end(pexpire, "v");
  EXPECT_EQ(fleet[0].result(pexpire), "v");
  EXPECT_EQ(redis.text({"GET", "k"}), "(nil)");
  const std::string flushed = fleet[0].load("j", 60'000, "hold");
  fleet[0].await_loading(flushed);
  (void)redis.reply({"FLUSHALL"});
  fleet[0].end(flushed, "v");
  EXPECT_EQ(fleet[0].result(flushed), "v");
  EXPECT_EQ(redis.text({"GET", "j"}), "(nil)");
  EXPECT_EQ(fleet[0].stats()["lost_fills"], 2);
}

TEST_F(FleetProcesses, GetOutOfACircle) {
  workers fleet(2, redis.port(), {{"lease", 300}, {"max_wait", 300}});
  const std::string one = fleet[0].load("x", 0, "y");
  const std::string other = fleet[1].load("y", 0, "x");
  fleet[0].await_loading(one);
  fleet[1].await_loading(other);
  fleet[0].end(one, "go-on");
  fleet[1].end(other, "go-on");
  EXPECT_EQ(fleet[0].result(one).substr(0, 5), "with-");
  EXPECT_EQ(fleet[1].result(other).substr(0, 5), "with-");
}

TEST_F(FleetProcesses, KeepTheCacheUsableWhileMoreWaitThanCan) {
  workers fleet(2, redis.port(), {{"connections", 4}, {"wait_connections", 1}});
  std::vector<std::string> leaders;
  std::vector<std::string> others;
  for (int i = 0; i < 40; ++i) {
    leaders.push_back(fleet[0].load("cold" + std::to_string(i), 60'000, "hold"));
  }
  for (const std::string& id : leaders) fleet[0].await_loading(id);
  for (int i = 0; i < 40; ++i) {
    others.push_back(fleet[1].load("cold" + std::to_string(i), 60'000, "value"));
  }
  fleet.await_waiting(40);
  (void)redis.reply({"SET", "warm", "v"});
  for (int i = 0; i < 100; ++i) EXPECT_EQ(fleet[1].ask("find", "warm"), "v");
  for (const std::string& id : leaders) fleet[0].end(id, "v-" + id);
  for (std::size_t i = 0; i < others.size(); ++i) {
    EXPECT_EQ(fleet[1].result(others[i]), "v-" + leaders[i]);
    EXPECT_FALSE(fleet[1].has_loaded(others[i]));
  }
}

TEST_F(FleetProcesses, ForgetScriptsAndGoOn) {
  workers fleet(2, redis.port());
  for (int i = 0; i < 20; ++i) {
    (void)redis.reply({"SCRIPT", "FLUSH"});
    const std::string key = "k" + std::to_string(i);
    const std::string id = fleet[i % 2].load(key, 60'000, "hold");
    fleet[i % 2].await_loading(id);
    (void)redis.reply({"SCRIPT", "FLUSH"});
    fleet[i % 2].end(id, "v");
    EXPECT_EQ(fleet[i % 2].result(id), "v");
    EXPECT_EQ(redis.text({"GET", key}), "v");
  }
  EXPECT_EQ(fleet[0].ask("refusals"), "");
}

TEST_F(FleetProcesses, NameTheirScriptsAsRedisDoes) {
  using leases = singleflight::redis_leases<singleflight::hiredis_client>;
  for (const auto& script : {leases::enter_script, leases::fill_script, leases::release_script}) {
    EXPECT_EQ(redis.text({"SCRIPT", "LOAD", script.text}), script.sha1);
  }
}

TEST_F(FleetProcesses, NeverLoadAKeyTwiceAtOnceWhileAllIsWell) {
  workers fleet(4, redis.port());
  const auto came_of_it = fleet.storm("8 20 4000 2000 30 0");
  EXPECT_GT(came_of_it.loads, 20);  // values expire, and are loaded again
  EXPECT_EQ(came_of_it.overlaps, 0);
  EXPECT_EQ(came_of_it.wrong, 0);
  EXPECT_EQ(came_of_it.failed, 0);
  long entries = 0;
  for (std::size_t i = 0; i < fleet.size(); ++i) {
    auto stats = fleet[i].stats();
    entries += stats["entries"];
    EXPECT_EQ(stats["alone"] + stats["refused"] + stats["unreachable"] + stats["lost_fills"], 0);
  }
  EXPECT_EQ(entries, came_of_it.entries);
}

TEST_F(FleetProcesses, NeverLoadAKeyTwiceAtOnceWhileLoadersFail) {
  workers fleet(3, redis.port());
  const auto came_of_it = fleet.storm("6 10 600 2000 30 30");
  EXPECT_EQ(came_of_it.overlaps, 0);
  EXPECT_EQ(came_of_it.wrong, 0);
  EXPECT_EQ(came_of_it.failed, 0);
}

// Results that are not kept are handed over, and nobody loads while another does.
TEST_F(FleetProcesses, NeverLoadAKeyTwiceAtOnceWhileNothingIsKept) {
  workers fleet(3, redis.port());
  const auto came_of_it = fleet.storm("6 10 600 2000 0 0");
  EXPECT_EQ(came_of_it.overlaps, 0);
  EXPECT_EQ(came_of_it.wrong, 0);
  EXPECT_EQ(came_of_it.failed, 0);
}

}  // namespace
