// SPDX-License-Identifier: MIT
// operator new and its new-handler are user code, too. They may run under a lock of the group that
// allocates, so they must not use that one; they may use any other.

#include <gtest/gtest.h>

#include <chrono>
#include <functional>
#include <new>
#include <ostream>
#include <singleflight/group.hpp>
#include <string>
#include <utility>
#include <version>

#if defined(__cpp_lib_jthread)
#include <stop_token>
#endif

#include "executors.hpp"
#include "replaced_new.hpp"
#include "support.hpp"

namespace {

using namespace std::chrono_literals;
using singleflight::group;

using group_type = group<std::string, int>;
using code = std::function<void()>;

const std::string key(200, 'k');  // whose copy allocates

int one() { return 1; }

// --- When a group allocates ----------------------------------------------------------------------
// Each function calls `watched` with an operation, whose allocations are those of interest.

using watching = std::function<void(const code& operation)>;

void leading(group_type& g, const watching& watched) {
  watched([&] { EXPECT_TRUE(g.do_call(key, one).led()); });
}

#if defined(__cpp_lib_jthread)
void leading_with_a_stop_token(group_type& g, const watching& watched) {
  const auto load = [](const std::stop_token&) { return 1; };
  watched([&] { EXPECT_TRUE(g.do_call(key, load).led()); });
}
#endif

void beginning_on_an_executor(group_type& g, const watching& watched) {
  watched([&] { EXPECT_TRUE(g.do_call_on(key, support::inline_executor, {}, one).led()); });
}

void beginning_without_waiting(group_type& g, const watching& watched) {
  watched([&] { EXPECT_EQ(g.do_async(key, support::inline_executor, one).get(), 1); });
}

void following_inside_a_loader(group_type& g, const watching& watched) {
  support::threads leader;
  leader.start([&] {
    (void)g.do_call(key, [&] {
      support::await_followers(g, 1);
      return 1;
    });
  });
  support::await([&] { return g.stats().led == 1; }, "the call");
  (void)g.do_call("another", [&] {
    watched([&] { EXPECT_FALSE(g.do_call(key, {.timeout = 1h}, one).led()); });
    return 1;
  });
}

void listing_the_calls(group_type& g, const watching& watched) {
  (void)g.do_call(key, [&] {
    watched([&] { EXPECT_EQ(g.in_flight().size(), 1U); });
    return 1;
  });
}

void beginning_more_calls_than_buckets(group_type& g, const watching& watched) {
  const std::function<int(int)> chain = [&](int depth) -> int {
    if (depth == 0) {
      watched([&] { EXPECT_TRUE(g.do_call(key, one).led()); });
      return 1;
    }
    return *g.do_call(std::to_string(depth), [&, depth] { return chain(depth - 1); });
  };
  chain(8);
}

struct situation {
  const char* name;
  void (*arrange)(group_type&, const watching&);
};

void PrintTo(const situation& s, std::ostream* out) { *out << s.name; }

// --- What the user code does there ---------------------------------------------------------------

/// The allocation of this thread to interfere with, counted from 0; below 0 it is past.
thread_local int countdown = 0;
/// What is done there.
thread_local const code* interfere = nullptr;

/// Does it without being asked about the allocations of that.
void interfere_now() noexcept {
  const auto asked = std::exchange(support::grants_allocation, nullptr);
  (*interfere)();
  support::grants_allocation = asked;
}

bool uses_a_group_and_grants() noexcept {
  if (countdown-- == 0) interfere_now();
  return true;
}

bool refuses_once() noexcept { return countdown-- != 0; }

class Allocation : public testing::TestWithParam<situation> {
 protected:
  void SetUp() override {
    if (!support::replaces_new) GTEST_SKIP() << "operator new cannot be replaced here";
  }

  /// Has user code use another group in each allocation of the operation, in one after the other.
  void use_another_group(bool (*grants)() noexcept) {
    bool past_the_last = false;
    for (int n = 0; !past_the_last && !HasFailure(); ++n) {
      SCOPED_TRACE(testing::Message() << "allocation " << n);
      group_type g({.shards = 1});
      group<int, int> other({.shards = 1});
      int uses = 0;
      const code use = [&] {
        ++uses;
        EXPECT_TRUE(other.do_call(1, one).led());
        EXPECT_FALSE(other.forget(1));
      };
      GetParam().arrange(g, [&](const code& operation) {
        countdown = n;
        interfere = &use;
        support::grants_allocation = grants;
        operation();
        support::grants_allocation = nullptr;
        interfere = nullptr;
      });
      past_the_last = uses == 0;
      EXPECT_LE(uses, 1);
      EXPECT_TRUE(n > 0 || uses == 1) << "the operation allocates nothing";
      support::expect_idle(g);
    }
  }
};

TEST_P(Allocation, MayUseAnotherGroup) { use_another_group(uses_a_group_and_grants); }

TEST_P(Allocation, ThatFailsMayHaveTheNewHandlerUseAnotherGroup) {
  const std::new_handler before = std::set_new_handler([] {
    if (interfere == nullptr) throw std::bad_alloc();
    interfere_now();
  });
  use_another_group(refuses_once);
  std::set_new_handler(before);
}

const situation situations[] = {
    {"Leading", leading},
#if defined(__cpp_lib_jthread)
    {"LeadingWithAStopToken", leading_with_a_stop_token},
#endif
    {"BeginningOnAnExecutor", beginning_on_an_executor},
    {"BeginningWithoutWaiting", beginning_without_waiting},
    {"FollowingInsideALoader", following_inside_a_loader},
    {"ListingTheCalls", listing_the_calls},
    {"BeginningMoreCallsThanBuckets", beginning_more_calls_than_buckets},
};

INSTANTIATE_TEST_SUITE_P(When, Allocation, testing::ValuesIn(situations),
                         [](const testing::TestParamInfo<situation>& s) { return s.param.name; });

}  // namespace
