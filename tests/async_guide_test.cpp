// SPDX-License-Identifier: MIT
// Runs the code of docs/async.md.
#include <gtest/gtest.h>

#include "async_blocks.hpp"

namespace async_guide {
namespace {

/// Runs a task that nobody awaits.
template <class T>
support::detached start(task<T> work, std::optional<T>& result, bool& refused) {
  try {
    result = co_await std::move(work);
  } catch (const singleflight::call_error& e) {
    refused = e.code() == std::errc::resource_deadlock_would_occur;
  }
}

template <class T>
struct started {
  explicit started(task<T> work) { start(std::move(work), result, refused); }
  std::optional<T> result;
  bool refused = false;
};

void run() {
  answers.run_all();
  pool.run_all();
}

TEST(AsyncGuide, CoroutinesShareALoadAndComeBackOnTheirExecutor) {
  const int loads = db.loads;
  started<template_details> one(block_1::get("welcome")), two(block_1::get("welcome"));
  answers.run_all();
  EXPECT_FALSE(one.result || two.result);
  pool.run_all();
  EXPECT_EQ(one.result->body, "Hello");
  EXPECT_EQ(two.result->body, "Hello");
  EXPECT_EQ(db.loads, loads + 1);
}

TEST(AsyncGuide, AStopRequestTakesACallerOut) {
  std::stop_source stop;
  started<std::optional<template_details>> one(block_2::get_unless(stop.get_token(), "welcome"));
  stop.request_stop();
  run();
  ASSERT_TRUE(one.result);
  EXPECT_FALSE(*one.result);
  EXPECT_TRUE(db.told_to_stop);
  started<std::optional<template_details>> other(block_2::get_unless({}, "welcome"));
  run();
  EXPECT_EQ((*other.result)->body, "Hello");
}

TEST(AsyncGuide, CallbacksShareALoad) {
  const int loads = db.loads;
  std::string first, second;
  block_3::get("welcome", [&](std::string body) { first = std::move(body); });
  block_3::get("welcome", [&](std::string body) { second = std::move(body); });
  run();
  EXPECT_EQ(first + second, "HelloHello");
  EXPECT_EQ(db.loads, loads + 1);
}

TEST(AsyncGuide, AThreadMayLeadAndCompleteLater) {
  EXPECT_EQ(block_4::get("welcome").body, "Hello");
}

TEST(AsyncGuide, ShuttingDownWaitsForTheLastCall) {
  bool drained = false;
  std::optional<singleflight::leader<template_details>> lead;
  block_5::flights.async_call(
      "a", singleflight::resume_inline, {}, [&](auto l) { lead.emplace(std::move(l)); },
      [](auto) {});
  const auto wait = [](bool& done) -> support::detached {
    co_await block_5::shut_down();
    done = true;
  };
  wait(drained);
  EXPECT_FALSE(drained);
  std::move(*lead).set_value({});
  EXPECT_TRUE(drained);
}

TEST(AsyncGuide, ACircleIsRefused) {
  started<std::string> letter(block_6::expand("letter")), loop(block_6::expand("loop"));
  run();
  EXPECT_EQ(letter.result, "Hello, friend");
  EXPECT_TRUE(loop.refused);
}

TEST(AsyncGuide, APageIsLoadedByOneQuery) {
  const int loads = db.loads;
  started<std::vector<std::string>> page(block_7::get_page({"letter", "nothing", "welcome"}));
  run();
  EXPECT_EQ(page.result, (std::vector<std::string>{", friend", "(none)", "Hello"}));
  EXPECT_EQ(db.loads, loads + 1);
}

}  // namespace
}  // namespace async_guide
