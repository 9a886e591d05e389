// SPDX-License-Identifier: MIT
// Runs the code of docs/guide.md, block by block. guide.cmake makes a header of it.

#include <version>
#if defined(__cpp_lib_jthread)

#include <gtest/gtest.h>

#include <chrono>
#include <cstddef>
#include <exception>
#include <future>
#include <guide_blocks.hpp>
#include <map>
#include <mutex>
#include <optional>
#include <stdexcept>
#include <stop_token>
#include <string>
#include <system_error>
#include <utility>

#include "support.hpp"

namespace guide {
namespace {

class Guide : public testing::Test {
 protected:
  Guide() {
    db.loads = 0;
    db.failures_to_come = 0;
    db.hangs = false;
    db.store("welcome", {"Hello"});
    db.store("letter", {", friend", "welcome"});
    db.store("loop", {"", "loop"});
    db.store("acme/welcome", {"Hello from Acme"});
    db.store("bolt/welcome", {"Hello from Bolt"});
    cache.erase("welcome");
  }
};

TEST_F(Guide, ShowsAGroupBehindACache) {
  EXPECT_EQ(block_1::get("welcome").body, "Hello");
  EXPECT_EQ(block_1::get("welcome").body, "Hello");
  EXPECT_EQ(db.loads, 1);
}

TEST_F(Guide, ShowsALoaderThatTakesTheKeyOfAStringThatWasMoved) {
  EXPECT_EQ(block_2::get("welcome").body, "Hello");
}

TEST_F(Guide, ShowsKeysThatTellTenantsApart) {
  EXPECT_EQ(block_3::get({"acme", "welcome", "en"}).body, "Hello from Acme");
  EXPECT_EQ(block_3::get({"bolt", "welcome", "en"}).body, "Hello from Bolt");
}

TEST_F(Guide, ShowsAKeyOfTextThatIsLookedUpByAView) {
  EXPECT_EQ(block_4::get("welcome").body, "Hello");
}

TEST_F(Guide, ShowsACallerWithATimeoutThatLeaves) {
  db.hangs = true;
  EXPECT_EQ(block_5::get_soon("welcome"), std::nullopt);
  db.hangs = false;
  support::await([] { return block_5::flights.stats().in_flight == 0; }, "the load to end");
}

TEST_F(Guide, ShowsThatACancelledLeaderReturnsWithTheResult) {
  EXPECT_EQ(block_6::get("welcome", {}).body, "Hello");
  std::stop_source stop;
  stop.request_stop();
  EXPECT_THROW(block_6::get("welcome", stop.get_token()), singleflight::call_error);
}

TEST_F(Guide, ShowsALoaderThatStopsWhenNoCallerWantsTheResult) {
  db.hangs = true;
  std::stop_source stop;
  support::threads callers(1, [&](std::size_t) {
    EXPECT_THROW(block_7::get("welcome", stop.get_token()), std::runtime_error);
  });
  support::await([] { return db.loads == 1; }, "the load to begin");
  stop.request_stop();
}

TEST_F(Guide, ShowsAHungLeaderThatIsSuperseded) {
  EXPECT_EQ(block_8::get("welcome").body, "Hello");
}

TEST_F(Guide, ShowsCallersThatAreTurnedAway) {
  EXPECT_EQ(block_9::get_or_shed("welcome")->body, "Hello");
}

TEST_F(Guide, ShowsAFailureThatOnlyItsLeaderSees) {
  db.failures_to_come = 1;
  EXPECT_THROW(block_10::get("welcome"), std::runtime_error);
  EXPECT_EQ(block_10::get("welcome").body, "Hello");
}

TEST_F(Guide, ShowsACallerThatAddsToAFailure) {
  db.failures_to_come = 1;
  try {
    block_11::get_for("Ann", "welcome");
    FAIL() << "the load failed";
  } catch (const std::runtime_error& outer) {
    EXPECT_STREQ(outer.what(), "no template for Ann");
    EXPECT_THROW(std::rethrow_if_nested(outer), std::runtime_error);
  }
}

TEST_F(Guide, ShowsAReadAfterAWrite) {
  block_12::update("welcome", {"Good morning"});
  EXPECT_EQ(block_12::get("welcome").body, "Good morning");
}

TEST_F(Guide, ShowsALoaderThatNeedsAnotherKey) {
  EXPECT_EQ(block_13::expand("letter"), "Hello, friend");
  EXPECT_THROW(block_13::expand("loop"), singleflight::call_error);
}

TEST_F(Guide, ShowsValuesThatAreBigOrCannotBeCopied) {
  EXPECT_EQ(block_14::size_of("12345"), 5U);
  EXPECT_TRUE(block_14::is_open("main"));
}

TEST_F(Guide, ShowsCallersOnAPool) {
  std::promise<std::string> answer;
  std::future<std::string> body = answer.get_future();
  block_15::handle_on_pool("welcome", std::move(answer));
  EXPECT_EQ(body.get(), "Hello");
}

TEST_F(Guide, ShowsAGroupThatIsNeverDestroyed) {
  EXPECT_EQ(block_16::get("welcome").body, "Hello");
  EXPECT_EQ(&block_16::flights(), &block_16::flights());
}

}  // namespace
}  // namespace guide

#endif
