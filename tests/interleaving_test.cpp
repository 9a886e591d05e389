// SPDX-License-Identifier: MIT
// What happens between two critical sections of one thread. The linker wraps the functions that
// lock and unlock a mutex, so that a test can do something there.
#include <gtest/gtest.h>
#include <pthread.h>

#include <atomic>
#include <cstdint>
#include <exception>
#include <functional>
#include <future>
#include <memory>
#include <optional>
#include <singleflight/coroutine.hpp>
#include <singleflight/group.hpp>
#include <thread>
#include <tuple>
#include <utility>
#include <variant>

#include "async_callers.hpp"
#include "executors.hpp"
#include "recorder.hpp"
#include "support.hpp"
#include "tasks.hpp"

#if defined(__cpp_lib_jthread)
#include <stop_token>
#endif

namespace {

/// What this thread does when it has passed a place so many times.
struct step {
  int times = 0;  // 0: nothing any more
  std::function<void()> what;

  void pass() {
    if (times > 0 && --times == 0) what();
  }
};

thread_local step before_lock;
thread_local step after_unlock;

/// Does `action()` on this thread, and `what()` where that passes the place for the n-th time.
/// Returns: whether it has.
template <class Action>
bool interrupt(step& place, int n, std::function<void()> what, const Action& action) {
  place = {n, std::move(what)};
  action();
  return std::exchange(place.times, 0) == 0;
}

}  // namespace

extern "C" int __real_pthread_mutex_lock(pthread_mutex_t*);
extern "C" int __wrap_pthread_mutex_lock(pthread_mutex_t* mutex) {
  before_lock.pass();
  return __real_pthread_mutex_lock(mutex);
}
extern "C" int __real_pthread_mutex_unlock(pthread_mutex_t*);
extern "C" int __wrap_pthread_mutex_unlock(pthread_mutex_t* mutex) {
  const int result = __real_pthread_mutex_unlock(mutex);
  after_unlock.pass();
  return result;
}

namespace {

using namespace support;
using singleflight::leader;
using singleflight::resume_inline;

// --- Waiting for the last call -----------------------------------------------------------------------

frame wait_for_the_last(group& flights, std::function<void()> then) {
  co_await flights.drained();
  then();
}

TEST(Drained, IsNotSuspendedIfTheLastCallEndsWhileItEnters) {
  int n = 0;
  bool came = true;
  while (came) {
    group flights;
    std::optional<leader<int>> lead;
    flights.async_call(1, resume_inline, {}, keep(lead), [](const auto&) {});
    int times = 0;
    frame waits;
    came = interrupt(
        before_lock, ++n, [&] { std::move(*lead).set_value(1); },
        [&] { waits = wait_for_the_last(flights, [&] { ++times; }); });
    EXPECT_EQ(times, came ? 1 : 0) << n;
    if (!came) std::move(*lead).set_value(1);
    EXPECT_EQ(times, 1) << n;
  }
  EXPECT_GT(n, 2) << "it has more than one critical section";
}

// The thread that ends the last call is resuming another one when this one comes to the list.
TEST(Drained, IsNotResumedIfItComesWhenTheLastCallHasEnded) {
  group flights;
  std::optional<leader<int>> lead;
  flights.async_call(1, resume_inline, {}, keep(lead), [](const auto&) {});
  std::promise<void> resumes, goes_on;
  const frame first = wait_for_the_last(flights, [&] {
    resumes.set_value();
    goes_on.get_future().wait();
  });
  std::thread ends;
  const auto finish = [&] {
    goes_on.set_value();
    ends.join();
  };
  const auto end = [&] {
    ends = std::thread([&] { std::move(*lead).set_value(1); });
    resumes.get_future().wait();
    after_unlock = {1, finish};
  };
  int times = 0;
  frame second;
  ASSERT_TRUE(interrupt(before_lock, 2, end,
                        [&] { second = wait_for_the_last(flights, [&] { ++times; }); }));
  EXPECT_EQ(after_unlock.times, 0);
  EXPECT_EQ(times, 1);
}

// --- Starting a loader -------------------------------------------------------------------------------

TEST(Start, MayHaveItsCallEndedAtAnyTimeAfterIt) {
  int n = 0;
  bool came = true;
  while (came) {
    group flights;
    std::optional<leader<int>> lead;
    const auto end = [&] {
      if (auto mine = std::exchange(lead, std::nullopt)) std::move(*mine).set_value(42);
    };
    answers got;
    came = interrupt(before_lock, ++n, end,
                     [&] { flights.async_call(1, resume_inline, {}, keep(lead), got.add()); });
    end();
    ASSERT_EQ(got.size(), 1U) << n;
    EXPECT_EQ(got.value(0), 42) << n;
    expect_idle(flights);
  }
  EXPECT_GT(n, 3) << "there are two critical sections after it";
}

// --- Batches -----------------------------------------------------------------------------------------

// The first task counts its critical sections. The second one waits after its last, by which it lets
// the group go, until that is gone.
TEST(BulkLoaderOnExecutor, IsDestroyedBeforeItsGroupCanGo) {
  int last = 1'000'000;
  for (int task = 0; task < 2; ++task) {
    auto flights = std::make_unique<group>();
    std::atomic<bool> group_is_gone = false;
    bool outlives = false;
    std::shared_ptr<void> captured(nullptr, [&](void*) { outlives = group_is_gone; });
    task_queue queue;
    threads caller;
    caller.start([&, own = std::exchange(captured, nullptr)]() mutable {
      std::ignore = flights->do_many_on(
          {1, 2}, std::ref(queue), {}, [keep = std::move(own)](auto& missing) { missing.rest(1); });
    });
    await([&] { return queue.size() == 1; }, "the task");
    auto tasks = queue.take();
    threads runs;
    runs.start([&] {
      after_unlock = {last, [&] { await([&] { return group_is_gone.load(); }, "the end"); }};
      tasks[0]();
      last -= after_unlock.times;
    });
    caller.join();
    flights.reset();
    group_is_gone = true;
    runs.join();
    EXPECT_FALSE(outlives);
  }
}

#if defined(__cpp_lib_jthread)

// Nobody wants key 1, and key 2, which others want, is settled while the loader asks for its token.
TEST(BatchsToken, IsToldThatTheLastWantedKeyIsSettledWhileItIsMade) {
  int n = 0;
  bool came = true;
  while (came) {
    group flights;
    std::stop_source stop;
    std::ignore = flights.do_many(
        {1, 2}, {.call = {.stop = stop.get_token()}},
        [&](auto& missing, const singleflight::call_context& context) {
          flights.async_call(2, resume_inline, {}, never, [](const auto&) {});
          stop.request_stop();
          std::stop_token told;
          came = interrupt(
              after_unlock, ++n, [&] { missing.set(2, 20); }, [&] { told = context.stop_token(); });
          EXPECT_EQ(told.stop_requested(), came) << n;
        });
  }
  EXPECT_GT(n, 2) << "it has more than one critical section";
}

// --- Stop requests ---------------------------------------------------------------------------------

// The stop request has come to a caller that waits, and is about to take it out of the list of its
// call, when the executor of the caller resumes it to try again. ThreadSanitizer sees a caller that
// does not wait for the request.
TEST(StoppedFollower, TriesAgainWhenTheStopRequestIsDoneWithItsFirstCall) {
  group flights;
  auto fails = std::get<leader<int>>(flights.lead_or_follow(1));
  std::stop_source stop;
  task_queue queue;
  std::optional<leader<int>> second;
  answers got;
  flights.async_call(1, std::ref(queue), {.stop = stop.get_token(), .attempts = 2}, keep(second),
                     got.add());
  std::atomic<bool> leaves = false;
  std::move(fails).set_exception(std::make_exception_ptr(42));
  threads stopper;
  stopper.start([&] {
    const auto let_it_go_on = [&] {
      leaves.store(true, std::memory_order_relaxed);
      for (int i = 0; i < 100; ++i) std::this_thread::yield();
    };
    EXPECT_TRUE(interrupt(before_lock, 1, let_it_go_on, [&] { stop.request_stop(); }));
  });
  while (!leaves.load(std::memory_order_relaxed)) std::this_thread::yield();
  queue.run();
  stopper.join();
  queue.run();
  ASSERT_EQ(got.size(), 1U);
  EXPECT_EQ(got.code(0), std::errc::operation_canceled);
  EXPECT_FALSE(second.has_value());
  expect_idle(flights);
}

// The stop request has come while the loader is started, and is about to settle the accounts.
TEST(StoppedCallback, IsToldToHaveLeftWhenItHasLeft) {
  const recorder told;
  watched g({}, {}, {}, told);
  std::atomic<bool> starts = false, leaves = false, left = false;
  std::uint64_t cancelled = 0;
  told.to->then([&] {
    if (left || told.to->count("left") == 0) return;
    cancelled = g.stats().cancelled;
    left = true;
  });
  std::stop_source stop;
  threads stopper;
  stopper.start([&] {
    await([&] { return starts.load(); }, "the loader to be started");
    const auto let_it_go_on = [&] {
      leaves = true;
      for (int i = 0; i < 1000 && !left; ++i) std::this_thread::yield();
    };
    EXPECT_TRUE(interrupt(before_lock, 1, let_it_go_on, [&] { stop.request_stop(); }));
  });
  std::optional<leader<int>> lead;
  g.async_call(
      1, resume_inline, {.stop = stop.get_token()},
      [&](leader<int> mine) {
        lead.emplace(std::move(mine));
        starts = true;
        await([&] { return leaves.load(); }, "the stop request");
      },
      [](const auto&) {});
  stopper.join();
  EXPECT_TRUE(left);
  EXPECT_EQ(cancelled, 1U);
  lead.reset();
}

#endif

}  // namespace
