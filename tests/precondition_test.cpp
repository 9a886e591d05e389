// SPDX-License-Identifier: MIT
// A broken precondition is named in words, and handled as the program wants it.

#include <gtest/gtest.h>

#include <cstddef>
#include <cstdio>
#include <cstdlib>
#include <functional>
#include <optional>

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

}  // namespace
