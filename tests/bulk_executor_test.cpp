// SPDX-License-Identifier: MIT
// `do_many_on`: the loader runs on an executor, and every caller can leave.
#include <gtest/gtest.h>

#include <atomic>
#include <chrono>
#include <cstddef>
#include <exception>
#include <functional>
#include <future>
#include <memory>
#include <optional>
#include <singleflight/group.hpp>
#include <stdexcept>
#include <system_error>
#include <thread>
#include <tuple>
#include <utility>
#include <vector>

#include "executors.hpp"
#include "support.hpp"

#if defined(__cpp_lib_jthread)
#include <stop_token>
#endif

namespace {

using namespace std::chrono_literals;
using singleflight::call_context;
using singleflight::outcome;
using group = singleflight::group<int, int>;

constexpr auto tenfold = [](auto& missing) {
  for (const int key : missing) missing.set(key, 10 * key);
};

/// Runs each task on a thread of its own, which it joins at the end.
struct threads_executor {
  support::threads threads;
  template <class Task>
  void operator()(Task task) {
    threads.start(std::move(task));
  }
};

constexpr auto at_once = [](const auto& task) { task(); };

TEST(BulkOnExecutor, GivesEachPositionItsValue) {
  group flights;
  threads_executor elsewhere;
  std::thread::id ran;
  const auto rows = flights.do_many_on({3, 1, 3}, elsewhere, {}, [&](auto& missing) {
    ran = std::this_thread::get_id();
    EXPECT_EQ(missing.size(), 2U);
    EXPECT_EQ(missing[0], 3);
    tenfold(missing);
  });
  elsewhere.threads.join();
  EXPECT_NE(ran, std::this_thread::get_id());
  EXPECT_EQ(rows[0].value(), 30);
  EXPECT_EQ(rows[1].value(), 10);
  EXPECT_EQ(&rows[0].value(), &rows[2].value());
  EXPECT_EQ(flights.stats().led, 2U);
  EXPECT_EQ(flights.stats().batches, 1U);
  support::expect_idle(flights);
}

TEST(BulkOnExecutor, WorksOnAnExecutorThatRunsItsTasksAtOnce) {
  group flights;
  const auto rows = flights.do_many_on({1, 2}, at_once, {}, [](auto& missing) {
    missing.set(2, 5);
    return std::vector<std::pair<int, int>>{{1, 4}, {2, 6}};
  });
  EXPECT_EQ(rows[0].value(), 4);
  EXPECT_EQ(rows[1].value(), 5);
}

TEST(BulkOnExecutor, RunsOneBatchAfterTheOther) {
  group flights;
  threads_executor elsewhere;
  std::vector<std::size_t> sizes;
  const auto rows =
      flights.do_many_on({1, 2, 3, 4, 5}, elsewhere, {.max_batch = 2}, [&](auto& missing) {
        sizes.push_back(missing.size());
        for (int i = 0; i < 100; ++i) std::this_thread::yield();
        EXPECT_EQ(flights.stats().in_flight, missing.size()) << "the next one waits";
        missing.rest(7);
      });
  elsewhere.threads.join();
  EXPECT_EQ(sizes, (std::vector<std::size_t>{2, 2, 1}));
  for (const auto& row : rows) EXPECT_EQ(row.value(), 7);
  EXPECT_EQ(flights.stats().batches, 3U);
}

TEST(BulkOnExecutor, FailsWhatTheLoaderHasNotSettled) {
  group flights;
  const auto quiet =
      flights.do_many_on({1, 2}, at_once, {}, [](auto& missing) { missing.set(1, 1); });
  EXPECT_EQ(quiet[0].value(), 1);
  EXPECT_EQ(support::call_error_of(quiet[1].error()), std::errc::no_such_file_or_directory);
  const auto thrown = flights.do_many_on({1, 2}, at_once, {}, [](auto& missing) {
    missing.fail(2, std::make_exception_ptr(std::logic_error("bad key")));
    throw std::runtime_error("connection reset");
  });
  EXPECT_THROW(thrown[0].value(), std::runtime_error);
  EXPECT_THROW(thrown[1].value(), std::logic_error);
  support::expect_idle(flights);
}

TEST(BulkOnExecutor, FailsIfTheExecutorThrowsOrDropsTheTask) {
  group flights;
  const auto full = [](const auto&) { throw std::runtime_error("the queue is full"); };
  const auto refused = flights.do_many_on({1, 2}, full, {}, tenfold);
  EXPECT_THROW(refused[0].value(), std::runtime_error);
  support::expect_same(refused[0].error(), refused[1].error());
  const auto drops = [](const auto&) {};
  EXPECT_EQ(support::call_error_of(flights.do_many_on({1}, drops, {}, tenfold)[0].error()),
            std::errc::owner_dead);
  std::function<void()> kept;
  const auto twice = [&](auto task) {
    task();
    kept = task;
    kept();
  };
  EXPECT_EQ(flights.do_many_on({1}, twice, {}, tenfold)[0].value(), 10);
  kept();
  support::expect_idle(flights);
}

TEST(BulkOnExecutor, LetsEveryCallerLeave) {
  group flights;
  std::promise<void> go;
  threads_executor elsewhere;
  const auto rows =
      flights.do_many_on({1, 2}, elsewhere, {.call = {.timeout = 20ms}}, [&](auto& missing) {
        missing.set(1, 10);
        go.get_future().wait();
        EXPECT_FALSE(missing.wanted(1));
        EXPECT_EQ(missing[1], 2) << "the batch has its keys";
        EXPECT_TRUE(missing.set(2, 20)) << "by hash and equality";
      });
  EXPECT_EQ(support::call_error_of(rows[1].error()), std::errc::timed_out);
  EXPECT_TRUE(rows[0].has_value() ||
              support::call_error_of(rows[0].error()) == std::errc::timed_out);
  go.set_value();
  elsewhere.threads.join();
  support::expect_idle(flights);
}

#if defined(__cpp_lib_jthread)
// The thread that has queued a batch and left it may wait for it as any other.
TEST(BulkOnExecutor, IsLedByNoThreadWhileItIsQueued) {
  group flights;
  support::task_queue queue;
  std::stop_source stop;
  std::atomic<bool> over = false;
  support::threads others;
  others.start([&] {
    support::await([&] { return queue.size() == 1; }, "the task");
    EXPECT_EQ(*flights.do_call(1, [] { return 0; }), 10);
  });
  others.start([&] {
    support::await_followers(flights, 2);
    stop.request_stop();
    support::await([&] { return flights.stats().joined == 2 || over; }, "the next caller");
    queue.run();
  });
  const auto rows =
      flights.do_many_on({1}, std::ref(queue), {.call = {.stop = stop.get_token()}}, tenfold);
  EXPECT_EQ(support::call_error_of(rows[0].error()), std::errc::operation_canceled);
  const auto refused =
      support::thrown_by([&] { EXPECT_EQ(*flights.do_call(1, [] { return 0; }), 10); });
  over = true;
  EXPECT_EQ(support::text_of(refused), "");
}

TEST(BulkOnExecutor, DoesNotLoadWhatNobodyWantsAnyMore) {
  group flights;
  std::vector<std::function<void()>> tasks;
  std::stop_source all;
  const auto queue = [&](auto task) {
    tasks.emplace_back(std::move(task));
    all.request_stop();
  };
  const auto rows = flights.do_many_on({1, 2}, queue, {.call = {.stop = all.get_token()}},
                                       [](auto&) { FAIL() << "nobody wants it"; });
  EXPECT_EQ(support::call_error_of(rows[0].error()), std::errc::operation_canceled);
  tasks[0]();
  support::expect_idle(flights);

  // Of three keys one has a follower who stays.
  tasks.clear();
  std::stop_source one;
  std::thread follower;
  std::vector<int> loaded;
  const auto queue_joined = [&](auto task) {
    tasks.emplace_back(std::move(task));
    follower = std::thread([&] { EXPECT_EQ(*flights.do_call(2, [] { return 0; }), 20); });
    support::await([&] { return flights.stats().joined == 1; }, "the follower");
    one.request_stop();
  };
  std::ignore = flights.do_many_on({1, 2, 3}, queue_joined, {.call = {.stop = one.get_token()}},
                                   [&](auto& missing) {
                                     loaded.assign(missing.begin(), missing.end());
                                     EXPECT_FALSE(missing.set(1, 5)) << "not in the batch";
                                     tenfold(missing);
                                   });
  tasks[0]();
  follower.join();
  EXPECT_EQ(loaded, std::vector{2});
  support::expect_idle(flights);
}
#endif

TEST(BulkOnExecutor, JoinsTheCallsOfOthersAndIsJoined) {
  group flights;
  threads_executor elsewhere;
  std::thread other;
  const auto rows = flights.do_many_on({1, 2}, elsewhere, {}, [&](auto& missing) {
    other = std::thread([&] {
      const auto theirs = flights.do_many({2, 3, 1}, tenfold);
      for (const auto& row : theirs) EXPECT_TRUE(row.has_value());
    });
    support::await([&] { return flights.stats().joined == 2; }, "the other bulk");
    tenfold(missing);
  });
  elsewhere.threads.join();
  other.join();
  EXPECT_EQ(rows[1].value(), 20);
  support::expect_idle(flights);
}

// While the executor has the task nobody leads its calls; then the thread that runs it does.
TEST(BulkOnExecutor, IsSeenInCircles) {
  group flights;
  const auto rows = flights.do_many_on({1, 2}, at_once, {}, [&](auto& missing) {
    const auto inner = flights.do_many({2, 3}, tenfold);
    EXPECT_EQ(support::call_error_of(inner[0].error()), std::errc::resource_deadlock_would_occur);
    EXPECT_EQ(inner[1].value(), 30);
    tenfold(missing);
  });
  EXPECT_EQ(rows[1].value(), 20);
}

#if defined(__cpp_lib_jthread)
TEST(BulkOnExecutor, IsToldToStopWhenAllHaveLeft) {
  group flights;
  std::stop_source caller;
  threads_executor elsewhere;
  const auto rows = flights.do_many_on({1, 2}, elsewhere, {.call = {.stop = caller.get_token()}},
                                       [&](auto& missing, const call_context& context) {
                                         const std::stop_token told = context.stop_token();
                                         EXPECT_FALSE(told.stop_requested());
                                         caller.request_stop();
                                         support::await([&] { return told.stop_requested(); },
                                                        "the loader to be stopped");
                                         EXPECT_FALSE(context.forgotten());
                                         missing.rest(1);
                                       });
  elsewhere.threads.join();
  EXPECT_EQ(support::call_error_of(rows[0].error()), std::errc::operation_canceled);
  EXPECT_EQ(flights.stats().cancelled, 2U);
}
#endif

#if defined(__cpp_lib_jthread)
// The last wanted key is settled. Who waited for it has been told by then.
TEST(BulkOnExecutor, StopsTheLoaderWhenTheLastWantedKeyIsSettled) {
  for (const bool with_value : {true, false}) {
    group flights;
    std::stop_source caller;
    threads_executor elsewhere;
    std::atomic<bool> has_left = false;
    const auto load = [&](auto& missing, const call_context& context) {
      std::atomic<bool> answered = false, told = false;
      flights.async_call(
          1, singleflight::resume_inline, {}, [](const auto&) { FAIL(); },
          [&](const auto&) { answered = true; });
      const std::stop_token asked = context.stop_token();
      const std::stop_callback stopped(asked, [&] { told = answered.load(); });
      caller.request_stop();
      support::await([&] { return has_left.load(); }, "the caller to leave");
      EXPECT_FALSE(missing.wanted(1));
      EXPECT_FALSE(asked.stop_requested());
      with_value ? missing.set(1, 10) : missing.fail(1, std::make_exception_ptr(1));
      EXPECT_TRUE(asked.stop_requested());
      EXPECT_TRUE(told);
    };
    std::ignore =
        flights.do_many_on({1, 2}, elsewhere, {.call = {.stop = caller.get_token()}}, load);
    has_left = true;
    elsewhere.threads.join();
    support::expect_idle(flights);
  }
}
#endif

// Nobody leads its calls while they are queued, not even the caller that waits for them.
TEST(BulkOnExecutor, MayBeUsedInsideALoader) {
  group flights;
  threads_executor elsewhere;
  const auto sum = flights.do_call(9, [&] {
    const auto rows = flights.do_many_on({1, 2}, elsewhere, {}, tenfold);
    return rows[0].value() + rows[1].value();
  });
  elsewhere.threads.join();
  EXPECT_EQ(*sum, 30);
}

TEST(BulkOnExecutor, ShowsTheKeysInTheOrderOfTheCaller) {
  group flights;
  std::vector<int> ids;
  for (int i = 0; i < 100; ++i) ids.push_back((i * 37) % 100);
  std::vector<int> seen;
  std::ignore = flights.do_many_on(ids, at_once, {}, [&](auto& missing) {
    seen.assign(missing.begin(), missing.end());
    tenfold(missing);
  });
  EXPECT_EQ(seen, ids);
}

// A batch may get the address of an earlier one, but not its keys.
TEST(BulkOnExecutor, DoesNotHaveTheKeysOfEarlierBatches) {
  group flights;
  std::vector<int> before;
  const auto rows = flights.do_many_on({1, 2, 3}, at_once, {.max_batch = 1}, [&](auto& missing) {
    for (const int key : before) EXPECT_FALSE(missing.set(key, 5));
    before.push_back(missing[0]);
    tenfold(missing);
  });
  EXPECT_EQ(before.size(), 3U);
  EXPECT_EQ(rows[2].value(), 30);
}

TEST(BulkOnExecutor, IsNotToldOfKeysThatWereForgottenBefore) {
  group flights({.shards = 1});
  flights.forget(1);
  std::ignore =
      flights.do_many_on({1}, at_once, {}, [&](auto& missing, const call_context& context) {
        EXPECT_FALSE(missing.forgotten(0) || context.forgotten());
        flights.forget(1);
        EXPECT_TRUE(missing.forgotten(0) && context.forgotten());
        tenfold(missing);
      });
}

TEST(BulkOnExecutor, DoesNotUseItsExecutorIfAllKeysAreJoined) {
  group flights;
  std::thread bulk;
  std::ignore = flights.do_call(1, [&] {
    bulk = std::thread([&] {
      const auto rows = flights.do_many_on(
          {1}, [](const auto&) { FAIL(); }, {}, [](auto&) { FAIL(); });
      EXPECT_EQ(rows[0].value(), 7);
    });
    support::await_followers(flights, 1);
    return 7;
  });
  bulk.join();
  EXPECT_EQ(flights.stats().batches, 0U);
}

// --- Executors and loaders that fail ---------------------------------------------------------------

struct refused : std::runtime_error {
  refused() : std::runtime_error("refused") {}
};

TEST(BulkOnExecutorThatThrows, FailsThoughItHasQueuedTheTask) {
  group flights;
  std::function<void()> queued;
  const auto queue = [&](const auto& task) {
    queued = task;
    throw refused();
  };
  const auto rows = flights.do_many_on({1, 2}, queue, {}, [](auto&) { FAIL(); });
  for (const auto& row : rows) EXPECT_THROW(row.value(), refused);
  queued();
  EXPECT_EQ(flights.stats().failed, 2U);
  support::expect_idle(flights);
}

TEST(BulkOnExecutorThatThrows, HasItsValuesIfItHasRunTheTask) {
  group flights;
  const auto runs = [](const auto& task) {
    task();
    throw refused();
  };
  const auto rows = flights.do_many_on({1, 2}, runs, {}, tenfold);
  EXPECT_EQ(rows[1].value(), 20);
  EXPECT_EQ(flights.stats().failed, 0U);
}

TEST(BulkOnExecutorThatThrows, HasItsValuesIfTheTaskRunsElsewhere) {
  group flights;
  threads_executor elsewhere;
  std::promise<void> begun, thrown;
  const auto runs = [&](const auto& task) {
    elsewhere(task);
    begun.get_future().wait();
    throw refused();
  };
  support::threads goes_on;
  goes_on.start([&] {
    support::await_followers(flights, 2);  // the executor has thrown, and the caller waits
    thrown.set_value();
  });
  const auto rows = flights.do_many_on({1, 2}, runs, {}, [&](auto& missing) {
    begun.set_value();
    thrown.get_future().wait();
    tenfold(missing);
  });
  elsewhere.threads.join();
  EXPECT_EQ(rows[0].value(), 10);
  EXPECT_EQ(rows[1].value(), 20);
  support::expect_idle(flights);
}

TEST(BulkOnExecutorThatDropsTheTask, FailsWhereverItIsDropped) {
  group flights;
  support::task_queue queue;
  support::threads drops;
  drops.start([&] {
    support::await([&] { return queue.size() == 1; }, "the task");
    queue.drop();
  });
  const auto rows = flights.do_many_on({1, 2}, std::ref(queue), {}, tenfold);
  drops.join();  // it has seen their exception
  const auto single = flights.do_async(
      3, [](const auto&) {}, [] { return 0; });
  const auto dropped = support::thrown_by([&] { std::ignore = single.get(); });
  for (const auto& row : rows) {
    EXPECT_EQ(support::call_error_of(row.error()), std::errc::owner_dead);
    EXPECT_EQ(support::text_of(row.error()), support::text_of(dropped));
  }
  support::expect_idle(flights);
}

TEST(BulkLoaderOnExecutor, FailsAllKeysIfItCannotBeCopied) {
  struct loader {
    loader() = default;
    loader(const loader&) { throw refused(); }
    loader& operator=(const loader&) = delete;
    ~loader() = default;
    void operator()(singleflight::batch<int, int>&) const { FAIL(); }
  };
  group flights;
  const auto rows = flights.do_many_on(
      {1, 2}, [](const auto&) { FAIL(); }, {}, loader());
  for (const auto& row : rows) EXPECT_THROW(row.value(), refused);
  support::expect_idle(flights);
}

/// Cannot be moved, or copied, if it is told so.
struct fragile {
  enum class fault { none, move, copy };
  explicit fragile(fault f) : what(f) {}
  fragile(const fragile& other) : what(other.what) { check(fault::copy); }
  fragile(fragile&& other) : what(other.what) { check(fault::move); }
  fragile& operator=(const fragile&) = default;
  fragile& operator=(fragile&&) = default;
  ~fragile() = default;
  void check(fault f) const {
    if (what == f) throw refused();
  }
  fault what;
};

#if !defined(SINGLEFLIGHT_TESTS_CALL_ONCE_HANGS)
// What comes of one key is no matter of the others, nor of the loader.
TEST(BulkLoaderOnExecutor, FailsAKeyWhoseValueCannotBeMoved) {
  singleflight::group<int, fragile> flights;
  const auto rows = flights.do_many_on({1, 2, 3}, at_once, {}, [](auto& missing) {
    const fragile value(fragile::fault::move);
    EXPECT_NO_THROW(missing.set_at(1, value));
    EXPECT_FALSE(missing.wanted(1));
    missing.rest(fragile(fragile::fault::none));
  });
  EXPECT_TRUE(rows[0].has_value());
  EXPECT_THROW(rows[1].value(), refused);
  EXPECT_TRUE(rows[2].has_value());
  EXPECT_EQ(flights.stats().failed, 1U);
  support::expect_idle(flights);
}
#endif

TEST(BulkLoaderOnExecutor, FailsTheKeysWhoseValueCannotBeCopied) {
  singleflight::group<int, fragile> flights;
  const auto rows = flights.do_many_on({1, 2, 3}, at_once, {}, [](auto& missing) {
    missing.set_at(1, fragile(fragile::fault::none));
    const fragile value(fragile::fault::copy);
    EXPECT_NO_THROW(missing.rest(value));
    EXPECT_FALSE(missing.wanted(0) || missing.wanted(2));
  });
  EXPECT_THROW(rows[0].value(), refused);
  EXPECT_TRUE(rows[1].has_value());
  EXPECT_THROW(rows[2].value(), refused);
  EXPECT_EQ(flights.stats().failed, 2U);
  support::expect_idle(flights);
}

// A key that is settled costs no copy.
TEST(BulkLoaderOnExecutor, CopiesTheRestForOpenKeysAlone) {
  struct counted {
    explicit counted(int* n) : copies(n) {}
    counted(const counted& other) : copies(other.copies) { ++*copies; }
    counted(counted&&) noexcept = default;
    counted& operator=(const counted&) = default;
    counted& operator=(counted&&) noexcept = default;
    ~counted() = default;
    int* copies;
  };
  singleflight::group<int, counted> flights;
  int copies = 0;
  std::ignore = flights.do_many_on({1, 2, 3}, at_once, {}, [&](auto& missing) {
    missing.set(2, counted(&copies));
    EXPECT_EQ(copies, 0);
    missing.rest(counted(&copies));
    EXPECT_EQ(copies, 2);
  });
}

// --- Lifetimes -------------------------------------------------------------------------------------

/// Tells when it is destroyed.
struct part {
  explicit part(std::function<void()> at_end) : end(std::move(at_end)) {}
  part(const part&) = delete;
  part& operator=(const part&) = delete;
  ~part() { end(); }
  std::function<void()> end;
};

// Whoever still has the task then, and though the group may go as soon as it is.
TEST(BulkLoaderOnExecutor, IsDestroyedWhenItHasRunAndBeforeItsGroup) {
  enum class fate { run, throw_, drop };
  for (const fate f : {fate::run, fate::throw_, fate::drop}) {
    auto flights = std::make_unique<group>();
    std::atomic<bool> ends = false, gone = false, destroyed = false;
    support::task_queue queue;
    support::threads caller;
    auto captured = std::make_shared<part>([&] {
      ends = true;
      for (int i = 0; i < 100; ++i) std::this_thread::yield();
      EXPECT_FALSE(destroyed);
      gone = true;
    });
    caller.start([&, captured = std::exchange(captured, nullptr)]() mutable {
      std::ignore = flights->do_many_on({1, 2}, std::ref(queue), {},
                                        [f, keep = std::move(captured)](auto& missing) {
                                          missing.rest(1);
                                          if (f == fate::throw_) throw refused();
                                        });
    });
    support::await([&] { return queue.size() == 1; }, "the task");
    auto tasks = queue.take();  // which outlive the group
    support::threads runs;
    runs.start([&] { f == fate::drop ? tasks.clear() : tasks[0](); });
    caller.join();
    support::await([&] { return ends.load(); }, "the loader to be destroyed");
    flights.reset();
    destroyed = true;
    EXPECT_TRUE(gone);
    runs.join();
    tasks.clear();
  }
}

// The thread that has queued the batch has given it away: another one can end it.
TEST(BulkOnExecutor, IsWaitedForByTheDestructorOnTheThreadThatHasQueuedIt) {
  support::task_queue queue;
  std::atomic<bool> begun = false, destroyed = false;
  std::shared_future<int> joined;
  auto flights = std::make_unique<group>();
  const auto queue_joined = [&](auto task) {
    queue(std::move(task));
    joined = flights->do_async(1, at_once, [] { return 0; });
  };
  std::ignore =
      flights->do_many_on({1, 2}, queue_joined, {.call = {.timeout = 100ms}}, [&](auto& missing) {
        EXPECT_FALSE(destroyed);
        tenfold(missing);
      });
  support::threads another;
  another.start([&] {
    support::await([&] { return begun.load(); }, "the destructor to be about to run");
    for (int i = 0; i < 100; ++i) std::this_thread::yield();
    queue.run();
  });
  begun = true;
  flights.reset();
  destroyed = true;
  another.join();
  EXPECT_EQ(joined.get(), 10);
}

// The destructor waits for the loader, also when it has settled all its keys and goes on.
TEST(BulkOnExecutor, IsWaitedForByTheDestructor) {
  std::atomic<bool> ended = false;
  threads_executor elsewhere;
  {
    std::optional<group> flights(std::in_place);
    const auto rows = flights->do_many_on({1, 2}, elsewhere, {}, [&](auto& missing) {
      missing.rest(1);
      for (int i = 0; i < 1000; ++i) {
        std::this_thread::yield();
        EXPECT_FALSE(missing.wanted(0));
        EXPECT_FALSE(missing.set(5, 1));
      }
      ended = true;
    });
    EXPECT_TRUE(rows[1].has_value());
    flights.reset();
    EXPECT_TRUE(ended);
  }
}

}  // namespace
