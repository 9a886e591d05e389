// SPDX-License-Identifier: MIT
// Groups with static storage in two translation units of one program, used before main and after
// it.

#include <gtest/gtest.h>

#include <cstdio>
#include <cstdlib>
#include <memory>
#include <singleflight/group.hpp>

namespace other_unit {
singleflight::group<int, int>& flights();
int loaded_before_main();
void lead_own_key_again();
}  // namespace other_unit

namespace {

using singleflight::group;

group<int, int> flights;

bool say_what_is_loaded_after_main = false;

struct uses_the_groups {
  uses_the_groups()
      : own(flights.do_call(1, [] { return 42; })),
        others(other_unit::flights().do_call(1, [] { return 43; })) {}
  ~uses_the_groups() {
    own = flights.do_call(1, [] { return 44; });
    others = other_unit::flights().do_call(1, [] { return 45; });
    if (own != 44 || others != 45) std::_Exit(1);
    if (say_what_is_loaded_after_main) std::fprintf(stderr, "after main: %d, %d\n", own, others);
  }
  uses_the_groups(const uses_the_groups&) = delete;
  uses_the_groups& operator=(const uses_the_groups&) = delete;

  int own, others;
} used;

TEST(Static, GroupsWorkBeforeMain) {
  EXPECT_EQ(used.own, 42);
  EXPECT_EQ(used.others, 43);
  EXPECT_EQ(other_unit::loaded_before_main(), 44);
}

TEST(Static, GroupsWorkInTheDestructorsOfStatics) {
  EXPECT_EXIT(
      {
        say_what_is_loaded_after_main = true;
        std::exit(0);
      },
      testing::ExitedWithCode(0), "after main: 44, 45");
}

#if defined(__GLIBC__)
// As by dlclose, which no thread sees on its stack.
TEST(Static, GroupsMayBeDestroyedWithCallsInFlightAndOthersMayNot) {
  EXPECT_TRUE(singleflight::detail::may_be_destroyed_by_exit(&flights));
  const auto on_the_heap = std::make_unique<group<int, int>>();
  EXPECT_FALSE(singleflight::detail::may_be_destroyed_by_exit(on_the_heap.get()));
}
#endif

TEST(Static, GroupsOfOneTypeInTwoUnitsAreOneType) {
  group<int, int>& theirs = other_unit::flights();
  EXPECT_NE(&theirs, &flights);
  const auto led_before = theirs.stats().led;
  EXPECT_EQ(*flights.do_call(1, [&] { return *theirs.do_call(1, [] { return 42; }); }), 42);
  EXPECT_EQ(theirs.stats().led, led_before + 1);
}

TEST(Static, ErrorsOfOneUnitAreCaughtInTheOther) {
  EXPECT_THROW(other_unit::lead_own_key_again(), singleflight::call_error);
}

}  // namespace
