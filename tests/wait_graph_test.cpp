// SPDX-License-Identifier: MIT
// The graph of waits by itself, with the edges of more threads than a test may start.

#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <cstddef>
#include <cstring>
#include <deque>
#include <singleflight/detail/wait_graph.hpp>
#include <thread>
#include <type_traits>

namespace {

using singleflight::detail::wait_edge;
using singleflight::detail::wait_graph;
using singleflight::detail::wait_node;

/// Returns: the id of a thread that is not there; the one of no thread for 0.
std::thread::id thread(std::size_t number) {
  static_assert(std::is_trivially_copyable_v<std::thread::id>);
  std::thread::id made;
  std::memcpy(static_cast<void*>(&made), &number, std::min(sizeof made, sizeof number));
  return made;
}

/// Threads 1 to n, each of which leads one call and may wait for one.
class waits {
 public:
  explicit waits(std::size_t n) : edges_(n + 1), calls_(n + 1) {
    for (std::size_t i = 1; i <= n; ++i) calls_[i].leader = thread(i);
  }

  /// Has one thread wait for the call of another. Returns: whether it may.
  bool add(std::size_t waiter, std::size_t call) {
    wait_edge& edge = edges_[waiter];
    edge.thread = thread(waiter);
    edge.target = &calls_[call];
    return graph_.add(edge);
  }
  bool waits_for(std::size_t waiter, std::size_t other) {
    return graph_.waits_for(thread(waiter), thread(other));
  }
  void remove(std::size_t waiter) { graph_.remove(edges_[waiter]); }
  void set_leader(std::size_t call, std::thread::id who) { graph_.set_leader(calls_[call], who); }

 private:
  wait_graph graph_;
  std::deque<wait_edge> edges_;  // which cannot be moved
  std::deque<wait_node> calls_;
};

constexpr std::size_t many = 2000;  // more than there are buckets

TEST(WaitGraph, FollowsAChainOfManyThreadsInEitherOrder) {
  for (const bool upwards : {false, true}) {
    waits w(many);
    for (std::size_t i = 1; i < many; ++i) {
      const std::size_t from = upwards ? i : many - i;
      ASSERT_TRUE(w.add(from, from + 1)) << from;
    }
    EXPECT_FALSE(w.add(many, 1));
    EXPECT_FALSE(w.add(many, many / 2));
    EXPECT_FALSE(w.add(many, many));
    w.remove(many / 2);
    EXPECT_FALSE(w.add(many, many / 2 + 1));
    EXPECT_TRUE(w.add(many, 1));
    EXPECT_FALSE(w.add(many / 2, many));
  }
}

TEST(WaitGraph, HoldsTheEdgesOfManyThreadsThatWaitForOne) {
  waits w(many);
  for (std::size_t i = 2; i <= many; ++i) ASSERT_TRUE(w.add(i, 1)) << i;
  for (std::size_t i = 2; i <= many; ++i) {
    ASSERT_FALSE(w.add(1, i)) << i;
    w.remove(i);
    ASSERT_TRUE(w.add(1, i)) << i;
    w.remove(1);
  }
}

TEST(WaitGraph, HoldsNoEdgeOfACallThatNobodyLeads) {
  waits w(3);
  ASSERT_TRUE(w.add(1, 2));
  w.set_leader(2, {});  // it has ended, or is queued
  ASSERT_TRUE(w.add(2, 1));
  w.remove(2);
  w.set_leader(2, thread(3));  // another thread has claimed it
  EXPECT_FALSE(w.add(3, 1));
  EXPECT_TRUE(w.add(2, 1));
}

TEST(WaitGraph, KnowsWhichThreadWaitsForWhich) {
  waits w(4);
  EXPECT_TRUE(w.waits_for(1, 1));
  EXPECT_FALSE(w.waits_for(1, 2));
  EXPECT_FALSE(w.waits_for(0, 1));  // nobody waits
  ASSERT_TRUE(w.add(1, 2));
  ASSERT_TRUE(w.add(2, 3));
  EXPECT_TRUE(w.waits_for(1, 3));
  EXPECT_FALSE(w.waits_for(3, 1));
  EXPECT_FALSE(w.waits_for(1, 4));
  w.remove(2);
  EXPECT_TRUE(w.waits_for(1, 2));
  EXPECT_FALSE(w.waits_for(1, 3));
}

// No correct program has a circle in the graph. If one has, callers must come back all the same: the
// search holds a lock of the whole process.
TEST(WaitGraph, EndsASearchThatComesIntoACircle) {
  for (const std::size_t size : {1U, 2U, 3U, 500U}) {
    waits w(many);
    for (std::size_t i = 1; i < size; ++i) ASSERT_TRUE(w.add(i, i + 1));
    w.set_leader(size, {});
    ASSERT_TRUE(w.add(size, size));  // it waits for a call that nobody leads
    w.set_leader(size, thread(1));   // which a thread that waits begins to lead
    for (std::size_t i = size + 1; i <= many; ++i) {
      ASSERT_TRUE(w.add(i, i % size + 1)) << i;
    }
    w.remove(many);
    w.remove(1);
    ASSERT_TRUE(w.add(many, size));
  }
}

// --- Many threads ----------------------------------------------------------------------------------

/// Does `first` and `then`, each on a thread of its own, one after the other with nothing that orders
/// them but the lock of the graph: ThreadSanitizer sees where one of them does not take it.
template <class First, class Then>
void one_after_the_other(const First& first, const Then& then) {
  std::atomic<bool> done = false;
  std::thread one([&] {
    first();
    done.store(true, std::memory_order_relaxed);
  });
  std::thread other([&] {
    while (!done.load(std::memory_order_relaxed)) std::this_thread::yield();
    then();
  });
  one.join();
  other.join();
}

TEST(WaitGraph, IsChangedAndSearchedUnderItsLock) {
  wait_graph graph;
  wait_node from;
  wait_node to;
  wait_edge edge;
  from.leader = edge.thread = thread(1);
  edge.target = &to;
  const auto search = [&] { EXPECT_FALSE(graph.waits_for(from, to)); };
  one_after_the_other([&] { graph.set_leader(to, thread(2)); }, search);
  one_after_the_other([&] { EXPECT_TRUE(graph.add(edge)); },
                      [&] { EXPECT_TRUE(graph.waits_for(from, to)); });
  one_after_the_other([&] { graph.remove(edge); }, search);
  one_after_the_other(search, search);
  one_after_the_other([&] { EXPECT_FALSE(graph.waits_for(thread(1), thread(2))); }, search);
  one_after_the_other([&] { graph.end(to); }, search);
}

TEST(WaitGraph, ShowsAnEdgeToANewCallWithItsTarget) {
  wait_graph& graph = singleflight::detail::the_wait_graph();
  wait_node from;
  wait_node to;
  wait_edge edge;
  from.by_thread = to.by_thread = false;
  one_after_the_other([&] { edge.connect_to_new(from, to); },
                      [&] { EXPECT_TRUE(graph.waits_for(from, to)); });
}

}  // namespace
