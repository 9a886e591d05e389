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

TEST_F(Guide, ShowsManyKeysAtOnce) {
  const auto rows = block_13::get({"welcome", "none", "letter", "welcome"});
  EXPECT_EQ(rows[0].value().body, "Hello");
  EXPECT_FALSE(rows[1].has_value());
  EXPECT_EQ(rows[3].value().body, "Hello");
  EXPECT_EQ(db.loads, 1);
  EXPECT_EQ(block_14::bodies_of({"welcome", "none", "letter"}), "Hello, friend");
}

TEST_F(Guide, ShowsAPageOfKeys) {
  cache.put("letter", {"kept"}, 30s);
  const auto rows = block_15::page({"welcome", "letter"});
  EXPECT_EQ(rows[0].body, "Hello");
  EXPECT_EQ(rows[1].body, "kept");
  EXPECT_TRUE(cache.find("welcome"));
  cache.erase("letter");
}

TEST_F(Guide, ShowsReadingThroughACache) {
  EXPECT_EQ(block_16::get("welcome")->body, "Hello");
  EXPECT_EQ(block_16::get("welcome")->body, "Hello");
  EXPECT_EQ(block_16::get("none"), std::nullopt);
  EXPECT_EQ(block_16::get("none"), std::nullopt);
  EXPECT_EQ(db.loads, 2);
  block_16::update("welcome", {"Good morning"});
  EXPECT_EQ(block_16::get("welcome")->body, "Good morning");
}

#if __has_include(<boost/version.hpp>)
TEST_F(Guide, ShowsACacheOfLimitedSize) {
  block_17::lru_cache two(2);
  const auto put = [&](const char* key) { two.put(key, {template_details{key}, {}, {}}); };
  put("a");
  put("b");
  EXPECT_EQ(two.find("a")->value->body, "a");
  put("c");
  EXPECT_FALSE(two.find("b")) << "not used for the longest time";
  put("c");
  EXPECT_TRUE(two.find("a"));
  two.erase("a");
  EXPECT_FALSE(two.find("a"));
  EXPECT_EQ(block_17::get("welcome")->body, "Hello");
  EXPECT_EQ(block_17::get("welcome")->body, "Hello");
  EXPECT_EQ(db.loads, 1);
}
#endif

TEST_F(Guide, ShowsAStaleEntryThatIsRefreshed) {
  EXPECT_EQ(block_18::get("welcome")->body, "Hello");
  block_18::entries["welcome"].fresh_until = {};
  db.store("welcome", {"Good morning"});
  EXPECT_EQ(block_18::get("welcome")->body, "Hello");
  support::await([] { return block_18::reads.stats().loads == 2; }, "the refresh");
}

TEST_F(Guide, ShowsALoaderThatNeedsAnotherKey) {
  EXPECT_EQ(block_19::expand("letter"), "Hello, friend");
  EXPECT_THROW(block_19::expand("loop"), singleflight::call_error);
}

TEST_F(Guide, ShowsValuesThatAreBigOrCannotBeCopied) {
  EXPECT_EQ(block_20::size_of("12345"), 5U);
  EXPECT_TRUE(block_20::is_open("main"));
}

TEST_F(Guide, ShowsCallersOnAPool) {
  std::promise<std::string> answer;
  std::future<std::string> body = answer.get_future();
  block_21::handle_on_pool("welcome", std::move(answer));
  EXPECT_EQ(body.get(), "Hello");
}

TEST_F(Guide, ShowsAGroupThatIsNeverDestroyed) {
  EXPECT_EQ(block_22::get("welcome").body, "Hello");
  EXPECT_EQ(&block_22::flights(), &block_22::flights());
}

}  // namespace
}  // namespace guide

#endif
