// SPDX-License-Identifier: MIT
// Several processes, a real Redis, and everything that can fail between them: no caller fails, no process loads a key twice at once, no value is of another key,
// and when all is well again there is one load.
//
// With SINGLEFLIGHT_FLEET_FULL in the environment, as tests/fleet/run --full sets it, it tries all
// combinations; else a few.

#include <gtest/gtest.h>
#include <signal.h>

#include <atomic>
#include <chrono>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <functional>
#include <future>
#include <memory>
#include <singleflight/redis_leases.hpp>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

#include "../support.hpp"
#include "fault_proxy.hpp"
#include "redis_server.hpp"
#include "workers.hpp"

namespace {

using namespace std::chrono_literals;
using fleet_tests::fault_proxy;
using fleet_tests::redis_server;
using fleet_tests::worker;
using fleet_tests::workers;
using fault = fault_proxy::fault;
using leases = singleflight::redis_leases<singleflight::hiredis_client>;

bool full() { return std::getenv("SINGLEFLIGHT_FLEET_FULL") != nullptr; }

const worker::options impatient{
    {"timeout", 100}, {"longest_pause", 20}, {"lease", 400}, {"max_wait", 800}};

struct named_fault {
  const char* name;
  fault what;
};
const std::vector<named_fault> faults{
    {"refuse", fault::refuse},   {"reset", fault::reset},
    {"hang", fault::hang},       {"lose reply", fault::lose_reply},
    {"cut", fault::cut},         {"keep reply", fault::keep_reply},
    {"drip", fault::drip},       {"delay", fault::delay},
    {"garbage", fault::garbage}, {"double reply", fault::double_reply}};
struct named_operation {
  const char* name;
  std::string text;
};
const std::vector<named_operation> operations{
    {"enter", leases::enter_script.sha1}, {"fill", leases::fill_script.sha1}, {"wait", "XREAD"}};

/// Both processes are as before a fault.
void await_well(worker& process) {
  support::await([&] { return process.ask("find", "nothing") == "(none)"; },
                 "the server to be found again");
}

/// Results are stored again.
void await_stored(worker& process, const redis_server& redis) {
  static int number = 0;
  support::await(
      [&] {
        const std::string key = "probe" + std::to_string(++number);
        const std::string value = process.result(process.load(key, 60'000, "value"));
        return redis.text({"GET", key}) == value;
      },
      "loads to be stored again");
}

/// One process leads a load, another one comes. Whatever happens meanwhile, both are answered: the
/// first with what its loader returned, the other with that, or with what its own did.
void expect_both_answered(
    worker& leader, worker& other, const std::string& key,
    const std::function<void()>& while_one_leads = [] {},
    const std::function<void()>& while_another_waits = [] {}) {
  const std::string first = leader.load(key, 60'000, "hold");
  leader.await_loading(first);
  while_one_leads();
  const std::string second = other.load(key, 60'000, "value");
  support::await([&] { return other.stats()["waiting"] == 1 || other.has_loaded(second); },
                 "the other to wait, or to load");
  while_another_waits();
  leader.end(first, "v");
  EXPECT_EQ(leader.result(first), "v");
  const std::string got = other.result(second);
  EXPECT_TRUE(got == "v" || got == "value-of-" + second) << got;
}

// One process leads, the other waits; one operation of one of them meets a fault, once or always.
TEST(FleetFaults, OfTheNetworkNeverReachACaller) {
  redis_server redis;
  fault_proxy leaders(redis.port());
  fault_proxy others(redis.port());
  worker leader(leaders.port(), impatient);
  worker other(others.port(), impatient);
  int number = 0;
  for (const auto& operation : operations) {
    for (const auto& spoiled : faults) {
      for (const bool of_leader : {true, false}) {
        for (const int times : {1, 1'000'000}) {
          if (of_leader == (operation.text == "XREAD")) continue;  // leaders do not wait
          if (!of_leader && operation.text == leases::fill_script.sha1) continue;
          if (!full() && ++number % 7 != 0) continue;
          SCOPED_TRACE(std::string(operation.name) + ", " + spoiled.name +
                       (of_leader ? ", leader, " : ", other, ") + std::to_string(times));
          const std::string key = "key" + std::to_string(number++);
          fault_proxy& network = of_leader ? leaders : others;
          // A new connection is refused only when an old one is gone.
          if (spoiled.what == fault::refuse) network.forget_connections();
          network.set(spoiled.what, spoiled.what == fault::refuse ? "" : operation.text, times,
                      300ms);
          expect_both_answered(leader, other, key);
          network.clear();
          await_well(leader);
          await_well(other);
          await_stored(other, redis);
        }
      }
    }
  }
}

// The server itself goes away at each step of a load.
TEST(FleetFaults, OfTheServerNeverReachACaller) {
  redis_server redis;
  workers fleet(2, redis.port(), impatient);
  struct way {
    const char* name;
    void (*break_it)(redis_server&);
    void (*mend_it)(redis_server&);
  };
  const std::vector<way> ways{
      {"killed", [](redis_server& r) { r.kill(); }, [](redis_server& r) { r.start(); }},
      {"stopped", [](redis_server& r) { r.stop(); }, [](redis_server& r) { r.go_on(); }},
      {"flushed", [](redis_server& r) { (void)r.reply({"FLUSHALL"}); }, [](redis_server&) {}},
      {"its clients killed",
       [](redis_server& r) {
         (void)r.reply({"CLIENT", "KILL", "TYPE", "normal"});
       },
       [](redis_server&) {}},
      {"paused",
       [](redis_server& r) {
         (void)r.reply({"CLIENT", "PAUSE", "300", "ALL"});
       },
       [](redis_server&) {}},
      {"demoted",
       [](redis_server& r) {
         (void)r.reply({"REPLICAOF", "127.0.0.1", "1"});
       },
       [](redis_server& r) {
         (void)r.reply({"REPLICAOF", "NO", "ONE"});
       }},
      {"its scripts forgotten",
       [](redis_server& r) {
         (void)r.reply({"SCRIPT", "FLUSH"});
       },
       [](redis_server&) {}},
      {"full",
       [](redis_server& r) {
         (void)r.reply({"CONFIG", "SET", "maxmemory", "1"});
       },
       [](redis_server& r) {
         (void)r.reply({"CONFIG", "SET", "maxmemory", "0"});
       }}};
  int number = 0;
  for (const way& how : ways) {
    for (const int step : {0, 1, 2}) {  // before the entry; while one leads; while another waits
      SCOPED_TRACE(std::string(how.name) + ", step " + std::to_string(step));
      const std::string key = "key" + std::to_string(++number);
      const auto break_at = [&](int when) {
        if (step == when) how.break_it(redis);
      };
      break_at(0);
      expect_both_answered(
          fleet[0], fleet[1], key, [&] { break_at(1); }, [&] { break_at(2); });
      how.mend_it(redis);
      await_well(fleet[0]);
      await_well(fleet[1]);
      await_stored(fleet[1], redis);
    }
  }
}

/// A crowd in three processes while something breaks and mends. Then, with all well, one more.
void weather_a_storm(const std::function<void(redis_server&, fault_proxy&, unsigned)>& trouble,
                     const std::function<void(redis_server&, fault_proxy&)>& mend) {
  redis_server redis;
  fault_proxy network(redis.port());
  workers fleet(3, network.port(), impatient);
  const std::string storm =
      fleet.begin_storm(full() ? "8 20 6000 2000 30 5" : "8 20 1500 2000 30 5");
  std::atomic<bool> over = false;
  workers::outcome came_of_it;
  support::threads end(1, [&](std::size_t) {
    came_of_it = fleet.end_storm(storm);
    over = true;
  });
  for (unsigned i = 0; !over; ++i) trouble(redis, network, i);
  end.join();
  EXPECT_EQ(came_of_it.overlaps_in_process, 0);
  EXPECT_EQ(came_of_it.wrong, 0);
  EXPECT_EQ(came_of_it.failed, 0);
  testing::Test::RecordProperty("loads", static_cast<int>(came_of_it.loads));
  testing::Test::RecordProperty("overlaps", static_cast<int>(came_of_it.overlaps));
  testing::Test::RecordProperty("slowest_ms", static_cast<int>(came_of_it.slowest));
  mend(redis, network);
  for (std::size_t i = 0; i < fleet.size(); ++i) {
    await_well(fleet[i]);
    auto stats = fleet[i].stats();
    EXPECT_EQ(stats["hits"] + stats["led"] + stats["followed"] + stats["handed_over"] +
                  stats["taken_over"] + stats["alone"] + stats["refused"] + stats["unreachable"],
              stats["entries"]);
    EXPECT_EQ(stats["waiting"], 0);
  }
}

TEST(FleetFaults, OfTheNetworkAreWeatheredByACrowd) {
  weather_a_storm(
      [](redis_server&, fault_proxy& network, unsigned i) {
        const auto& spoiled = faults[i % faults.size()];
        const auto& operation = operations[i / faults.size() % operations.size()];
        network.set(spoiled.what, spoiled.what == fault::refuse ? "" : operation.text, 3, 150ms);
        if (i % 5 == 0) network.forget_connections();
        std::this_thread::sleep_for(20ms);
      },
      [](redis_server&, fault_proxy& network) { network.clear(); });
}

TEST(FleetFaults, OfTheServerAreWeatheredByACrowd) {
  weather_a_storm(
      [](redis_server& redis, fault_proxy&, unsigned i) {
        switch (i % 6) {
          case 0:
            redis.kill();
            redis.start();
            break;
          case 1:
            redis.stop();
            std::this_thread::sleep_for(150ms);
            redis.go_on();
            break;
          case 2:
            (void)redis.reply({"FLUSHALL"});
            break;
          case 3:
            (void)redis.reply({"REPLICAOF", "127.0.0.1", "1"});
            std::this_thread::sleep_for(30ms);
            (void)redis.reply({"REPLICAOF", "NO", "ONE"});
            break;
          case 4:
            (void)redis.reply({"CLIENT", "KILL", "TYPE", "normal"});
            break;
          default:
            (void)redis.reply({"SCRIPT", "FLUSH"});
        }
        std::this_thread::sleep_for(20ms);
      },
      [](redis_server& redis, fault_proxy&) {
        (void)redis.reply({"REPLICAOF", "NO", "ONE"});
      });
}

// The leader's result does not reach the new master's lease, which is none: it is handed to nobody,
// and the others go on with the new master.
TEST(FleetFaults, AFailoverCostsOneLoadMore) {
  redis_server master({"--repl-diskless-sync-delay", "0"});
  redis_server replica;
  (void)replica.reply({"REPLICAOF", "127.0.0.1", std::to_string(master.port())});
  support::await(
      [&] {
        return replica.text({"INFO", "replication"}).find("link_status:up") != std::string::npos;
      },
      "the replica");
  fault_proxy name(master.port());
  workers fleet(3, name.port(),
                {{"timeout", 1000}, {"longest_pause", 20}, {"lease", 400}, {"max_wait", 60'000}});
  const std::string old = fleet[0].load("k", 60'000, "hold");
  fleet[0].await_loading(old);
  const std::string waits = fleet[1].load("k", 60'000, "value");
  fleet.await_waiting(1);
  master.kill();
  (void)replica.reply({"REPLICAOF", "NO", "ONE"});
  name.lead_to(replica.port());
  const std::string got = fleet[1].result(waits);
  EXPECT_EQ(got, "value-of-" + waits);  // alone, or as the new leader
  fleet[0].end(old, "v");
  EXPECT_EQ(fleet[0].result(old), "v");
  for (std::size_t i = 0; i < fleet.size(); ++i) await_well(fleet[i]);
  const std::string after = fleet[2].load("j", 60'000, "value");
  EXPECT_EQ(fleet[2].result(after), "value-of-" + after);
  EXPECT_EQ(replica.text({"GET", "j"}), "value-of-" + after);
}

/// Watches a master, and promotes its replica half a second after it has gone.
class sentinel {
 public:
  explicit sentinel(int master) : port_(fleet_tests::free_port()) {
    const std::string file = directory_.path() + "/sentinel.conf";
    std::ofstream(file) << "port " << port_ << "\nbind 127.0.0.1\ndir " << directory_.path()
                        << "\nlogfile sentinel.log\nsentinel monitor m 127.0.0.1 " << master
                        << " 1\nsentinel down-after-milliseconds m 500\n"
                        << "sentinel failover-timeout m 3000\n";
    process_ = std::make_unique<fleet_tests::child>(
        fleet_tests::redis_program(), std::vector<std::string>{"redis-server", file, "--sentinel"});
    support::await(
        [&] {
          return fleet_tests::ask(port_, {"SENTINEL", "REPLICAS", "m"}).list.size() == 1;
        },
        "the sentinel to know the replica");
  }

  /// Waits until that server is the master.
  void await_master(int port) const {
    support::await(
        [&] {
          const auto address =
              fleet_tests::ask(port_, {"SENTINEL", "GET-MASTER-ADDR-BY-NAME", "m"});
          return address.list.size() == 2 && address.list[1].text == std::to_string(port);
        },
        "the sentinel to promote the replica");
  }

 private:
  const int port_;
  const fleet_tests::temporary_directory directory_;
  std::unique_ptr<fleet_tests::child> process_;  // the last member: it ends before its directory
};

// The same, by a sentinel, while a crowd asks for others: the name leads to the new master when
// the sentinel says so. Meanwhile each process loads for itself.
TEST(FleetFaults, APromotionByASentinelReachesNoCaller) {
  redis_server master({"--repl-diskless-sync-delay", "0"});
  redis_server replica({"--replicaof", "127.0.0.1 " + std::to_string(master.port())});
  support::await(
      [&] {
        return replica.text({"INFO", "replication"}).find("link_status:up") != std::string::npos;
      },
      "the replica");
  const sentinel watches(master.port());
  fault_proxy name(master.port());
  workers fleet(3, name.port(), impatient);
  const std::string old = fleet[0].load("k", 60'000, "hold");
  fleet[0].await_loading(old);
  const std::string waits = fleet[1].load("k", 60'000, "value");
  support::await([&] { return fleet[1].stats()["waiting"] == 1 || fleet[1].has_loaded(waits); },
                 "the other to wait, or to load");
  const std::string storm = fleet.begin_storm("4 5 3000 1000 30 0");
  master.kill();
  EXPECT_EQ(fleet[1].result(waits), "value-of-" + waits);
  watches.await_master(replica.port());
  name.lead_to(replica.port());
  for (std::size_t i = 0; i < fleet.size(); ++i) await_well(fleet[i]);
  fleet[0].end(old, "v");
  EXPECT_EQ(fleet[0].result(old), "v");
  for (std::size_t i = 0; i < fleet.size(); ++i) await_stored(fleet[i], replica);
  const auto came_of_it = fleet.end_storm(storm);
  EXPECT_EQ(came_of_it.overlaps_in_process, 0);
  EXPECT_EQ(came_of_it.wrong, 0);
  EXPECT_EQ(came_of_it.failed, 0);
}

/// A network of its own with a Redis in it, whose link can be cut: then packets vanish without a word.
/// Only root can make one, and not in every container.
class far_network {
 public:
  far_network() {
    made_ = run("ip netns add " + name_) &&
            run("ip link add " + name_ + " type veth peer name eth0 netns " + name_) &&
            run("ip address add " + prefix_ + "1/30 dev " + name_) &&
            run("ip link set " + name_ + " up") &&
            run("ip -n " + name_ + " address add " + address() + "/30 dev eth0") && mend();
    if (!made_) return;
    // Debian's other name for the server says what it is to do.
    const std::string server = directory_.path() + "/redis-server";
    std::filesystem::create_symlink(fleet_tests::redis_program(), server);
    redis_ = std::make_unique<fleet_tests::child>(
        "/bin/sh", std::vector<std::string>{"sh", "-c",
                                            "exec ip netns exec " + name_ + " " + server +
                                                " --bind " + address() +
                                                " --protected-mode no --save '' --logfile "
                                                "redis.log --dir " +
                                                directory_.path()});
  }
  far_network(const far_network&) = delete;
  far_network& operator=(const far_network&) = delete;
  ~far_network() {
    redis_.reset();
    run("ip link delete " + name_);
    run("ip netns delete " + name_);
  }

  [[nodiscard]] bool made() const noexcept { return made_; }
  [[nodiscard]] std::string address() const { return prefix_ + "2"; }
  bool cut() const { return run("ip -n " + name_ + " link set eth0 down"); }
  bool mend() const { return run("ip -n " + name_ + " link set eth0 up"); }

 private:
  static bool run(const std::string& command) {
    return std::system(("PATH=$PATH:/sbin:/usr/sbin; " + command + " 2>/dev/null").c_str()) == 0;
  }

  const std::string name_ = "sf" + std::to_string(getpid());
  const std::string prefix_ = "198.18." + std::to_string(getpid() % 256) + ".";
  const fleet_tests::temporary_directory directory_;
  bool made_ = false;
  std::unique_ptr<fleet_tests::child> redis_;
};

// No reset and no refusal, only silence: one caller pays for it, once, and the server is found again.
TEST(FleetFaults, OfALinkThatIsDownReachNoCaller) {
  const far_network network;
  if (!network.made()) GTEST_SKIP() << "it needs root and the right to make a network namespace";
  singleflight::hiredis_client client(
      {.host = network.address(), .timeout = 100ms, .longest_pause = 20ms});
  leases store(client);
  singleflight::fleet<std::string, leases> fleet(store);
  support::await([&] { return client.up(); }, "Redis");
  EXPECT_EQ(fleet.load("k", 60s, [] { return "v"; }), "v");
  EXPECT_EQ(fleet.stats().led, 1U);
  ASSERT_TRUE(network.cut());
  for (int i = 0; i < 10; ++i) EXPECT_EQ(fleet.load("j", 60s, [] { return "mine"; }), "mine");
  EXPECT_EQ(fleet.stats().unreachable, 10U);
  EXPECT_FALSE(client.up());
  ASSERT_TRUE(network.mend());
  support::await([&] { return client.up(); }, "Redis to be found again");
  EXPECT_EQ(fleet.load("k", 60s, [] { return "new"; }), "v");
  EXPECT_EQ(fleet.load("j", 60s, [] { return "new"; }), "new");
}

// What Redis refuses: the caller gets its value at once, and the refusal is counted by its name.
TEST(FleetFaults, RefusalsOfRedisAreCountedByName) {
  struct way {
    std::string name;
    fleet_tests::options_of_redis options;
    std::function<void(redis_server&)> provoke;
  };
  const std::vector<way> ways{
      {"OOM",
       {},
       [](redis_server& r) {
         (void)r.reply({"CONFIG", "SET", "maxmemory", "1"});
       }},
      {"READONLY",
       {},
       [](redis_server& r) {
         (void)r.reply({"REPLICAOF", "127.0.0.1", "1"});
       }},
      {"MASTERDOWN",
       {"--replica-serve-stale-data", "no"},
       [](redis_server& r) {
         (void)r.reply({"REPLICAOF", "127.0.0.1", "1"});
       }},
      {"NOREPLICAS", {"--min-replicas-to-write", "1"}, [](redis_server&) {}},
      {"NOPERM",
       {},
       [](redis_server& r) {
         (void)r.reply({"ACL", "SETUSER", "default", "-evalsha"});
       }},
      {"WRONGTYPE",
       {},
       [](redis_server& r) {
         (void)r.reply({"LPUSH", "k", "x"});
       }},
      {"MISCONF", {"--save", "1", "1"}, [](redis_server& r) { r.lose_directory(); }},
      {"CLUSTERDOWN", {"--cluster-enabled", "yes"}, [](redis_server&) {}}};
  for (const way& refused : ways) {
    SCOPED_TRACE(refused.name);
    redis_server redis(refused.options);
    workers fleet(1, redis.port());
    await_well(fleet[0]);
    refused.provoke(redis);
    for (int i = 0; i < 3; ++i) {
      const std::string id = fleet[0].load("k", 60'000, "value");
      EXPECT_EQ(fleet[0].result(id), "value-of-" + id);
    }
    EXPECT_EQ(fleet[0].ask("refusals"), refused.name);
    EXPECT_EQ(fleet[0].stats()["refused"], 3);
    EXPECT_EQ(fleet[0].stats()["unreachable"], 0);
  }
}

// The permissions that the page names are all that it takes.
TEST(FleetFaults, ThePermissionsThatArePublishedAreEnough) {
  redis_server redis;
  (void)redis.reply({"ACL", "SETUSER", "app", "on", ">secret", "~*", "+get", "+set", "+del",
                     "+pttl", "+pexpire", "+xadd", "+xread", "+eval", "+evalsha", "+ping"});
  auto options = redis.options();
  options.user = "app";
  options.password = "secret";
  singleflight::hiredis_client client(options);
  leases store(client);
  singleflight::fleet<std::string, leases> one(store);
  singleflight::fleet<std::string, leases> other(store);
  for (const auto lifetime : {0ms, 60'000ms}) {
    const std::string key = "key" + std::to_string(lifetime.count());
    std::promise<void> loading;
    support::threads leader(1, [&](std::size_t) {
      EXPECT_EQ(one.load(key, lifetime,
                         [&] {
                           loading.set_value();
                           support::await([&] { return other.stats().waiting == 1; }, "the other");
                           return "v";
                         }),
                "v");
    });
    loading.get_future().wait();
    EXPECT_EQ(other.load(key, lifetime, [] { return "not v"; }), "v");
    leader.join();
  }
  EXPECT_THROW((void)one.load("j", 60s, []() -> std::string { throw std::runtime_error("no"); }),
               std::runtime_error);
  EXPECT_TRUE(one.invalidate("k"));
  EXPECT_TRUE(store.refusals().empty());
  EXPECT_TRUE(client.up());
}

// A permission that only the commands of a script need.
TEST(FleetFaults, APermissionThatIsMissingIsRefused) {
  for (const std::string command : {"get", "set", "pttl", "del", "xadd", "pexpire", "xread"}) {
    SCOPED_TRACE(command);
    redis_server redis;
    workers fleet(2, redis.port(), {{"max_wait", 500}});
    (void)redis.reply({"ACL", "SETUSER", "default", "-" + command});
    expect_both_answered(fleet[0], fleet[1], "k");
    const std::string refusals = fleet[0].ask("refusals") + "," + fleet[1].ask("refusals");
    EXPECT_TRUE(refusals == "NOPERM," || refusals == ",NOPERM" || refusals == "NOPERM,NOPERM")
        << refusals;
  }
}

TEST(FleetFaults, AScriptOfOthersThatHangsTheServerIsNotWaitedFor) {
  redis_server redis({"--busy-reply-threshold", "50"});
  workers fleet(1, redis.port());
  await_well(fleet[0]);
  support::threads busy(1, [&](std::size_t) {
    (void)redis.reply({"EVAL", "while true do end", "0"});
  });
  support::await([&] { return redis.text({"PING"}).starts_with("BUSY"); }, "it to be busy");
  const std::string id = fleet[0].load("k", 60'000, "value");
  EXPECT_EQ(fleet[0].result(id), "value-of-" + id);
  EXPECT_EQ(fleet[0].ask("refusals"), "BUSY");
  (void)redis.reply({"SCRIPT", "KILL"});
  busy.join();
}

TEST(FleetFaults, OneNodeOfAClusterTakesAllKeysOfALoadInOneSlot) {
  redis_server redis({"--cluster-enabled", "yes"});
  (void)redis.reply({"CLUSTER", "ADDSLOTSRANGE", "0", "16383"});
  support::await(
      [&] {
        return redis.text({"CLUSTER", "INFO"}).starts_with("cluster_state:ok");
      },
      "the cluster");
  workers fleet(2, redis.port());
  for (const std::string key :
       {"k", "a{b", "{tag}k", "k{tag}", "a{b}c{d}", "{{x}}", "a{}b", "{}{x}", "a}b", "}", "{}"}) {
    SCOPED_TRACE(key);
    expect_both_answered(fleet[0], fleet[1], key);
    EXPECT_EQ(fleet[0].ask("invalidate", key), "yes");
  }
  EXPECT_EQ(fleet[0].ask("refusals"), "NOSLOT");  // and no CROSSSLOT
  EXPECT_EQ(fleet[0].stats()["refused"], 5);
}

// A server that is full evicts leases: that costs loads, and never a wrong value.
TEST(FleetFaults, AFullServerCostsLoadsAndNothingElse) {
  for (const std::string policy :
       {"allkeys-lru", "allkeys-random", "volatile-ttl", "volatile-lru", "noeviction"}) {
    SCOPED_TRACE(policy);
    redis_server redis({"--maxmemory-policy", policy});
    const std::string big(1000, 'x');
    const long long used = redis.info("used_memory");
    (void)redis.reply({"CONFIG", "SET", "maxmemory", std::to_string(used + 500'000)});
    workers fleet(2, redis.port());
    const std::string storm = fleet.begin_storm("6 50 1000 1000 1000 0");
    std::atomic<bool> over = false;
    support::threads filling(1, [&](std::size_t) {
      singleflight::hiredis_client client(redis.options());
      for (int i = 0; !over; ++i) {
        (void)client.execute({"SET", "filler" + std::to_string(i % 5000), big, "PX", "500"});
      }
    });
    const auto came_of_it = fleet.end_storm(storm);
    over = true;
    filling.join();
    EXPECT_EQ(came_of_it.overlaps_in_process, 0);
    EXPECT_EQ(came_of_it.wrong, 0);
    EXPECT_EQ(came_of_it.failed, 0);
  }
}

}  // namespace
