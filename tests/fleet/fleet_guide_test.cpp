// SPDX-License-Identifier: MIT
// Runs the code of docs/fleet.md, of which guide.cmake has made a header.

#include <gtest/gtest.h>

#include <fleet_blocks.hpp>
#include <string>

#include "redis_server.hpp"

namespace fleet_guide {
namespace {

TEST(FleetGuide, ShowsACacheThatAllProcessesShare) {
  fleet_tests::redis_server redis;
  db.store("welcome", "Hello");
  db.loads = 0;
  block_1::template_cache one(redis.options());
  block_1::template_cache other(redis.options());
  EXPECT_EQ(one.get("welcome"), "Hello");
  EXPECT_EQ(other.get("welcome"), "Hello");
  EXPECT_EQ(db.loads, 1);
  other.update("welcome", "Good day");
  EXPECT_EQ(one.get("welcome"), "Good day");
  EXPECT_EQ(db.loads, 2);
  EXPECT_EQ(one.stats().led, 2U);
}

TEST(FleetGuide, ShowsALoaderThatSaysHowLongItsResultLives) {
  fleet_tests::redis_server redis;
  singleflight::hiredis_client client(redis.options());
  singleflight::redis_leases leases(client);
  singleflight::fleet<std::string, decltype(leases)> fleet(leases);
  db.store("ann", "Ann");
  EXPECT_EQ(block_2::find_user(fleet, "ann"), "Ann");
  EXPECT_EQ(block_2::find_user(fleet, "bob"), "");
  EXPECT_GT(client.execute({"PTTL", "user:ann"}).number, 50'000);
  EXPECT_LE(client.execute({"PTTL", "user:bob"}).number, 1'100);
}

TEST(FleetGuide, ShowsValuesThatAreNoStrings) {
  static fleet_tests::redis_server redis;  // as long as the fleet of the page's code
  static singleflight::hiredis_client client(redis.options());
  static singleflight::redis_leases leases(client);
  EXPECT_EQ(block_3::count(leases), 42);
  EXPECT_EQ(client.execute({"GET", "count"}).text, "42");
}

}  // namespace
}  // namespace fleet_guide
