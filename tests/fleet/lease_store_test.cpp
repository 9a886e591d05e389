// SPDX-License-Identifier: MIT
// What a lease store does, in memory as on Redis: so what is shown with the one holds with the
// other.

#include <gtest/gtest.h>

#include <chrono>
#include <memory>
#include <singleflight/hiredis_client.hpp>
#include <singleflight/redis_leases.hpp>
#include <string>
#include <string_view>
#include <thread>

#include "../support.hpp"
#include "memory_leases.hpp"
#include "redis_server.hpp"

namespace {

using namespace std::chrono_literals;
using singleflight::lease_answer;
using singleflight::lease_end;
using singleflight::lease_entry;

struct in_memory {
  in_memory() {
    store.meanwhile = [] {};
  }
  fleet_tests::memory_leases store;
  std::string value(const std::string& key) { return store.value(key); }
  void put(const std::string& key, const std::string& bytes) { store.put(key, bytes); }
  void pass(std::chrono::milliseconds time) { store.advance(time); }
};

struct on_redis {
  fleet_tests::redis_server server;
  singleflight::hiredis_client client{server.options()};
  singleflight::redis_leases<singleflight::hiredis_client> store{client};
  std::string value(const std::string& key) {
    const auto reply = client.execute({"GET", key});
    return reply.what == singleflight::redis_reply::kind::text ? reply.text : "(none)";
  }
  void put(const std::string& key, const std::string& bytes) {
    (void)client.execute({"SET", key, bytes});
  }
  static void pass(std::chrono::milliseconds time) { std::this_thread::sleep_for(time + 2ms); }
};

/// The same, by polling: a client without connections for commands that block.
struct on_redis_by_polling : on_redis {
  struct plain_client {
    singleflight::redis_reply execute(std::span<const std::string_view> command) {
      return client.execute(command);
    }
    singleflight::hiredis_client& client;
  };
  plain_client plain{client};
  singleflight::redis_leases<plain_client> store{plain};
};

template <class World>
class LeaseStore : public testing::Test {
 protected:
  lease_entry enter(std::string_view token, std::chrono::milliseconds lease = 60'000ms) {
    return world.store.enter("k", token, lease);
  }
  lease_answer fill(std::string_view token, std::string_view bytes,
                    std::chrono::milliseconds lifetime = 60'000ms) {
    return world.store.fill("k", token, bytes, lifetime, 60'000ms);
  }
  lease_end told(std::string_view leader) { return world.store.wait("k", leader, 5ms, 0); }
  World world;
};
using worlds = testing::Types<in_memory, on_redis, on_redis_by_polling>;
TYPED_TEST_SUITE(LeaseStore, worlds);

TYPED_TEST(LeaseStore, LetsOneLeadAndTellsTheOthersWhoAndForHowLong) {
  EXPECT_EQ(this->enter("a", 50'000ms).what, lease_entry::kind::lead);
  const lease_entry other = this->enter("b");
  EXPECT_EQ(other.what, lease_entry::kind::wait);
  EXPECT_EQ(other.leader, "a");
  EXPECT_GT(other.left, 0ms);
  EXPECT_LE(other.left, 50'000ms);
  EXPECT_EQ(this->enter("a").what, lease_entry::kind::lead);  // whose first reply was lost
}

TYPED_TEST(LeaseStore, FindsAValue) {
  this->world.put("k", "v");
  const lease_entry entry = this->enter("a");
  EXPECT_EQ(entry.what, lease_entry::kind::hit);
  EXPECT_EQ(entry.value, "v");
}

TYPED_TEST(LeaseStore, KeepsWhatTheLeaderFills) {
  (void)this->enter("a");
  EXPECT_EQ(this->fill("a", "v"), lease_answer::held);
  EXPECT_EQ(this->world.value("k"), "v");
  EXPECT_EQ(this->told("a").what, lease_end::kind::kept);
  EXPECT_EQ(this->enter("b").what, lease_entry::kind::hit);
  EXPECT_EQ(this->fill("a", "again"), lease_answer::lost);  // the lease has ended with the fill
  EXPECT_EQ(this->world.value("k"), "v");
}

TYPED_TEST(LeaseStore, HandsOverWhatIsNotKept) {
  (void)this->enter("a");
  EXPECT_EQ(this->fill("a", "v", 0ms), lease_answer::held);
  EXPECT_EQ(this->world.value("k"), "(none)");
  const lease_end end = this->told("a");
  EXPECT_EQ(end.what, lease_end::kind::value);
  EXPECT_EQ(end.value, "v");
  EXPECT_EQ(this->enter("b").what, lease_entry::kind::lead);
  EXPECT_EQ(this->told("b").what, lease_end::kind::pending);  // the result was of another lease
}

TYPED_TEST(LeaseStore, RefusesAFillWithoutALease) {
  EXPECT_EQ(this->fill("a", "v"), lease_answer::lost);
  EXPECT_EQ(this->world.value("k"), "(none)");
  EXPECT_EQ(this->told("a").value, "v");  // for those who joined when there was one
}

TYPED_TEST(LeaseStore, RefusesAFillUnderTheLeaseOfAnother) {
  (void)this->enter("b");
  EXPECT_EQ(this->fill("a", "v"), lease_answer::lost);
  EXPECT_EQ(this->world.value("k"), "(none)");
  EXPECT_EQ(this->enter("c").leader, "b");
  EXPECT_EQ(this->told("b").what, lease_end::kind::pending);
}

TYPED_TEST(LeaseStore, LeavesAValueThatIsThere) {
  (void)this->enter("a");
  this->world.put("k", "written through");
  EXPECT_EQ(this->fill("a", "v"), lease_answer::held);
  EXPECT_EQ(this->world.value("k"), "written through");
  EXPECT_EQ(this->told("a").value, "v");
}

TYPED_TEST(LeaseStore, TellsThatALeaderFailed) {
  (void)this->enter("a");
  EXPECT_EQ(this->world.store.release("k", "a", 60'000ms), lease_answer::held);
  EXPECT_EQ(this->told("a").what, lease_end::kind::failed);
  EXPECT_EQ(this->enter("b").what, lease_entry::kind::lead);
  EXPECT_EQ(this->world.store.release("k", "a", 60'000ms), lease_answer::lost);
  EXPECT_EQ(this->enter("c").leader, "b");
}

TYPED_TEST(LeaseStore, VoidsALeaseByAnInvalidation) {
  (void)this->enter("a");
  EXPECT_EQ(this->world.store.invalidate("k"), lease_answer::held);
  EXPECT_EQ(this->fill("a", "old"), lease_answer::lost);
  EXPECT_EQ(this->world.value("k"), "(none)");
  this->world.put("k", "v");
  EXPECT_EQ(this->world.store.invalidate("k"), lease_answer::held);
  EXPECT_EQ(this->world.value("k"), "(none)");
}

TYPED_TEST(LeaseStore, EndsALeaseByItself) {
  (void)this->enter("a", 20ms);
  this->world.pass(20ms);
  EXPECT_EQ(this->enter("b").what, lease_entry::kind::lead);
  EXPECT_EQ(this->fill("a", "late"), lease_answer::lost);
  EXPECT_EQ(this->world.store.release("k", "a", 60'000ms), lease_answer::lost);
  EXPECT_EQ(this->enter("c").leader, "b");
}

TYPED_TEST(LeaseStore, KeepsAValueForItsLifetime) {
  (void)this->enter("a");
  (void)this->fill("a", "v", 20ms);
  this->world.pass(20ms);
  EXPECT_EQ(this->world.value("k"), "(none)");
}

TYPED_TEST(LeaseStore, KeepsAResultForTheHandover) {
  (void)this->enter("a");
  EXPECT_EQ(this->world.store.fill("k", "a", "v", 0ms, 20ms), lease_answer::held);
  (void)this->world.store.enter("j", "b", 60'000ms);
  EXPECT_EQ(this->world.store.release("j", "b", 20ms), lease_answer::held);
  this->world.pass(20ms);
  EXPECT_EQ(this->told("a").what, lease_end::kind::pending);
  EXPECT_EQ(this->world.store.wait("j", "b", 5ms, 0).what, lease_end::kind::pending);
}

TYPED_TEST(LeaseStore, WaitsNoLongerThanItMay) {
  (void)this->enter("a");
  for (std::size_t round = 0; round < 6; ++round) {
    EXPECT_EQ(this->world.store.wait("k", "a", 5ms, round).what, lease_end::kind::pending);
  }
}

TYPED_TEST(LeaseStore, TakesAnyBytes) {
  using namespace std::string_literals;
  const std::vector<std::string> values{""s,
                                        "\0"s,
                                        "a\r\nb\0c"s,
                                        "kept",
                                        "value",
                                        "failed",
                                        "hit",
                                        std::string(300, '\xff'),
                                        std::string(1'000'000, 'x')};
  int number = 0;
  for (const std::string& value : values) {
    for (const auto lifetime : {60'000ms, 0ms}) {
      const std::string key = value.substr(0, 1000) + "key" + std::to_string(++number);
      const std::string token = "token" + std::to_string(number);
      EXPECT_EQ(this->world.store.enter(key, token, 60'000ms).what, lease_entry::kind::lead);
      EXPECT_EQ(this->world.store.fill(key, token, value, lifetime, 60'000ms), lease_answer::held);
      if (lifetime == 0ms) {
        EXPECT_EQ(this->world.store.wait(key, token, 5ms, 0).value, value);
      } else {
        EXPECT_EQ(this->world.store.enter(key, "other", 60'000ms).value, value);
      }
    }
  }
}

TYPED_TEST(LeaseStore, DoesNotMixUpKeys) {
  (void)this->world.store.enter("a", "1", 60'000ms);
  EXPECT_EQ(this->world.store.enter("b", "2", 60'000ms).what, lease_entry::kind::lead);
  EXPECT_EQ(this->world.store.fill("b", "1", "v", 60'000ms, 60'000ms), lease_answer::lost);
  EXPECT_EQ(this->world.store.fill("a", "1", "va", 60'000ms, 60'000ms), lease_answer::held);
  EXPECT_EQ(this->world.store.fill("b", "2", "vb", 60'000ms, 60'000ms), lease_answer::held);
  EXPECT_EQ(this->world.store.enter("a", "3", 60'000ms).value, "va");
  EXPECT_EQ(this->world.store.enter("b", "3", 60'000ms).value, "vb");
}

// A script that has begun with a DEL may write more than the server has memory for.
TYPED_TEST(LeaseStore, StoresAResultAlsoWhereMemoryIsShort) {
  if constexpr (!std::is_same_v<TypeParam, in_memory>) {
    (void)this->enter("a");
    (void)this->world.client.execute({"CONFIG", "SET", "maxmemory", "1"});
    EXPECT_EQ(this->enter("b").what, lease_entry::kind::refused);
    EXPECT_EQ(this->fill("a", "v"), lease_answer::held);
    EXPECT_EQ(this->world.value("k"), "v");
    EXPECT_EQ(this->enter("b").what, lease_entry::kind::hit);
  }
}

TYPED_TEST(LeaseStore, LeavesNothingWithoutAnExpiry) {
  if constexpr (!std::is_same_v<TypeParam, in_memory>) {
    (void)this->enter("a");
    (void)this->world.store.enter("j", "b", 60'000ms);
    (void)this->world.store.enter("i", "c", 60'000ms);
    EXPECT_EQ(this->fill("a", "v"), lease_answer::held);
    (void)this->world.store.release("j", "b", 60'000ms);
    const auto keys = this->world.client.execute({"KEYS", "*"});
    EXPECT_EQ(keys.list.size(), 4U);  // the value, two results, one lease
    for (const auto& key : keys.list) {
      EXPECT_GT(this->world.client.execute({"PTTL", key.text}).number, 0) << key.text;
    }
  }
}

TYPED_TEST(LeaseStore, WakesAllThatWait) {
  if constexpr (!std::is_same_v<TypeParam, in_memory>) {
    (void)this->enter("a");
    std::atomic<int> woken = 0;
    support::threads waiting(3, [&](std::size_t) {
      support::await(
          [&] { return this->world.store.wait("k", "a", 100ms, 0).what == lease_end::kind::kept; },
          "the leader");
      ++woken;
    });
    EXPECT_EQ(this->fill("a", "v"), lease_answer::held);
    waiting.join();
    EXPECT_EQ(woken, 3);
  }
}

}  // namespace
