// SPDX-License-Identifier: MIT
// A broken precondition is named in words, and handled as the program wants it.

#include <gtest/gtest.h>

#include <cstddef>
#include <cstdio>
#include <cstdlib>
#include <functional>
#include <future>
#include <memory>
#include <optional>
#include <thread>

[[noreturn]] static void end_program(const char* rule) {
  std::fprintf(stderr, "broken: %s\n", rule);
  std::exit(3);
}
#define SINGLEFLIGHT_ASSERT(condition, rule) ((condition) ? void() : end_program(rule))

#include <singleflight/group.hpp>

#include "fiber.hpp"
#include "support.hpp"

namespace {

TEST(PreconditionDeathTest, OfTheDestructorIsThatNoCallRuns) {
  const auto destroy_in_a_loader = [] {
    std::optional<singleflight::group<int, int>> g(std::in_place);
    (void)g->do_call(0, [&] {
      g.reset();
      return 0;
    });
  };
  EXPECT_EXIT(destroy_in_a_loader(), testing::ExitedWithCode(3),
              "broken: a group must outlive the calls that are made through it");
}

TEST(PreconditionDeathTest, OfALoaderIsThatItReturnsOnItsThread) {
  if (!support::fibers_migrate) GTEST_SKIP() << "no fibers here";
  const auto migrate = [] {
    singleflight::group<int, int> g;
    support::fiber fiber([&](const std::function<void()>& suspend) {
      (void)g.do_call(0, [&] {
        suspend();
        return 0;
      });
    });
    support::threads(1, [&](std::size_t) { fiber.resume(); }).join();
    fiber.resume();
  };
  EXPECT_EXIT(migrate(), testing::ExitedWithCode(3),
              "broken: a loader must return on the thread on which it was called");
}

TEST(PreconditionDeathTest, OfTheDestructorHoldsForAGroupOnTheHeap) {
  const auto destroy_in_a_loader = [] {
    auto g = std::make_unique<singleflight::group<int, int>>();
    auto& flights = *g;
    (void)flights.do_call(0, [&] {
      g.reset();
      return 0;
    });
  };
  EXPECT_EXIT(destroy_in_a_loader(), testing::ExitedWithCode(3),
              "broken: a group must outlive the calls that are made through it");
}

TEST(PreconditionDeathTest, OfTheDestructorHoldsForACallThatAnotherThreadLeads) {
  const auto destroy_beside_a_loader = [] {
    auto g = std::make_unique<singleflight::group<int, int>>();
    std::promise<void> begun, never;
    std::thread leader([&] {
      (void)g->do_call(0, [&] {
        begun.set_value();
        never.get_future().wait();
        return 0;
      });
    });
    begun.get_future().wait();
    g.reset();
    leader.join();  // not reached
  };
  EXPECT_EXIT(destroy_beside_a_loader(), testing::ExitedWithCode(3),
              "broken: a group must outlive the calls that are made through it");
}

TEST(PreconditionDeathTest, OfTheDestructorHoldsForABulkLoaderThatHasSettledAllItsKeys) {
  const auto destroy_in_a_loader = [] {
    auto g = std::make_unique<singleflight::group<int, int>>();
    auto& flights = *g;
    (void)flights.do_many_on(
        {0, 1}, [](const auto& task) { task(); }, {},
        [&](auto& missing) {
          missing.rest(42);
          g.reset();
        });
  };
  EXPECT_EXIT(destroy_in_a_loader(), testing::ExitedWithCode(3),
              "broken: a group must outlive the calls that are made through it");
}

TEST(PreconditionDeathTest, OfTheDestructorHoldsForAGroupThatItsExecutorDestroys) {
  const auto destroy_in_an_executor = [] {
    auto g = std::make_unique<singleflight::group<int, int>>();
    auto& flights = *g;
    (void)flights.do_async(
        0, [&](const auto&) { g.reset(); }, [] { return 0; });
  };
  EXPECT_EXIT(destroy_in_an_executor(), testing::ExitedWithCode(3),
              "broken: a group must outlive the calls that are made through it");
}

}  // namespace
