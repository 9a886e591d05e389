// SPDX-License-Identifier: MIT
#ifndef SINGLEFLIGHT_DETAIL_WAIT_GRAPH_HPP
#define SINGLEFLIGHT_DETAIL_WAIT_GRAPH_HPP

#include <bit>
#include <cstddef>
#include <cstdint>
#include <new>
#include <thread>
#include <utility>

#include "assert.hpp"
#include "config.hpp"
#include "hash.hpp"
#include "mutex.hpp"

namespace singleflight::inline SINGLEFLIGHT_ABI::detail {

/// How many calls this thread leads, one inside the other. Only a thread that leads a call can close
/// a circle of waits, so only such a thread looks for circles.
SINGLEFLIGHT_DETAIL_ONE_PER_PROCESS inline constinit thread_local std::size_t
    calls_led_by_this_thread = 0;

/// Lives while this thread runs the user code of a call that waits for nothing but this thread.
class leading {
 public:
  leading() noexcept { ++calls_led_by_this_thread; }
  /// A loader that began on another thread, as a fiber can, leaves that thread's count one too high,
  /// which costs it a search, and must not leave this one's below zero, which would end its searches.
  ~leading() {
    if (calls_led_by_this_thread-- > 0) return;
    calls_led_by_this_thread = 0;
    SINGLEFLIGHT_ASSERT(calls_led_by_this_thread > 0,
                        "a loader must return on the thread on which it was called");
  }
  leading(const leading&) = delete;
  leading& operator=(const leading&) = delete;
};

/// "This thread, which runs a loader, waits for that call's leader." Lives in the waiting thread's
/// frame. It is in the graph only while the thread does nothing but wait, and so runs no user code:
/// a thread then has one edge at most, and does not become a leader.
struct wait_edge {
  wait_edge() = default;
  wait_edge(const wait_edge&) = delete;  // linked by address
  wait_edge& operator=(const wait_edge&) = delete;
  ~wait_edge();

  /// Adds the edge unless it would close a circle. Returns: whether it was added.
  [[nodiscard]] bool connect(const std::thread::id& call_leader) noexcept;
  /// Takes the edge out if it is in.
  void disconnect() noexcept;

  // Fixed while the edge is in the graph.
  std::thread::id waiter;
  const std::thread::id* leader = nullptr;  // shows no thread before an executor has started the
                                            // call and after its end: then the edge leads nowhere
  // Guarded by the graph's mutex.
  wait_edge* next = nullptr;   // in the bucket's chain
  wait_edge** link = nullptr;  // what points at this edge in that chain

  bool connected = false;  // whether the edge is in the graph; of the waiting thread alone
};

/// Which thread waits for which, over all groups of all types. It has an edge for each thread that
/// waits for a call inside a loader; other threads touch it only where they lead such a call. A hash
/// map by the waiting thread, of fixed size, so that a step takes constant time with up to some thousand edges.
class wait_graph {
 public:
  /// Returns: false, with nothing added, if the edge would close a circle.
  [[nodiscard]] bool add(wait_edge& edge) noexcept {
    const lock guard(mutex_);
    if (leads_to(*edge.leader, edge.waiter)) return false;
    wait_edge*& bucket = buckets_[bucket_of(edge.waiter)];
    edge.next = bucket;
    if (bucket != nullptr) bucket->link = &edge.next;
    edge.link = &bucket;
    bucket = &edge;
    ++edges_;
    return true;
  }

  void remove(wait_edge& edge) noexcept {
    const lock guard(mutex_);
    *edge.link = edge.next;
    if (edge.next != nullptr) edge.next->link = edge.link;
    --edges_;
  }

  /// Whether a thread is that other one or waits for it, through others or not.
  [[nodiscard]] bool waits_for(std::thread::id waiter, std::thread::id other) noexcept {
    const lock guard(mutex_);
    return leads_to(waiter, other);
  }

  /// In a forked child, whose one thread waits for none: takes out all edges, which are in frames of
  /// threads that it lacks, as the owner of the mutex may be.
  void renew_after_fork() noexcept { ::new (this) wait_graph; }

  /// Says who leads a call, whose edges point at `leader`.
  void set_leader(std::thread::id& leader, std::thread::id who) noexcept {
    const lock guard(mutex_);
    leader = who;
  }

 private:
  static constexpr std::size_t bucket_count = 1024;

  [[nodiscard]] static std::size_t bucket_of(std::thread::id thread) noexcept {
    constexpr int shift = 64 - std::countr_zero(bucket_count);
    return static_cast<std::size_t>(mix(std::hash<std::thread::id>()(thread)) >> shift);
  }

  [[nodiscard]] bool leads_to(std::thread::id from, std::thread::id to) const noexcept
      SINGLEFLIGHT_REQUIRES(mutex_) {
    for (std::size_t steps = 0; from != std::thread::id(); ++steps) {
      if (from == to) return true;
      const wait_edge* const onward = find(from);
      if (onward == nullptr) return false;
      // More steps than edges: this thread waits for itself. No correct program comes here, and one
      // that does must not go round under the lock without end.
      if (steps == edges_) return true;
      from = *onward->leader;
    }
    return false;
  }

  /// Returns: the edge of that thread, or null.
  [[nodiscard]] const wait_edge* find(std::thread::id waiter) const noexcept
      SINGLEFLIGHT_REQUIRES(mutex_) {
    const wait_edge* e = buckets_[bucket_of(waiter)];
    while (e != nullptr && e->waiter != waiter) e = e->next;
    return e;
  }

  mutex mutex_;
  wait_edge* buckets_[bucket_count] SINGLEFLIGHT_GUARDED_BY(mutex_) = {};
  std::size_t edges_ SINGLEFLIGHT_GUARDED_BY(mutex_) = 0;
};

/// The one graph. Never destroyed: groups may be used by the destructors of other statics. (Not
/// `constinit`: the constructor of `std::mutex` is not constexpr everywhere.)
SINGLEFLIGHT_DETAIL_ONE_PER_PROCESS inline wait_graph& the_wait_graph() noexcept {
  alignas(wait_graph) static std::byte room[sizeof(wait_graph)];
  static wait_graph& graph = *::new (room) wait_graph;
  return graph;
}

inline wait_edge::~wait_edge() { disconnect(); }

inline bool wait_edge::connect(const std::thread::id& call_leader) noexcept {
  waiter = std::this_thread::get_id();
  leader = &call_leader;
  return connected = the_wait_graph().add(*this);
}

inline void wait_edge::disconnect() noexcept {
  if (std::exchange(connected, false)) the_wait_graph().remove(*this);
}

}  // namespace singleflight::inline SINGLEFLIGHT_ABI::detail

#endif  // SINGLEFLIGHT_DETAIL_WAIT_GRAPH_HPP
