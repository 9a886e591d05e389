// SPDX-License-Identifier: MIT
// Stop callbacks of loaders. The thread that runs them has left the call, so it waits for nobody: no
// circle of waits goes through it, whatever the callback does.

#include <version>

#if defined(__cpp_lib_jthread)

#include <gtest/gtest.h>

#include <atomic>
#include <exception>
#include <functional>
#include <ostream>
#include <singleflight/group.hpp>
#include <stop_token>
#include <string>
#include <system_error>
#include <thread>

#include "executors.hpp"
#include "last_to_leave.hpp"
#include "support.hpp"

namespace {

using singleflight::call_error;
using singleflight::group;
using singleflight::group_options;
using support::patience;
using support::stoppable_call;

constexpr auto circle = std::errc::resource_deadlock_would_occur;

using inner_group = group<int, int>;
using leaver = support::last_to_leave<inner_group>;

/// How this thread comes to run the stop callback, inside a loader.
struct way {
  const char* name;
  void (leaver::*leave)(patience);
};

void PrintTo(const way& w, std::ostream* out) { *out << w.name; }

class StopCallback : public testing::TestWithParam<way> {
 protected:
  /// Has a thread lead "outer" in `g`, and inside that run the callback of a call in another group.
  template <class Group>
  static void leave_inside(Group& g, const stoppable_call& call, patience time) {
    group_options options{.shards = 1};
    if (GetParam().leave == &leaver::as_a_follower_at_max_age) options.max_age = time;
    inner_group inner(options);
    {
      leaver leaves(inner, call);
      std::thread outer([&] {  // which may be cancelled
        const auto result = g.do_call("outer", [&] {
          (leaves.*GetParam().leave)(time);
          return 4;
        });
        EXPECT_EQ(*result, 4);
      });
      outer.join();
    }
    support::expect_idle(inner);
  }
};

// A caller that has left must not count as one that waits: a loader that asks for what it leads would
// be refused although its wait closes no circle.
TEST_P(StopCallback, RunsOnAThreadThatWaitsForNobody) {
  support::try_with_patience([](patience time) {
    group<std::string, int> g({.shards = 1});
    std::exception_ptr told;
    std::atomic<bool> ran{false}, over{false};
    const auto wait_for_the_loader = [&] {
      ran = true;
      support::await([&] { return over || g.stats().waiting == 1; }, "the loader's question");
    };
    const auto ask_for_what_the_leaver_leads = [&](std::stop_token nobody_waits) {
      support::await([&] { return nobody_waits.stop_requested(); }, "the request to stop");
      told = support::thrown_by([&] { (void)g.do_call("outer", [] { return 1; }); });
      over = true;
    };
    leave_inside(g, {.callback = wait_for_the_loader, .load = ask_for_what_the_leaver_leads}, time);
    EXPECT_NE(support::call_error_of(told), circle);
    EXPECT_EQ(g.stats().rejected, 0U);
    return ran.load();
  });
}

// A caller that has left may become a leader, by a queued task that the callback runs. If it counted as
// one that waits as well, the search for circles would find one that does not end.
TEST_P(StopCallback, MayRunAQueuedTaskThatOthersWaitFor) {
  support::try_with_patience([](patience time) {
    group<std::string, int> g({.shards = 1});
    group<long, std::string> another({.shards = 1});
    support::task_queue queue;
    support::threads asking;
    const auto load = [&] {
      asking.start([&] {
        EXPECT_EQ(*another.do_call(
                      5, [&] { return std::to_string(*g.do_call("queued", [] { return 1; })); }),
                  "7");
      });
      support::await_followers(g, 2);
      // That thread waits for this one.
      const auto told = support::thrown_by([&] { (void)another.do_call(5, [] { return ""; }); });
      EXPECT_EQ(support::call_error_of(told), circle);
      return 7;
    };
    const auto queued = g.do_async("queued", queue, load);
    bool ran = false;
    const auto run_it = [&] {
      ran = true;
      queue.run();
    };
    const auto wait_for_it = [&](const std::stop_token&) {
      EXPECT_EQ(*g.do_call("queued", [] { return 1; }), 7);
    };
    leave_inside(g,
                 {.callback = run_it,
                  .callback_of_another_thread = [&] { queue.run(); },
                  .load = wait_for_it,
                  .may_leave = [&] { return g.stats().waiting == 1; }},
                 time);
    asking.join();
    EXPECT_EQ(queued.get(), 7);
    EXPECT_EQ(g.stats().rejected, 0U);
    support::expect_idle(g);
    return ran;
  });
}

const way ways[] = {
    {"ByAFollowerThatIsStopped", &leaver::as_a_follower_that_is_stopped},
    {"ByAFollowerAtItsDeadline", &leaver::as_a_follower_at_its_deadline},
    {"ByAFollowerAtMaxAge", &leaver::as_a_follower_at_max_age},
#if defined(SINGLEFLIGHT_TESTS_THREAD_EXIT_UNWINDS)
    {"ByAFollowerThatIsCancelled", &leaver::as_a_follower_that_is_cancelled},
#endif
    {"ByAFirstCallerThatIsStopped", &leaver::as_the_first_caller},
    {"ByAThreadThatStopsTheLeader", &leaver::by_stopping_the_leader},
};

INSTANTIATE_TEST_SUITE_P(Run, StopCallback, testing::ValuesIn(ways),
                         [](const testing::TestParamInfo<way>& w) { return w.param.name; });

}  // namespace

#endif
