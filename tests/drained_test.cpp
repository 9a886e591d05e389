// SPDX-License-Identifier: MIT
// The end of a group with asynchronous calls in flight: its destructor waits for none of them, `drained`
// does.
#include <gtest/gtest.h>

#include <atomic>
#include <functional>
#include <memory>
#include <optional>
#include <singleflight/coroutine.hpp>
#include <singleflight/group.hpp>
#include <string>
#include <thread>
#include <tuple>
#include <utility>
#include <vector>

#include "async_callers.hpp"
#include "executors.hpp"
#include "support.hpp"
#include "tasks.hpp"

namespace {

using namespace support;
using singleflight::leader;
using singleflight::outcome;
using singleflight::resume_inline;

frame wait_for_the_last(group& flights, int& times) {
  co_await flights.drained();
  ++times;
}

TEST(Drained, IsReadyWhereNoAsynchronousCallIsInFlight) {
  group flights;
  int times = 0;
  const frame done = wait_for_the_last(flights, times);
  EXPECT_EQ(times, 1);
  flights.wait_drained();
}

TEST(Drained, ResumesWhenTheLastCallHasEnded) {
  group flights;
  std::vector<std::optional<leader<int>>> leads(3);
  for (std::size_t i = 0; i < 3; ++i) {
    flights.async_call(static_cast<int>(i), resume_inline, {}, keep(leads[i]), [](const auto&) {});
  }
  int times = 0;
  const frame one = wait_for_the_last(flights, times);
  const frame two = wait_for_the_last(flights, times);
  std::move(*leads[1]).set_value(1);
  leads[0].reset();
  EXPECT_EQ(times, 0);
  std::move(*leads[2]).set_value(1);
  EXPECT_EQ(times, 2);
}

// A thread's call does not count, nor one on an executor.
TEST(Drained, LooksAtAsynchronousCallsAlone) {
  group flights;
  task_queue pool;
  const auto future = flights.do_async(1, std::ref(pool), [] { return 1; });
  std::ignore = flights.do_call(2, [&] {
    int times = 0;
    const frame done = wait_for_the_last(flights, times);
    EXPECT_EQ(times, 1);
    flights.wait_drained();
    return 2;
  });
  const auto look = [&](const auto& task) {
    int times = 0;
    const frame done = wait_for_the_last(flights, times);
    EXPECT_EQ(times, 1);
    task();
  };
  std::ignore = flights.do_many_on({3, 4}, look, {}, [](auto& missing) { missing.rest(3); });
  pool.run();
}

// After all others that waited for it.
TEST(Drained, ResumesAfterTheCallersOfTheLastCall) {
  group flights;
  std::optional<leader<int>> lead;
  std::vector<std::string> order;
  flights.async_call(1, resume_inline, {}, keep(lead),
                     [&](const outcome<int>&) { order.emplace_back("leader"); });
  flights.async_call(1, resume_inline, {}, never,
                     [&](const outcome<int>&) { order.emplace_back("follower"); });
  const frame waits = [](group& g, std::vector<std::string>& said) -> frame {
    co_await g.drained();
    said.emplace_back("drained");
  }(flights, order);
  std::move(*lead).set_value(1);
  EXPECT_EQ(order, (std::vector<std::string>{"leader", "follower", "drained"}));
}

// A caller that is resumed begins the next call: it was never drained.
TEST(Drained, GoesOnWaitingWhileACallerBeginsTheNextCall) {
  group flights;
  std::optional<leader<int>> first;
  std::optional<leader<int>> second;
  flights.async_call(1, resume_inline, {}, keep(first), [&](const outcome<int>&) {
    flights.async_call(1, resume_inline, {}, keep(second), [](const auto&) {});
  });
  int times = 0;
  const frame waits = wait_for_the_last(flights, times);
  std::move(*first).set_value(1);
  EXPECT_EQ(times, 0);
  std::move(*second).set_value(1);
  EXPECT_EQ(times, 1);
}

// Nothing of the last call is left but its result.
TEST(Drained, ResumesWhenTheKeyOfTheLastCallIsDestroyed) {
  singleflight::group<std::shared_ptr<int>, int> flights;
  std::optional<leader<int>> lead;
  auto key = std::make_shared<int>(1);
  const std::weak_ptr<int> left = key;
  flights.async_call(std::move(key), resume_inline, {}, keep(lead), [](const auto&) {});
  std::optional<bool> gone;
  const frame waits = [](auto& g, const std::weak_ptr<int>& of, std::optional<bool>& out) -> frame {
    co_await g.drained();
    out = of.expired();
  }(flights, left, gone);
  EXPECT_FALSE(left.expired());
  std::move(*lead).set_value(1);
  EXPECT_EQ(gone, true);
}

// The last call ends while a coroutine begins to wait: it goes on or is resumed, once.
TEST(Drained, IsNoticedByWhoBeginsToWaitWhileTheLastCallEnds) {
  for (int round = 0; round < 300; ++round) {
    group flights;
    std::optional<leader<int>> lead;
    flights.async_call(1, resume_inline, {}, keep(lead), [](const auto&) {});
    std::atomic<bool> go = false;
    threads other;
    other.start([&] {
      while (!go) std::this_thread::yield();
      std::move(*lead).set_value(1);
    });
    int times = 0;
    go = true;
    const frame waits = wait_for_the_last(flights, times);
    other.join();
    ASSERT_EQ(times, 1);
  }
}

TEST(Drained, LeavesNothingToTheCallsThatComeLater) {
  group flights;
  int times = 0;
  for (int round = 1; round <= 2; ++round) {
    std::optional<leader<int>> lead;
    flights.async_call(1, resume_inline, {}, keep(lead), [](const auto&) {});
    const frame waits = wait_for_the_last(flights, times);
    std::move(*lead).set_value(1);
    EXPECT_EQ(times, round);
    flights.async_call(1, resume_inline, {}, keep(lead), [](const auto&) {});
    std::move(*lead).set_value(1);
    EXPECT_EQ(times, round);
  }
}

TEST(Drained, MayDestroyTheGroup) {
  std::optional<group> flights(std::in_place);
  std::optional<leader<int>> lead;
  flights->async_call(1, resume_inline, {}, keep(lead), [](const auto&) {});
  const frame waits = [](std::optional<group>& g) -> frame {
    co_await g->drained();
    g.reset();
  }(flights);
  std::move(*lead).set_value(1);
  EXPECT_FALSE(flights.has_value());
}

TEST(Drained, MayBeAbandonedByItsFrame) {
  group flights;
  std::optional<leader<int>> lead;
  flights.async_call(1, resume_inline, {}, keep(lead), [](const auto&) {});
  int times = 0;
  frame waits = wait_for_the_last(flights, times);
  const frame other = wait_for_the_last(flights, times);
  waits.destroy();
  std::move(*lead).set_value(1);
  EXPECT_EQ(times, 1);
}

TEST(WaitDrained, BlocksUntilTheLastCallHasEnded) {
  group flights;
  std::optional<leader<int>> lead;
  flights.async_call(1, resume_inline, {}, keep(lead), [](const auto&) {});
  std::atomic<bool> ended = false;
  threads other;
  other.start([&] {
    flights.wait_drained();
    EXPECT_TRUE(ended);
  });
  ended = true;
  std::move(*lead).set_value(1);
  other.join();
}

TEST(WaitDrained, ReturnsForEachOfManyCallsWhoeverEndsThem) {
  for (int round = 0; round < 200; ++round) {
    group flights;
    threads enders;
    for (int i = 0; i < 2; ++i) {
      std::optional<leader<int>> lead;
      flights.async_call(i, resume_inline, {}, keep(lead), [](const auto&) {});
      enders.start([l = std::move(*lead)]() mutable { std::move(l).set_value(1); });
    }
    flights.wait_drained();
    EXPECT_EQ(flights.stats().in_flight, 0U);
  }
}

// --- The destructor ----------------------------------------------------------------------------------

// On the one thread that would end the calls: it must not wait.
TEST(GroupsDestructor, WaitsForNoAsynchronousCall) {
  std::optional<group> flights(std::in_place);
  task_queue queue;
  std::optional<leader<int>> lead;
  seen inlined;
  seen bound;
  seen coroutine;
  flights->async_call(1, resume_inline, {}, keep(lead), std::ref(inlined));
  flights->async_call(1, std::ref(queue), {}, never, std::ref(bound));
  const frame waits = ask(*flights, 1, resume_inline, {}, coroutine);
  flights.reset();
  std::move(*lead).set_value(4);
  EXPECT_EQ(inlined.value(), 4);
  EXPECT_EQ(coroutine.value(), 4);
  queue.run();
  EXPECT_EQ(bound.value(), 4);
}

// In the callback of its own last call.
TEST(GroupsDestructor, MayRunInsideACallerThatIsResumed) {
  auto flights = std::make_unique<group>();
  std::optional<leader<int>> lead;
  seen second;
  flights->async_call(1, resume_inline, {}, keep(lead),
                      [&](const outcome<int>&) { flights.reset(); });
  flights->async_call(1, resume_inline, {}, never, std::ref(second));
  std::move(*lead).set_value(4);
  EXPECT_EQ(second.value(), 4);
}

TEST(GroupsDestructor, LeavesFramesToBeDestroyedLater) {
  std::optional<group> flights(std::in_place);
  held_loader load;
  seen first;
  seen second;
  frame began = ask_leading(*flights, 1, resume_inline, {}, first, load);
  frame joined = ask(*flights, 1, resume_inline, {}, second);
  flights.reset();
  joined.destroy();
  began.destroy();
#if defined(__cpp_lib_jthread)
  EXPECT_TRUE(load.told.stop_requested());
#endif
  load.end.open(1);
  EXPECT_FALSE(first.came());
}

#if defined(__cpp_lib_jthread)
TEST(GroupsDestructor, LeavesCallersThatCanBeStopped) {
  std::optional<group> flights(std::in_place);
  std::stop_source stop;
  std::optional<leader<int>> lead;
  seen first;
  flights->async_call(1, resume_inline, {.stop = stop.get_token()}, keep(lead), std::ref(first));
  flights.reset();
  stop.request_stop();
  EXPECT_EQ(first.code(), std::errc::operation_canceled);
  EXPECT_TRUE(lead->stop_token().stop_requested());
  EXPECT_FALSE(lead->forgotten());
}
#endif

// A key with its own buffer lives as long as its call does.
TEST(GroupsDestructor, LeavesTheKeysOfItsCalls) {
  std::optional<singleflight::group<std::string, int>> flights(std::in_place);
  gate<int> opens;
  std::string said;
  const std::string long_key(100, 'k');
  const frame waits = [](auto& g, gate<int>& until, const std::string& key,
                         std::string& out) -> frame {
    auto load = [&until, &out](const std::string& k) -> lazy_task<int> {
      co_await until;
      out = k;
      co_return 1;
    };
    std::ignore = co_await g.co_call(key, resume_inline, load);
  }(*flights, opens, long_key, said);
  flights.reset();
  opens.open(1);
  EXPECT_EQ(said, long_key);
}

}  // namespace
