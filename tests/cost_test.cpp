// SPDX-License-Identifier: MIT
// The cost of a call, in counts: heap allocations, copies and moves of the value, locks taken. This
// program replaces operator new, and the linker wraps pthread_mutex_lock.

#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <bit>
#include <chrono>
#include <cstddef>
#include <functional>
#include <optional>
#include <singleflight/group.hpp>
#include <string>
#include <string_view>
#include <thread>
#include <utility>
#include <variant>
#include <vector>

#include "replaced_new.hpp"
#include "support.hpp"

#if defined(__cpp_lib_jthread)
#include <stop_token>
#endif
#if defined(SINGLEFLIGHT_TESTS_WRAP_MUTEX)
#include <pthread.h>
#endif
#if defined(__GLIBC__)
#include <sys/sysinfo.h>
#include <sys/wait.h>
#include <unistd.h>
#endif

// std::thread::hardware_concurrency asks it.
#if defined(__GLIBC__) && defined(__GLIBCXX__)
#define SINGLEFLIGHT_TESTS_SET_PROCESSORS
static int processors = 0;  // 0: those that there are
extern "C" int get_nprocs() noexcept {
  return processors != 0 ? processors : static_cast<int>(sysconf(_SC_NPROCESSORS_ONLN));
}
#endif

namespace {

thread_local int locks_of_this_thread = 0;

#if defined(SINGLEFLIGHT_TESTS_WRAP_MUTEX)
/// Counts them, too, where another thread looks; or null.
thread_local std::atomic<int>* locks_shown = nullptr;
#endif

}  // namespace

#if defined(SINGLEFLIGHT_TESTS_WRAP_MUTEX)
extern "C" int __real_pthread_mutex_lock(pthread_mutex_t*);
extern "C" int __wrap_pthread_mutex_lock(pthread_mutex_t* mutex) {
  ++locks_of_this_thread;
  if (locks_shown != nullptr) ++*locks_shown;
  return __real_pthread_mutex_lock(mutex);
}
#endif

namespace {

using namespace std::chrono_literals;
using singleflight::group;

struct counts {
  int allocations = 0;
  int locks = 0;

  static counts of_this_thread() {
    return {static_cast<int>(support::allocated_by_this_thread.blocks), locks_of_this_thread};
  }
};

// The counts of `action()` on this thread.
template <class Action>
counts cost_of(const Action& action) {
  const counts before = counts::of_this_thread();
  action();
  const counts after = counts::of_this_thread();
  return {after.allocations - before.allocations, after.locks - before.locks};
}

// Leads a call for `key` that `N` threads join one after the other. Returns the counts of each of
// them for `enter()`, which must join it.
template <std::size_t N, class Group, class Key, class Load, class Enter>
std::array<counts, N> costs_of_followers(Group& g, const Key& key, const Load& load,
                                         const Enter& enter) {
  std::array<counts, N> costs;
  support::threads followers;
  (void)g.do_call(key, [&] {
    for (std::size_t i = 0; i < N; ++i) {
      followers.start([&, i] { costs[i] = cost_of(enter); });
      support::await_followers(g, i + 1);
    }
    return load();
  });
  followers.join();
  return costs;
}

// Runs `enter()` inside a loader of this thread's own. What it costs is that of `enter()` and of an
// unshared call, which takes two locks.
template <class Group, class Enter>
auto nested_in(Group& outer, const Enter& enter) {
  return [&outer, enter] {
    (void)outer.do_call(std::this_thread::get_id(), [&] {
      enter();
      return 0;
    });
  };
}

#if !defined(SINGLEFLIGHT_TESTS_KEEP_NEW)

TEST(Allocations, AreNoneForAnUnsharedCall) {
  group<int, int> g;
  for (int i = 0; i < 100; ++i) {
    EXPECT_EQ(cost_of([&] { (void)g.do_call(i, [] { return 42; }); }).allocations, 0);
  }
}

const std::string long_key = "a key of twenty-four or more characters";

TEST(Allocations, AreOneForTheCopyOfALongKeyAndNoneForTheNext) {
  group<std::string, int> g({.shards = 1});
  EXPECT_EQ(cost_of([&] { (void)g.do_call(long_key, [] { return 42; }); }).allocations, 1);
  const std::string next_key(long_key.rbegin(), long_key.rend());
  for (int i = 0; i < 3; ++i) {
    EXPECT_EQ(cost_of([&] { (void)g.do_call(next_key, [] { return 42; }); }).allocations, 0);
  }
}

struct view_hash : std::hash<std::string_view> {
  using is_transparent = void;
};

TEST(Allocations, AreNoneForAViewOfALongKeyAfterACallWithOneAsLong) {
  group<std::string, int, view_hash, std::equal_to<>> g({.shards = 1});
  const std::string_view key = long_key;
  EXPECT_EQ(cost_of([&] { (void)g.do_call(key, [] { return 42; }); }).allocations, 1);
  EXPECT_EQ(cost_of([&] { (void)g.do_call(key, [] { return 42; }); }).allocations, 0);
}

TEST(Allocations, AreOneForEachLongKeyOfCallsInFlightTogether) {
  group<std::string, int> g({.shards = 1});
  const std::string inner = long_key + "'s part";
  const auto nested = [&] { return *g.do_call(inner, [] { return 42; }); };
  EXPECT_EQ(cost_of([&] { (void)g.do_call(long_key, nested); }).allocations, 2);
  EXPECT_EQ(cost_of([&] { (void)g.do_call(long_key, nested); }).allocations, 1);
}

TEST(Allocations, AreNoneForAKeyThatFitsWhereALongerOneIsInFlight) {
  group<std::string, int> g({.shards = 1});
  (void)g.do_call(long_key, [] { return 42; });
  const std::string longer = long_key + ", and more of them";
  const auto nested = [&] { return *g.do_call(long_key, [] { return 42; }); };
  EXPECT_EQ(cost_of([&] { (void)g.do_call(longer, nested); }).allocations, 1);
}

TEST(Allocations, AreSavedByKeepingAKeyOfAtMost1024Bytes) {
  std::size_t size = 1024;
  while (std::string(size, 'k').capacity() > 1024) --size;  // libraries round up
  const std::string kept(size, 'k');
  group<std::string, int> g({.shards = 1});
  EXPECT_EQ(cost_of([&] { (void)g.do_call(kept, [] { return 42; }); }).allocations, 1);
  EXPECT_EQ(cost_of([&] { (void)g.do_call(kept, [] { return 42; }); }).allocations, 0);
}

TEST(Allocations, AreNeverSavedByKeepingAHugeKey) {
  group<std::string, int> g({.shards = 1});
  const std::string huge(1025, 'k');
  for (int i = 0; i < 3; ++i) {
    EXPECT_EQ(cost_of([&] { (void)g.do_call(huge, [] { return 42; }); }).allocations, 1);
  }
}

// A group allocates its shards together, and the buckets of each.
int shards_by_allocations(const singleflight::group_options& options = {}) {
  return cost_of([&] { const group<int, int> g(options); }).allocations - 1;
}

TEST(Allocations, OfAGroupTellHowManyShardsItHas) {
  const auto shards = [](std::size_t wanted) { return shards_by_allocations({.shards = wanted}); };
  EXPECT_EQ(shards(1), 1);
  EXPECT_EQ(shards(2), 2);
  EXPECT_EQ(shards(3), 4);
  EXPECT_EQ(shards(100), 128);
}

TEST(Allocations, OfAGroupOfDefaultSizeAreForEightShardsAThreadBetween8And32) {
  const unsigned threads = std::max(std::thread::hardware_concurrency(), 1U);
  EXPECT_EQ(static_cast<unsigned>(shards_by_allocations()),
            std::bit_ceil(std::min(8 * threads, 32U)));
}

#if defined(SINGLEFLIGHT_TESTS_SET_PROCESSORS)
TEST(Allocations, OfAGroupOfDefaultSizeAreBoundedOnALargeHost) {
  processors = 128;
  EXPECT_EQ(singleflight::group_options::default_shards(), 32U);
  EXPECT_EQ(shards_by_allocations(), 32);
  processors = 1;
  EXPECT_EQ(singleflight::group_options::default_shards(), 8U);
  processors = 0;
}
#endif

#if defined(__GLIBC__)

pid_t parent = 0;
bool allocated_by_child = false;

TEST(Memory, OfAGroupIsFreedWithTheLastCallThatOutlivesIt) {
  const auto outlived = [](bool joined) {
    std::optional<singleflight::leader<int>> lead;
    {
      group<int, int> g({.shards = 1});
      const auto done = [](const auto&) {};
      const auto start = [&](singleflight::leader<int> mine) { lead.emplace(std::move(mine)); };
      g.async_call(1, singleflight::resume_inline, {}, start, done);
      if (joined) g.async_call(1, singleflight::resume_inline, {}, start, done);
    }
    std::move(*lead).set_value(42);
  };
  for (const bool joined : {false, true}) {
    outlived(joined);  // what is made once
    const std::int64_t before = support::live_bytes;
    outlived(joined);
    EXPECT_EQ(support::live_bytes, before);
  }
}

// A shard that cannot be made leaves nothing of those before it.
TEST(Memory, OfAGroupThatCannotBeMadeIsFreed) {
  static thread_local int left = 0;
  const std::int64_t before = support::live_bytes;
  for (const int granted : {0, 1, 3}) {
    left = granted;
    support::grants_allocation = []() noexcept { return left-- > 0; };
    EXPECT_THROW((group<int, int>({.shards = 4})), std::bad_alloc);
    support::grants_allocation = nullptr;
    EXPECT_EQ(support::live_bytes, before) << granted;
  }
}

// What a child gets in the place of calls that it lacks is made before the fork: in the child another
// thread that is gone may hold the lock of a user's operator new.
TEST(Allocations, AreNoneInTheHandlersOfAForkedChild) {
  const group<int, int> g;
  parent = getpid();
  support::grants_allocation = []() noexcept {
    allocated_by_child |= getpid() != parent;
    return true;
  };
  const pid_t child = fork();
  if (child == 0) _exit(allocated_by_child ? 1 : 0);
  support::grants_allocation = nullptr;
  int status = -1;
  EXPECT_EQ(waitpid(child, &status, 0), child);
  EXPECT_EQ(status, 0);
}

#endif

// A shard doubles its buckets when it has as many calls, so that its chains stay short.
TEST(Allocations, AreOneWhereAShardHasAsManyCallsAsBuckets) {
  constexpr int deepest = 40;
  group<int, int> g({.shards = 1});
  std::array<int, deepest> costs{};
  const std::function<void(int)> enter = [&](int depth) {
    if (depth == deepest) return;
    const int before = counts::of_this_thread().allocations;
    (void)g.do_call(depth, [&] {
      costs[static_cast<std::size_t>(depth)] = counts::of_this_thread().allocations - before;
      enter(depth + 1);
      return 42;
    });
  };
  enter(0);
  for (int depth = 0; depth < deepest; ++depth) {
    const bool full = depth == 8 || depth == 16 || depth == 32;
    EXPECT_EQ(costs[static_cast<std::size_t>(depth)], full ? 1 : 0) << depth;
  }
}

TEST(Allocations, AreNoneForALongKeyThatIsMovedIn) {
  group<std::string, int> g;
  std::string key = long_key;
  EXPECT_EQ(cost_of([&] { (void)g.do_call(std::move(key), [] { return 42; }); }).allocations, 0);
}

#if defined(__GLIBCXX__)
constexpr int allocations_of_a_promise = 2;
#else
constexpr int allocations_of_a_promise = 1;
#endif

TEST(Allocations, AreThoseOfAPromiseForTheFirstFollowerAndNoneForTheOthers) {
  group<std::string, int> g;
  const auto enter = [&] { (void)g.do_call(long_key, [] { return 0; }); };
  const auto costs = costs_of_followers<8>(
      g, long_key, [] { return 42; }, enter);
  EXPECT_EQ(costs[0].allocations, allocations_of_a_promise);
  for (std::size_t i = 1; i < costs.size(); ++i) EXPECT_EQ(costs[i].allocations, 0);
}

TEST(Allocations, AreThoseOfAPromiseForTheFirstThatJoinsInAFutureAndNoneForTheOthers) {
  group<int, int> g;
  const auto here = [](auto task) { task(); };
  (void)g.do_call(1, [&] {
    const auto join = [&] { (void)g.do_async(1, here, [] { return 0; }); };
    EXPECT_EQ(cost_of(join).allocations, allocations_of_a_promise);
    EXPECT_EQ(cost_of(join).allocations, 0);
    return 42;
  });
}

TEST(Allocations, AreThoseOfAPromiseForTheFirstFollowerOfACallWithoutAValue) {
  group<int, void> g;
  const auto enter = [&] { g.do_call(1, [] {}); };
  const auto costs = costs_of_followers<2>(
      g, 1, [] {}, enter);
  EXPECT_EQ(costs[0].allocations, allocations_of_a_promise);
  EXPECT_EQ(costs[1].allocations, 0);
}

TEST(Allocations, AreOneMoreForALoaderThatTakesAStopToken) {
#if defined(__cpp_lib_jthread)
  group<int, int> g;
  const auto load = [](const std::stop_token&) { return 42; };
  EXPECT_EQ(cost_of([&] { (void)g.do_call(1, load); }).allocations, 1);
#endif
}

TEST(Allocations, AreNoneForALoaderThatTakesTheKey) {
  group<int, int> g;
  EXPECT_EQ(cost_of([&] { (void)g.do_call(1, [](const int& key) { return key; }); }).allocations,
            0);
}

TEST(Allocations, AreOneMoreForTheFirstFollowerThatCanLeaveAndNoneForTheOthers) {
  group<int, int> g;
  const auto enter = [&] { (void)g.do_call(1, {.timeout = 1h}, [] { return 0; }); };
  const auto costs = costs_of_followers<3>(
      g, 1, [] { return 42; }, enter);
  EXPECT_EQ(costs[0].allocations, allocations_of_a_promise + 1);
  EXPECT_EQ(costs[1].allocations, 0);
  EXPECT_EQ(costs[2].allocations, 0);
}

TEST(Allocations, AreOneMoreForTheFirstFollowerInsideALoaderAndNoneForTheOthers) {
  group<int, int> g;
  group<std::thread::id, int> outer;
  const auto costs = costs_of_followers<3>(
      g, 1, [] { return 42; }, nested_in(outer, [&] { (void)g.do_call(1, [] { return 0; }); }));
  EXPECT_EQ(costs[0].allocations, allocations_of_a_promise + 1);
  EXPECT_EQ(costs[1].allocations, 0);
  EXPECT_EQ(costs[2].allocations, 0);
}

// The call, its promise, its handle.
TEST(Allocations, AreOneAndAPromiseToBeginACallOnAnExecutor) {
  group<int, int> g;
  const auto here = [](auto task) { task(); };
  EXPECT_EQ(cost_of([&] { (void)g.do_async(1, here, [] { return 42; }); }).allocations,
            1 + allocations_of_a_promise);
  EXPECT_EQ(cost_of([&] { (void)g.do_call_on(1, here, {}, [] { return 42; }); }).allocations,
            1 + allocations_of_a_promise);
}

// The keys, their outcomes, the batch and its order, the hash table: one block each, however many keys.
TEST(Allocations, OfManyKeysAreNoneForEachKeyButItsOwn) {
  const auto cost_of_many = [](const auto& keys) {
    using key = typename std::decay_t<decltype(keys)>::value_type;
    group<key, int> g({.shards = 1});
    int invocations = 0;
    const auto ask = [&] {
      const auto rows = g.do_many(keys, [&](auto& missing) {
        ++invocations;
        for (std::size_t i = 0; i < missing.size(); ++i) missing.set_at(i, 42);
      });
      EXPECT_EQ(rows.back().value(), 42);
    };
    ask();  // the shard makes room for so many calls, once
    const auto cost = cost_of(ask).allocations;
    EXPECT_EQ(invocations, 2);
    return cost;
  };
  std::vector<int> numbers;
  std::vector<std::string> texts;
  for (int i = 0; i < 100; ++i) {
    numbers.push_back(i);
    texts.push_back(long_key + std::to_string(i));
  }
  const auto blocks = cost_of_many(std::vector<int>{1});
  EXPECT_LE(blocks, 5);
  EXPECT_EQ(cost_of_many(numbers), blocks);
  EXPECT_EQ(cost_of_many(texts), blocks + 100);
}

// Of each key a call on an executor that can be stopped, and blocks whose number no key changes.
TEST(Allocations, OfManyKeysOnAnExecutorAreThoseOfACallForEachKey) {
  const auto cost_of_many = [](int count) {
    group<int, int> g({.shards = 1});
    std::vector<int> keys;
    for (int i = 0; i < count; ++i) keys.push_back(i);
    const auto here = [](const auto& task) { task(); };
    const auto ask = [&] {
      (void)g.do_many_on(keys, here, {}, [](auto& missing) {
        for (std::size_t i = 0; i < missing.size(); ++i) missing.set_at(i, 42);
      });
    };
    ask();  // the shard makes room for so many calls, once
    return cost_of(ask).allocations;
  };
  const auto of_one = cost_of_many(1);
  const auto of_a_call = cost_of_many(2) - of_one;
  EXPECT_LE(of_a_call, 2 + allocations_of_a_promise);
  EXPECT_EQ(cost_of_many(100), of_one + 99 * of_a_call);
  EXPECT_LE(of_one, 9 + of_a_call);
}

TEST(Allocations, OfASnapshotGrowWithTheLogarithmOfTheCalls) {
  group<int, int> g({.shards = 512});
  std::vector<std::function<void()>> tasks;
  for (int key = 0; key < 5'000; ++key) {
    (void)g.do_async(
        key, [&](auto task) { tasks.emplace_back(std::move(task)); }, [] { return 0; });
  }
  std::size_t found = 0;
  EXPECT_LE(cost_of([&] { found = g.in_flight().size(); }).allocations, 20);
  EXPECT_EQ(found, 5'000U);
  for (const auto& task : tasks) task();
}

#endif

struct counted {
  counted() = default;
  counted(const counted&) { ++copies; }
  counted(counted&&) noexcept { ++moves; }

  static std::atomic<int> copies, moves;
};
std::atomic<int> counted::copies{0};
std::atomic<int> counted::moves{0};

class Copies : public testing::Test {
 protected:
  Copies() { counted::copies = counted::moves = 0; }
  group<int, counted> g;
};

TEST_F(Copies, AreNoneForAnUnsharedCall) {
  auto result = g.do_call(1, [] { return counted(); });
  EXPECT_FALSE(result.shared());
  EXPECT_EQ(counted::copies, 0);
  EXPECT_EQ(counted::moves, 1);
}

TEST_F(Copies, AreNoneForAnUnsharedValueThatIsTaken) {
  [[maybe_unused]] const counted taken = g.do_call(1, [] { return counted(); });
  EXPECT_EQ(counted::copies, 0);
  EXPECT_EQ(counted::moves, 2);
}

TEST_F(Copies, AreNoneForALeaderAndItsFollowers) {
  const auto enter = [this] { (void)g.do_call(1, [] { return counted(); }); };
  (void)costs_of_followers<16>(
      g, 1, [] { return counted(); }, enter);
  EXPECT_EQ(counted::copies, 0);
  EXPECT_EQ(counted::moves, 1);
}

TEST_F(Copies, AreOneForEachWhoTakesTheSharedValue) {
  const auto enter = [this] {
    [[maybe_unused]] const counted taken = g.do_call(1, [] { return counted(); });
  };
  (void)costs_of_followers<16>(
      g, 1, [] { return counted(); }, enter);
  EXPECT_EQ(counted::copies, 16);
  EXPECT_EQ(counted::moves, 1);
}

TEST_F(Copies, AreNoneForALeaderWhoseCallRefusedACaller) {
  group<int, int> other;
  support::threads threads;
  threads.start([&] {
    [[maybe_unused]] const counted taken = g.do_call(1, [&] {
      support::await([&] { return other.stats().led == 1; }, "the other call");
      (void)other.do_call(2, [] { return 0; });
      return counted();
    });
  });
  support::await([&] { return g.stats().led == 1; }, "the call");
  (void)other.do_call(2, [&] {
    support::await_followers(other, 1);
    EXPECT_THROW((void)g.do_call(1, [] { return counted(); }), singleflight::call_error);
    return 0;
  });
  threads.join();
  EXPECT_EQ(counted::copies, 0);
  EXPECT_EQ(counted::moves, 2);
}

#if defined(SINGLEFLIGHT_TESTS_WRAP_MUTEX)

TEST(Locks, AreTwoForAnUnsharedCall) {
  group<int, int> g;
  EXPECT_EQ(cost_of([&] { (void)g.do_call(1, [] { return 42; }); }).locks, 2);
}

TEST(Locks, AreTwoForACallThatFails) {
  group<int, int> g;
  const auto fail = [&] { EXPECT_ANY_THROW((void)g.do_call(1, []() -> int { throw 42; })); };
  EXPECT_EQ(cost_of(fail).locks, 2);
}

#if defined(__GLIBC__)
TEST(Locks, OfAForkAreThoseOfAllShardsAndOneMoreOfEachGroup) {
  const auto fork_once = [] {
    const pid_t child = fork();
    if (child == 0) _exit(0);
    int status = -1;
    EXPECT_EQ(waitpid(child, &status, 0), child);
  };
  const int without = cost_of(fork_once).locks;
  const group<int, int> g({.shards = 4});
  EXPECT_EQ(cost_of(fork_once).locks, without + 4 + 1);
}
#endif

#ifdef __GLIBCXX__  // elsewhere a std::shared_future has a mutex of its own

TEST(Locks, AreOneForAFollower) {
  group<int, int> g;
  const auto enter = [&] { (void)g.do_call(1, [] { return 0; }); };
  for (const counts& c : costs_of_followers<8>(
           g, 1, [] { return 42; }, enter)) {
    EXPECT_EQ(c.locks, 1);
  }
}

TEST(Locks, AreOneForAFollowerWithADeadlineAndTwoIfItLeaves) {
  group<int, int> g;
  const auto stays = [&] { (void)g.do_call(1, {.timeout = 1h}, [] { return 0; }); };
  for (const counts& c : costs_of_followers<2>(
           g, 1, [] { return 42; }, stays)) {
    EXPECT_EQ(c.locks, 1);
  }
  (void)g.do_call(1, [&] {
    support::threads(1, [&](std::size_t) {
      const auto leave = [&] {
        EXPECT_ANY_THROW((void)g.do_call(1, {.timeout = 100ms}, [] { return 0; }));
      };
      EXPECT_EQ(cost_of(leave).locks, 2);
    });
    return 42;
  });
}

#if defined(__cpp_lib_jthread)
TEST(Locks, AreFourForAFollowerWithAStopToken) {
  group<int, int> g;
  const std::stop_source stop;
  const auto enter = [&] { (void)g.do_call(1, {.stop = stop.get_token()}, [] { return 0; }); };
  for (const counts& c : costs_of_followers<4>(
           g, 1, [] { return 42; }, enter)) {
    EXPECT_EQ(c.locks, 4);
  }
}
#endif

// Those of the wait graph: to show the leader, which the first follower does, to add and to remove.
TEST(Locks, AreTwoOrThreeMoreForAFollowerInsideALoader) {
  constexpr int of_the_outer_call = 2;
  group<int, int> g;
  group<std::thread::id, int> outer;
  const auto costs = costs_of_followers<3>(
      g, 1, [] { return 42; }, nested_in(outer, [&] { (void)g.do_call(1, [] { return 0; }); }));
  EXPECT_EQ(costs[0].locks, of_the_outer_call + 1 + 3);
  EXPECT_EQ(costs[1].locks, of_the_outer_call + 1 + 2);
  EXPECT_EQ(costs[2].locks, of_the_outer_call + 1 + 2);
}

struct notes_locks {
  int* at_end;
  void wait_ended(const auto&) const noexcept { *at_end = locks_of_this_thread; }
};

// From there on the thread may run user code, so it must have no edge in the wait graph any more.
TEST(Locks, OfAFollowerInsideALoaderAreNoneAfterTheEndOfItsWait) {
  int at_end = 0;
  int at_return = 0;
  group<int, int, std::hash<int>, std::equal_to<int>, notes_locks> g({}, {}, {}, {&at_end});
  group<std::thread::id, int> outer;
  (void)costs_of_followers<1>(
      g, 1, [] { return 42; }, nested_in(outer, [&] {
        (void)g.do_call(1, [] { return 0; });
        at_return = locks_of_this_thread;
      }));
  EXPECT_GT(at_end, 0);
  EXPECT_EQ(at_return, at_end);
}

struct waits_when_moved {
  explicit waits_when_moved(const std::function<void()>& wait) : wait_(&wait) {}
  waits_when_moved(waits_when_moved&& other) : wait_(other.wait_) { (*wait_)(); }

 private:
  const std::function<void()>* wait_;
};
struct counts_ends_of_waits {
  const std::function<void()>* when_joined;
  std::atomic<int>* left_;
  std::atomic<int>* ended;
  void joined(const auto&) const noexcept { (*when_joined)(); }
  void left(const auto&) const noexcept { ++*left_; }
  void wait_ended(const auto&) const noexcept { ++*ended; }
};

// The call grows too old for its follower when it has ended and its value is being moved: the follower
// stays, which its lock tells here.
TEST(Locks, AreOneMoreForAFollowerThatWouldLeaveForANewerCallAndStays) {
  constexpr auto age = 200ms;
  std::atomic<bool> joined = false;
  std::atomic<bool> call_ended = false;
  std::atomic<int> locks = 0;
  std::atomic<int> left = 0;
  std::atomic<int> ended = 0;
  const std::function<void()> grow_old = [&] {
    joined = true;
    const auto too_old = std::chrono::steady_clock::now() + age;
    support::await([&] { return call_ended && std::chrono::steady_clock::now() >= too_old; },
                   "the call to end and to grow too old");
    locks_shown = &locks;
  };
  const std::function<void()> move_late = [&] {
    call_ended = true;
    if (joined) support::await([&] { return locks > 0; }, "the follower to look");
  };
  const std::function<void()> move_at_once = [] {};
  group<int, waits_when_moved, std::hash<int>, std::equal_to<int>, counts_ends_of_waits> g(
      {.max_age = age}, {}, {}, {&grow_old, &left, &ended});
  support::threads follower;
  (void)g.do_call(1, [&] {
    follower.start([&] {
      (void)g.do_call(1, [&] { return waits_when_moved(move_at_once); });
      locks_shown = nullptr;
    });
    support::await([&] { return joined || g.stats().superseded == 1; }, "the follower");
    return waits_when_moved(move_late);
  });
  follower.join();
  if (!joined) GTEST_SKIP() << "the follower came too late";
  EXPECT_EQ(left, 0);
  EXPECT_EQ(ended, 1);
  EXPECT_EQ(locks, 1);
}

TEST(Locks, AreEightToBeginACallOnAnExecutorAndOneToJoinIt) {
  group<int, int> g;
  const auto here = [](auto task) {
    task();
  };  // one less, since the call is over before it is queued
  EXPECT_EQ(cost_of([&] { (void)g.do_async(1, here, [] { return 42; }); }).locks, 7);
  EXPECT_EQ(cost_of([&] { (void)g.do_call_on(1, here, {}, [] { return 42; }); }).locks, 7);
  std::function<void()> queued;
  const auto later = [&](auto task) { queued = std::move(task); };
  const auto begun = cost_of([&] { (void)g.do_async(1, later, [] { return 42; }); }).locks;
  EXPECT_EQ(begun + cost_of([&] { queued(); }).locks, 8);
  (void)g.do_call(1, [&] {
    EXPECT_EQ(cost_of([&] { (void)g.do_async(1, here, [] { return 42; }); }).locks, 1);
    return 42;
  });
}

#endif

TEST(Locks, AreTwoForAnAsynchronousCallThatEndsWhileItIsBegun) {
  group<int, int> g;
  const auto call = [&] {
    g.async_call(
        1, singleflight::resume_inline, {},
        [](singleflight::leader<int> lead) { std::move(lead).set_value(42); }, [](const auto&) {});
  };
  EXPECT_EQ(cost_of(call).locks, 2);
#if !defined(SINGLEFLIGHT_TESTS_KEEP_NEW)
  EXPECT_EQ(cost_of(call).allocations, 2);  // the caller and the call
#endif
}

TEST(Locks, AreThreeToBeginAnAsynchronousCallThatEndsLater) {
  group<int, int> g;
  std::optional<singleflight::leader<int>> lead;
  const auto begin = [&] {
    g.async_call(
        1, singleflight::resume_inline, {},
        [&](singleflight::leader<int> mine) { lead.emplace(std::move(mine)); }, [](const auto&) {});
  };
  EXPECT_EQ(cost_of(begin).locks, 3);
  std::move(*lead).set_value(42);
}

TEST(Locks, AreTwoToBecomeTheLeaderOfACallAndOneToEndIt) {
  group<int, int> g;
  std::optional<singleflight::leader<int>> lead;
  const auto begin = [&] {
    lead.emplace(std::get<singleflight::leader<int>>(g.lead_or_follow(1)));
  };
  EXPECT_EQ(cost_of(begin).locks, 2);
  EXPECT_EQ(cost_of([&] { std::move(*lead).set_value(42); }).locks, 1);
}

TEST(Locks, OfManyKeysAreOneForEachShardToEnterAndOneToSettleAKeyOrEachShard) {
  group<int, int> g({.shards = 4});
  std::vector<int> keys;
  for (int i = 0; i < 100; ++i) keys.push_back(i);
  int entered = 0;
  const auto settle_each = [&](auto& missing) {
    entered = locks_of_this_thread;
    for (std::size_t i = 0; i < missing.size(); ++i) missing.set_at(i, 42);
  };
  const int before = locks_of_this_thread;
  EXPECT_EQ(cost_of([&] { (void)g.do_many(keys, settle_each); }).locks, 4 + 100);
  EXPECT_EQ(entered - before, 4) << "one for each shard";
  EXPECT_EQ(cost_of([&] { (void)g.do_many(keys, [](auto& missing) { missing.rest(42); }); }).locks,
            4 + 4);
  EXPECT_EQ(cost_of([&] { (void)g.do_many(keys, [](auto&) {}); }).locks, 4 + 4) << "they fail";
}

#if defined(__GLIBC__)
int locks_of_a_fork() {
  const int before = locks_of_this_thread;
  const pid_t child = fork();
  if (child == 0) _exit(0);
  const int locks = locks_of_this_thread - before;
  EXPECT_EQ(waitpid(child, nullptr, 0), child);
  return locks;
}

// So that no other thread is in the middle of a change of what the child copies.
TEST(Locks, OfAForkAreOneForTheGroupsOneForEachShardAndOneForTheCallsOnExecutors) {
  EXPECT_EQ(locks_of_a_fork(), 1);
  const group<int, int> g({.shards = 4});
  EXPECT_EQ(locks_of_a_fork(), 1 + 4 + 1);
  const group<int, int> other({.shards = 2});
  EXPECT_EQ(locks_of_a_fork(), 1 + 4 + 1 + 2 + 1);
}
#endif

TEST(Locks, AreOneToForgetAndOneForEachShardToLook) {
  group<int, int> g({.shards = 4});
  EXPECT_EQ(cost_of([&] { (void)g.forget(1); }).locks, 1);
  EXPECT_EQ(cost_of([&] { (void)g.forget_unshared(1); }).locks, 1);
  EXPECT_EQ(cost_of([&] { (void)g.stats(); }).locks, 4);
  EXPECT_EQ(cost_of([&] { (void)g.in_flight(); }).locks, 4);
  (void)g.do_call(1, [&] {  // one more, to make room
    EXPECT_EQ(cost_of([&] { (void)g.in_flight(); }).locks, 5);
    return 42;
  });
}

#endif

}  // namespace
