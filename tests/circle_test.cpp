// SPDX-License-Identifier: MIT
// Callers that would wait for themselves, through other keys, threads and groups: in each circle
// the group refuses one caller, so that all of them return.

#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstddef>
#include <exception>
#include <singleflight/group.hpp>
#include <string>
#include <system_error>
#include <vector>
#include <version>

#if defined(__cpp_lib_jthread)
#include <stop_token>
#endif

#include "executors.hpp"
#include "support.hpp"

namespace {

using singleflight::call_error;
using singleflight::call_options;
using singleflight::group;
using support::expect_idle;

using namespace std::chrono_literals;

constexpr auto circle = std::errc::resource_deadlock_would_occur;

/// Calls in a circle: thread i leads the call for key i, and when all do, its loader calls for the
/// key of the next thread, with `options`.
struct ring {
  explicit ring(std::size_t n) : threads(n), told(n), value(n) {}

  group<std::size_t, int> g;
  const std::size_t threads;
  std::vector<std::exception_ptr> told;  // by thread
  std::vector<int> value;
  std::atomic<int> refused{0};
  call_options options;

  int want_next(std::size_t i) {
    support::await([&] { return g.stats().led == threads; }, "every thread to lead");
    return g.do_call((i + 1) % threads, options, [] { return -1; });
  }
  template <class Loader>
  void run(const Loader& load) {
    support::threads(threads, [&](std::size_t i) {
      told[i] = support::thrown_by([&] { value[i] = g.do_call(i, [&] { return load(i); }); });
    });
    EXPECT_EQ(g.stats().led, threads);
    EXPECT_EQ(g.stats().joined, threads - 1);
    EXPECT_EQ(g.stats().rejected, 1U);
    expect_idle(g);
  }
  /// The loaders pass on the exception that they get.
  void run_and_throw() {
    run([&](std::size_t i) { return want_next(i); });
  }
  /// The loader that is refused returns a value.
  void run_and_catch() {
    run([&](std::size_t i) {
      try {
        return want_next(i);
      } catch (const call_error& e) {
        EXPECT_EQ(e.code(), circle);
        ++refused;
        return 42;
      }
    });
  }
};

class Circle : public testing::TestWithParam<std::size_t> {};

TEST_P(Circle, OfThreadsFailsInOneAndByThatInAll) {
  ring r(GetParam());
  r.run_and_throw();
  for (const std::exception_ptr& e : r.told) {
    EXPECT_EQ(support::call_error_of(e), circle);
    support::expect_same(e, r.told.front());
  }
}

TEST_P(Circle, OfThreadsGivesAllAValueIfTheOneRefusedCatches) {
  ring r(GetParam());
  r.run_and_catch();
  EXPECT_EQ(r.refused, 1);
  for (const std::exception_ptr& e : r.told) EXPECT_EQ(e, nullptr);
  EXPECT_EQ(std::count(r.value.begin(), r.value.end(), 42),
            static_cast<std::ptrdiff_t>(GetParam()));
}

// Circles with deadlines stood until the first deadline, and it was never said what was wrong.
TEST_P(Circle, OfThreadsIsRefusedInOneWhateverCouldEndTheirWaits) {
  std::vector<call_options> all{{.deadline = std::chrono::steady_clock::now() + 1h},
                                {.timeout = 1h},
                                {.timeout = 1h, .attempts = 2}};
#if defined(__cpp_lib_jthread)
  const std::stop_source never;
  all.push_back({.stop = never.get_token()});
  all.push_back({.timeout = 1h, .stop = never.get_token()});
#endif
  for (const call_options& options : all) {
    ring r(GetParam());
    r.options = options;
    r.run_and_catch();
    EXPECT_EQ(r.refused, 1);
    EXPECT_EQ(r.g.stats().timed_out, 0U);
  }
}

INSTANTIATE_TEST_SUITE_P(OfTwoThreeAndTwenty, Circle, testing::Values(2, 3, 20));

TEST(CircleOnOneThread, ThroughAnotherKeyIsRefused) {
  group<std::string, int> g;
  int outer = 0, inner = 0;
  const auto told = support::thrown_by([&] {
    (void)g.do_call("a", [&] {
      ++outer;
      return *g.do_call("b", [&] {
        ++inner;
        return *g.do_call("a", [] { return 0; });
      });
    });
  });
  EXPECT_EQ(support::call_error_of(told), circle);
  EXPECT_EQ(outer, 1);
  EXPECT_EQ(inner, 1);
  EXPECT_EQ(g.stats().led, 2U);
  EXPECT_EQ(g.stats().rejected, 1U);
  EXPECT_EQ(g.stats().failed, 2U);
  expect_idle(g);
}

TEST(CircleOnOneThread, ThroughAnotherKeyMayBeCaught) {
  group<std::string, int> g;
  const auto a = g.do_call("a", [&] {
    return *g.do_call("b", [&] {
      EXPECT_EQ(support::call_error_of(
                    support::thrown_by([&] { (void)g.do_call("a", [] { return 0; }); })),
                circle);
      return 42;
    });
  });
  EXPECT_EQ(*a, 42);
  EXPECT_EQ(g.stats().failed, 0U);
}

TEST(CircleOnOneThread, ThroughAnInlineExecutorIsRefused) {
  group<std::string, int> g;
  const auto told = support::thrown_by([&] {
    (void)g.do_call_on("a", support::inline_executor, {}, [&] {
      return *g.do_call_on("b", support::inline_executor, {}, [&] {
        return *g.do_call_on("a", support::inline_executor, {}, [] { return 0; });
      });
    });
  });
  EXPECT_EQ(support::call_error_of(told), circle);
  EXPECT_EQ(g.stats().rejected, 1U);
  expect_idle(g);
}

TEST(CircleAcrossGroups, OfDifferentTypesIsRefusedInOne) {
  group<int, int> numbers;
  group<std::string, std::string> names;
  const auto both_led = [&] { return numbers.stats().led + names.stats().led == 2; };
  std::vector<std::exception_ptr> told(2);
  support::threads(2, [&](std::size_t i) {
    told[i] = support::thrown_by([&] {
      if (i == 0) {
        (void)numbers.do_call(1, [&] {
          support::await(both_led, "the other thread to lead");
          return static_cast<int>((*names.do_call("1", [] { return ""; })).size());
        });
      } else {
        (void)names.do_call("1", [&] {
          support::await(both_led, "the other thread to lead");
          return std::to_string(*numbers.do_call(1, [] { return 0; }));
        });
      }
    });
  });
  EXPECT_EQ(support::call_error_of(told[0]), circle);
  support::expect_same(told[0], told[1]);
  EXPECT_EQ(numbers.stats().rejected + names.stats().rejected, 1U);
  EXPECT_EQ(numbers.stats().joined + names.stats().joined, 1U);
  expect_idle(numbers);
  expect_idle(names);
}

TEST(CircleOfWaits, LeavesNothingBehindAThousandTimesOver) {
  for (int i = 0; i < 1000; ++i) {
    ring r(2);
    r.run_and_catch();
    ASSERT_EQ(r.refused, 1);
  }
}

}  // namespace
