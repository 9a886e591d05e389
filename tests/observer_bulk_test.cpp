// SPDX-License-Identifier: MIT
// What the observer of a group is told of callers that ask for many keys: of each key what it is told of
// a caller of that key alone.
#include <gtest/gtest.h>

#include <algorithm>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <exception>
#include <functional>
#include <memory>
#include <optional>
#include <singleflight/group.hpp>
#include <stdexcept>
#include <string>
#include <thread>
#include <utility>
#include <variant>
#include <vector>

#if defined(__unix__)
#include <pthread.h>
#endif

#include "executors.hpp"
#include "recorder.hpp"
#include "support.hpp"

namespace {

using namespace std::chrono_literals;
using singleflight::bulk_options;
using singleflight::leader;
using support::recorder;
using support::span_of_this_thread;
using support::watched;
using support::words;

const std::exception_ptr no = std::make_exception_ptr(std::runtime_error("no"));
const auto all_42 = [](auto& missing) { missing.rest(42); };

/// Keys are entered for in the order of their hashes.
words sorted(words w) {
  std::sort(w.begin(), w.end());
  return w;
}

enum class loaded { here, on_an_executor };

class ObserverOfMany : public support::observed, public testing::WithParamInterface<loaded> {
 protected:
  using observed::observed;

  template <class Load>
  auto many(const std::vector<int>& keys, const bulk_options& options, const Load& load) {
    if (GetParam() == loaded::here) return g.do_many(keys, options, load);
    return g.do_many_on(keys, support::inline_executor, options, load);
  }
  template <class Load>
  auto many(const std::vector<int>& keys, const Load& load) {
    return many(keys, {}, load);
  }
  [[nodiscard]] leader<int> lead(int key) { return std::get<1>(g.lead_or_follow(key)); }
};

class ObserverOfManyAging : public ObserverOfMany {
 protected:
  ObserverOfManyAging() : ObserverOfMany({.max_age = 1ns}) {}
};
class ObserverOfManyFull : public ObserverOfMany {
 protected:
  ObserverOfManyFull() : ObserverOfMany({.max_waiters = 0}) {}
};
class ObserverOfManyAlone : public ObserverOfMany {
 protected:
  ObserverOfManyAlone()
      : ObserverOfMany({.max_waiters = 0, .when_full = singleflight::group_options::run_alone}) {}
};

const auto both = testing::Values(loaded::here, loaded::on_an_executor);
const auto name = [](const auto& info) {
  return info.param == loaded::here ? "Here" : "OnAnExecutor";
};
INSTANTIATE_TEST_SUITE_P(Both, ObserverOfMany, both, name);
INSTANTIATE_TEST_SUITE_P(Both, ObserverOfManyAging, both, name);
INSTANTIATE_TEST_SUITE_P(Both, ObserverOfManyFull, both, name);
INSTANTIATE_TEST_SUITE_P(Both, ObserverOfManyAlone, both, name);

// --- Calls of its own ------------------------------------------------------------------------------

TEST_P(ObserverOfMany, IsToldOfEachKeyOnce) {
  (void)many({1, 2, 1}, all_42);
  EXPECT_EQ(sorted(events()), (words{"began 1", "began 2", "ended 1 value 0", "ended 2 value 0"}));
}

TEST_P(ObserverOfMany, IsToldWhatBecomesOfEachKey) {
  (void)many({1, 2, 3, 4}, [](auto& missing) {
    missing.set(1, 42);
    missing.fail(2, no);
    missing.set(3, 42);
    missing.set(3, 43);
  });
  EXPECT_EQ(sorted(events()),
            (words{"began 1", "began 2", "began 3", "began 4", "ended 1 value 0",
                   "ended 2 exception 0", "ended 3 value 0", "ended 4 exception 0"}));
}

TEST_P(ObserverOfMany, IsToldOfALoaderThatThrows) {
  (void)many({1, 2}, [](auto& missing) {
    missing.set(2, 42);
    std::rethrow_exception(no);
  });
  EXPECT_EQ(sorted(events()),
            (words{"began 1", "began 2", "ended 1 exception 0", "ended 2 value 0"}));
}

TEST_P(ObserverOfMany, IsToldOfAKeyWhenItIsSettledAndNotWhenTheLoaderReturns) {
  (void)many({1, 2}, [&](auto& missing) {
    EXPECT_EQ(sorted(events()), (words{"began 1", "began 2"}));
    missing.set(2, 42);
    EXPECT_EQ(events().back(), "ended 2 value 0");
    missing.fail(1, no);
    EXPECT_EQ(events().back(), "ended 1 exception 0");
  });
}

TEST_P(ObserverOfMany, IsToldOfEachBatch) {
  (void)many({1, 2}, {.max_batch = 1}, all_42);
  const words all = events();
  EXPECT_EQ(all[0].substr(0, 6), "began ");
  EXPECT_EQ(all[1].substr(0, 6), "ended ");
  EXPECT_EQ(sorted(all), (words{"began 1", "began 2", "ended 1 value 0", "ended 2 value 0"}));
}

TEST_P(ObserverOfMany, IsToldOfThoseWhoJoinItsKeysAndOfItsSpan) {
  support::threads followers;
  span_of_this_thread = 7;
  (void)many({1, 2, 2}, [&](auto& missing) {
    for (const int key : {1, 2}) {
      followers.start([this, key] {
        span_of_this_thread = 8;
        const auto load = [] { return 0; };
        if (key == 1) {
          (void)g.do_call(1, load);
        } else {
          EXPECT_ANY_THROW((void)g.do_call(2, load));
        }
      });
    }
    (void)g.do_async(2, support::inline_executor, [] { return 0; });
    support::await([&] { return told.sum->joins == 3; }, "the followers");
    missing.set(1, 42);
    missing.fail(2, no);
  });
  followers.join();
  span_of_this_thread = 0;
  for (const char* event : {"began 1 of 7", "began 2 of 7", "joined 1 1 of 7", "joined 2 1",
                            "joined 2 2", "ended 1 value 1 of 7", "ended 2 exception 2 of 7",
                            "wait_ended 1 value of 7", "wait_ended 2 exception of 7"}) {
    EXPECT_EQ(told.to->count(event), 1) << event;
  }
  EXPECT_EQ(events().size(), 9U);
}

TEST_P(ObserverOfManyAlone, IsToldWhoRunsItsOwnLoader) {
  const auto other = lead(1);
  (void)many({1, 2}, all_42);
  EXPECT_EQ(sorted(events()),
            (words{"began 1", "began 1 alone", "began 2", "ended 1 value 0", "ended 2 value 0"}));
}

// --- Calls of others -------------------------------------------------------------------------------

TEST_P(ObserverOfMany, IsToldOfACallThatItJoins) {
  span_of_this_thread = 7;
  auto other = lead(1);
  span_of_this_thread = 0;
  (void)many({1, 2}, [&](auto& missing) {
    std::move(other).set_value(42);
    missing.rest(42);
  });
  EXPECT_EQ(sorted(events()),
            (words{"began 1 of 7", "began 2", "ended 1 value 1 of 7", "ended 2 value 0",
                   "joined 1 1 of 7", "wait_ended 1 value of 7"}));
}

TEST_P(ObserverOfMany, IsToldOfACallThatItJoinsAndThatFails) {
  auto other = lead(1);
  (void)many({1, 2}, [&](auto& missing) {
    std::move(other).set_exception(no);
    missing.rest(42);
  });
  EXPECT_EQ(told.to->count("joined 1 1"), 1);
  EXPECT_EQ(told.to->count("wait_ended 1 exception"), 1);
}

TEST_P(ObserverOfMany, IsToldOfAKeyThatItTriesAgainButCountsItOnce) {
  std::optional<leader<int>> other(lead(1));
  (void)many({1, 2}, {.call = {.attempts = 2}}, [&](auto& missing) {
    if (other) {
      std::move(*other).set_exception(no);
      other.reset();
    }
    missing.rest(42);
  });
  EXPECT_EQ(sorted(events()),
            (words{"began 1", "began 1 again", "began 2", "ended 1 exception 1", "ended 1 value 0",
                   "ended 2 value 0", "joined 1 1", "wait_ended 1 exception"}));
}

TEST_P(ObserverOfMany, IsToldWhenItLeavesAtItsDeadline) {
  const auto other = lead(1);
  (void)many({1}, {.call = {.timeout = 200ms}}, all_42);
  EXPECT_EQ(events(), (words{"began 1", "joined 1 1", "left 1 deadline"}));
}

#if defined(__cpp_lib_jthread)
TEST_P(ObserverOfMany, IsToldWhenItLeavesAtItsStopRequest) {
  const auto other = lead(1);
  std::stop_source stop;
  (void)many({1, 2}, {.call = {.stop = stop.get_token()}}, [&](auto& missing) {
    missing.rest(42);
    stop.request_stop();
  });
  EXPECT_EQ(sorted(events()),
            (words{"began 1", "began 2", "ended 2 value 0", "joined 1 1", "left 1 stop"}));
}
#endif

TEST_P(ObserverOfManyAging, IsToldOfCallsThatAreTooOld) {
  const auto one = lead(1), two = lead(2);
  (void)many({1, 2}, {.max_batch = 1},
             all_42);  // there is no room for the second in the first batch
  EXPECT_EQ(sorted(events()), (words{"began 1", "began 1", "began 2", "began 2", "ended 1 value 0",
                                     "ended 2 value 0", "superseded 1", "superseded 2"}));
}

TEST(ObserverOfManyWaiting, IsToldWhoLeavesForANewerCall) {
  const recorder told;
  watched g({.max_age = 200ms}, {}, {}, told);
  const auto other = std::get<1>(g.lead_or_follow(1));
  (void)g.do_many({1}, all_42);
  const words all = told.to->events();
  if (told.to->count("joined") == 1) {  // else this thread was late
    EXPECT_EQ(all, (words{"began 1", "joined 1 1", "superseded 1", "left 1 newer_call",
                          "began 1 again", "ended 1 value 0"}));
  }
  EXPECT_EQ(g.stats().superseded, 1U);
}

// --- Leaving calls of its own ----------------------------------------------------------------------

using ObserverOfManyOwn = support::observed;

#if defined(__cpp_lib_jthread)
TEST_F(ObserverOfManyOwn, IsToldOfEachOpenKeyThatItsLeaderIsStoppedFor) {
  std::stop_source stop;
  (void)g.do_many({1, 2, 3}, {.call = {.stop = stop.get_token()}}, [&](auto& missing) {
    missing.set(2, 42);
    stop.request_stop();
    missing.rest(42);
  });
  EXPECT_EQ(sorted(events()),
            (words{"began 1", "began 2", "began 3", "ended 1 value 0", "ended 2 value 0",
                   "ended 3 value 0", "left 1 stop its own", "left 3 stop its own"}));
}
#endif

TEST_F(ObserverOfManyOwn, IsToldWhoLeavesKeysThatAreLoadedElsewhere) {
  support::task_queue queue;
  (void)g.do_many_on(
      {1, 2}, [&](auto t) { queue(std::move(t)); }, {.call = {.timeout = 1ms}}, all_42);
  if (told.sum->began == 0) return;  // it was late
  EXPECT_EQ(sorted(events()),
            (words{"began 1", "began 2", "left 1 deadline its own", "left 2 deadline its own"}));
  queue.run();
  EXPECT_EQ(told.to->count("ended 1 exception 0"), 1);  // nobody wants it any more
  EXPECT_EQ(told.to->count("ended 2 exception 0"), 1);
}

// It joins key 1 before it begins key 2, whose loader lets the leader of key 1 wait for key 9.
TEST_F(ObserverOfManyOwn, IsToldWhoLeavesACallThatWaitsForItNow) {
  support::threads other;
  (void)g.do_call(9, [&] {
    other.start([&] {
      (void)g.do_call(1, [&] {
        support::await([&] { return told.to->count("joined 1 1") == 1; }, "the other thread");
        return *g.do_call(9, [] { return 0; });
      });
    });
    support::await([&] { return told.to->count("began 1") == 1; }, "the other call");
    const auto rows = g.do_many({1, 2}, [&](auto& missing) {
      support::await_followers(g, 2);
      missing.rest(42);
    });
    EXPECT_EQ(support::call_error_of(rows[0].error()), std::errc::resource_deadlock_would_occur);
    return 9;
  });
  other.join();
  EXPECT_EQ(told.to->count("left 1 circle"), 1);
}

TEST_F(ObserverOfManyOwn, IsToldOfABatchThatItsExecutorDrops) {
  (void)g.do_many_on(
      {1, 2}, [](auto) {}, {}, all_42);
  (void)g.do_many_on(
      {3}, [](auto) { std::rethrow_exception(no); }, {}, all_42);
  EXPECT_EQ(sorted(events()), (words{"began 1", "began 2", "began 3", "ended 1 exception 0",
                                     "ended 2 exception 0", "ended 3 exception 0"}));
}

// --- Refused ---------------------------------------------------------------------------------------

TEST_P(ObserverOfMany, IsToldOfEachKeyThatItAsksForTooLate) {
  (void)many({1, 2}, {.call = {.timeout = -1s}}, all_42);
  EXPECT_EQ(sorted(events()), (words{"rejected 1 deadline", "rejected 2 deadline"}));
}

#if defined(__cpp_lib_jthread)
TEST_P(ObserverOfMany, IsToldOfEachKeyThatItIsStoppedFor) {
  std::stop_source stop;
  stop.request_stop();
  (void)many({1, 2}, {.call = {.stop = stop.get_token()}}, all_42);
  EXPECT_EQ(sorted(events()), (words{"rejected 1 stop", "rejected 2 stop"}));
}
#endif

TEST_P(ObserverOfManyFull, IsToldOfAKeyThatIsFull) {
  const auto other = lead(1);
  (void)many({1, 2}, all_42);
  EXPECT_EQ(sorted(events()), (words{"began 1", "began 2", "ended 2 value 0", "rejected 1 full"}));
}

TEST_P(ObserverOfMany, IsToldOfACircle) {
  (void)g.do_call(1, [&] {
    (void)many({1, 2}, all_42);
    return 42;
  });
  EXPECT_EQ(sorted(events()), (words{"began 1", "began 2", "ended 1 value 0", "ended 2 value 0",
                                     "rejected 1 circle"}));
}

// --- Values that fail ------------------------------------------------------------------------------

struct throws_when_moved {
  explicit throws_when_moved(int* moves_left) : moves_left_(moves_left) {}
  throws_when_moved(const throws_when_moved&) = default;
  throws_when_moved(throws_when_moved&& other) : moves_left_(other.moves_left_) {
    if (*moves_left_ == 0) throw std::runtime_error("no");
    --*moves_left_;
  }
  throws_when_moved& operator=(const throws_when_moved&) = delete;

 private:
  int* moves_left_;
};

template <class Many>
void expect_failure_to_be_told(const Many& many) {
  const recorder told;
  singleflight::group<int, throws_when_moved, std::hash<int>, std::equal_to<int>, recorder> g(
      {}, {}, {}, told);
  int moves_left = 0;
  many(g, [&](auto& missing) { missing.rest(throws_when_moved(&moves_left)); });
  EXPECT_EQ(told.to->events(), (words{"began 1", "ended 1 exception 0"}));
  EXPECT_EQ(g.stats().failed, 1U);
}

#if !defined(SINGLEFLIGHT_TESTS_CALL_ONCE_HANGS)
TEST(ObserverOfManyValues, IsToldThatAKeyHasFailedWhoseValueCannotBeMoved) {
  expect_failure_to_be_told([](auto& g, const auto& load) { (void)g.do_many({1}, load); });
  expect_failure_to_be_told([](auto& g, const auto& load) { (void)g.do_many({1, 1}, load); });
  expect_failure_to_be_told([](auto& g, const auto& load) {
    (void)g.do_many_on({1}, support::inline_executor, {}, load);
  });
}
#endif

// --- Keys and values that cannot be copied ---------------------------------------------------------

/// A key of which the n-th copy from now throws.
struct fragile_key {
  explicit fragile_key(int i) : id(i) {}
  fragile_key(const fragile_key& other) : id(other.id) {
    if (left-- == 0) throw std::runtime_error("cannot be copied");
  }
  fragile_key& operator=(const fragile_key&) = delete;
  ~fragile_key() = default;
  bool operator==(const fragile_key& other) const { return id == other.id; }
  int id;
  inline static thread_local int left = -1;
};
struct hash_of_fragile_key {
  std::size_t operator()(const fragile_key& key) const { return static_cast<std::size_t>(key.id); }
};
struct counts_joined_and_superseded {
  struct numbers {
    int joined = 0;
    int superseded = 0;
  };
  std::shared_ptr<numbers> of = std::make_shared<numbers>();
  void joined(const auto&, const auto&) const noexcept { ++of->joined; }
  void superseded(const auto&, const auto&) const noexcept { ++of->superseded; }
};
using fragile_group = singleflight::group<fragile_key, int, hash_of_fragile_key, std::equal_to<>,
                                          counts_joined_and_superseded>;

// Each key is copied when it is read, and once more for its call on an executor.
TEST(ObserverOfManyFragileKeys, IsToldOfACallThatIsTooOldThoughNoneBegins) {
  const counts_joined_and_superseded told;
  fragile_group flights({.max_age = 1ns}, {}, {}, told);
  const std::vector<fragile_key> keys{fragile_key(1)};
  (void)flights.do_call(keys[0], [&] {
    support::threads(1, [&](std::size_t) {
      fragile_key::left = 1;
      const auto rows = flights.do_many_on(keys, support::inline_executor, {}, all_42);
      EXPECT_THROW((void)rows[0].value(), std::runtime_error);
    });
    EXPECT_EQ(told.of->superseded, 1);
    return 42;
  });
}

TEST(ObserverOfManyFragileKeys, IsToldNothingOfAKeyForWhichNoCallBeginsAnew) {
  const counts_joined_and_superseded told;
  fragile_group flights({}, {}, {}, told);
  const std::vector<fragile_key> keys{fragile_key(1)};
  support::threads caller;
  EXPECT_ANY_THROW((void)flights.do_call(keys[0], [&]() -> int {
    caller.start([&] {
      fragile_key::left = 1;
      const auto rows =
          flights.do_many_on(keys, support::inline_executor, {.call = {.attempts = 2}}, all_42);
      EXPECT_THROW((void)rows[0].value(), std::runtime_error);
    });
    support::await_followers(flights, 1);
    throw std::runtime_error("once more");
  }));
  caller.join();
  EXPECT_EQ(told.of->joined, 1);
}

/// Cannot be copied.
struct fragile_value {
  fragile_value() = default;
  fragile_value(const fragile_value&) { throw std::runtime_error("cannot be copied"); }
  fragile_value(fragile_value&&) noexcept = default;
  fragile_value& operator=(const fragile_value&) = default;
  fragile_value& operator=(fragile_value&&) noexcept = default;
  ~fragile_value() = default;
};
/// Looks at the counters when a call has ended.
struct looks_at_failures {
  std::function<std::uint64_t()>* failed;
  std::vector<std::uint64_t>* seen;
  void call_ended(const auto&) const noexcept { seen->push_back((*failed)()); }
};

TEST(ObserverOfManyValues, IsToldOfAFailureThatHasBeenCounted) {
  std::function<std::uint64_t()> failed;
  std::vector<std::uint64_t> seen;
  singleflight::group<int, fragile_value, std::hash<int>, std::equal_to<>, looks_at_failures>
      flights({}, {}, {}, {&failed, &seen});
  failed = [&] { return flights.stats().failed; };
  (void)flights.do_many({1, 2}, [](auto& missing) { missing.rest(fragile_value()); });
  EXPECT_EQ(seen, (std::vector<std::uint64_t>{1, 2}));
}

// --- Threads that end ------------------------------------------------------------------------------

#if defined(SINGLEFLIGHT_TESTS_THREAD_EXIT_UNWINDS)
TEST_P(ObserverOfMany, IsToldOfALoaderWhoseThreadExits) {
  support::threads(1, [&](std::size_t) {
    (void)many({1, 2}, [](auto& missing) {
      missing.set(2, 42);
      pthread_exit(nullptr);
    });
  });
  words expected{"began 1", "began 2", "ended 1 exception 0", "ended 2 value 0"};
  if (GetParam() == loaded::on_an_executor) {  // which was to wait for them
    expected.insert(expected.end(), {"left 1 gone its own", "left 2 gone its own"});
  }
  EXPECT_EQ(sorted(events()), expected);
}

struct watched_equality {
  inline static std::function<void()> watch;
  bool operator()(int a, int b) const {
    if (watch) watch();
    return a == b;
  }
};

// One shard, so that all keys are entered for under one lock. Its calls, of which one is joined and
// others have begun, are told of although the thread ends under that lock.
TEST(ObserverOfManyThatEnds, IsToldOfWhatItHasBegunAndJoined) {
  for (const bool here : {true, false}) {
    for (int last = 1; last <= 3; ++last) {
      const recorder told;
      singleflight::group<int, int, std::hash<int>, watched_equality, recorder> g({.shards = 1}, {},
                                                                                  {}, told);
      std::vector<leader<int>> others;
      for (const int key : {1, 2, 3}) others.push_back(std::get<1>(g.lead_or_follow(key)));
      support::threads(1, [&](std::size_t) {
        watched_equality::watch = [left = last]() mutable {
          if (--left == 0) pthread_exit(nullptr);
        };
        const auto nothing = [](auto&) { ADD_FAILURE() << "the loader ran"; };
        if (here) {
          (void)g.do_many({1, 2, 3, 4, 5}, {.call = {.timeout = 1h}}, nothing);
        } else {
          (void)g.do_many_on({1, 2, 3, 4, 5}, support::inline_executor, {.call = {.timeout = 1h}},
                             nothing);
        }
      });
      watched_equality::watch = nullptr;
      others.clear();
      EXPECT_EQ(told.sum->joins, static_cast<std::uint64_t>(last - 1));
      EXPECT_EQ(told.sum->left_joined, told.sum->joins);
      EXPECT_EQ(told.sum->began, told.sum->ended);
      EXPECT_EQ(told.sum->led, g.stats().led);
      EXPECT_EQ(told.sum->joined, g.stats().joined);
      support::expect_idle(g);
    }
  }
}

#if defined(SINGLEFLIGHT_TESTS_CANCELS_WAITS) && defined(__cpp_lib_jthread)
TEST_P(ObserverOfMany, IsToldWhoseThreadIsCancelledWhileItWaits) {
  const std::stop_source stop;  // its wait is one that can be cancelled
  const auto one = lead(1), two = lead(2);
  std::thread waits([&] { (void)many({1, 2}, {.call = {.stop = stop.get_token()}}, all_42); });
  support::await_followers(g, 2);
  support::await([&] { return told.sum->joins == 2; }, "the events");
  pthread_cancel(waits.native_handle());
  waits.join();
  EXPECT_EQ(sorted(events()), (words{"began 1", "began 2", "joined 1 1", "joined 2 1",
                                     "left 1 gone", "left 2 gone"}));
}
#endif
#endif

// --- Re-entry, many threads ------------------------------------------------------------------------

// Every hook calls every kind of member.
TEST_P(ObserverOfMany, MayCallTheGroup) {
  static thread_local bool inside = false;
  told.to->then([&] {
    if (std::exchange(inside, true)) return;
    (void)g.do_call(3, [] { return 0; });
    (void)g.do_many({3, 4}, all_42);
    (void)g.do_many_on({3, 4}, support::inline_executor, {}, all_42);
    inside = false;
  });
  const auto other = lead(1);
  (void)many({1, 2}, {.call = {.timeout = 200ms}}, all_42);
  for (const char* event :
       {"began 1", "began 2", "joined 1 1", "left 1 deadline", "ended 2 value 0"}) {
    EXPECT_EQ(told.to->count(event), 1) << event;
  }
}

TEST_P(ObserverOfMany, IsToldTheSumsOfStatsByManyThreads) {
  support::threads(6, [&](std::size_t t) {
    for (int i = 0; i < 300; ++i) {
      const auto load = [i](auto& missing) {
        std::this_thread::yield();
        if (i % 7 == 0) std::rethrow_exception(no);
        for (std::size_t k = 0; k < missing.size(); k += 2) missing.set_at(k, i);
        if (i % 3 == 0) missing.rest(42);
      };
      const int first = static_cast<int>(t) % 3;
      try {
        if (t % 3 == 0) {
          (void)g.do_call(first, {.timeout = 20us, .attempts = 2}, [] { return 0; });
        } else if (i % 2 == 0) {
          (void)many({first, 1, 2, 3, 4}, {.call = {.timeout = 30us}, .max_batch = 2}, load);
        } else {
          (void)many({first, 1, 2, 3, 4}, {.call = {.attempts = 3}}, load);
        }
      } catch (const std::exception&) {
      }
    }
  });
  support::expect_idle(g);
}

}  // namespace
