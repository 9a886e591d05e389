// SPDX-License-Identifier: MIT
#ifndef SINGLEFLIGHT_DETAIL_WAIT_GRAPH_HPP
#define SINGLEFLIGHT_DETAIL_WAIT_GRAPH_HPP

#include <cstddef>
#include <thread>

#include "mutex.hpp"

namespace singleflight::inline v1::detail {

/// How many calls this thread leads, one inside the other. Only a thread that leads one can close a
/// circle of waits, so only such a thread looks for circles.
inline constinit thread_local std::size_t calls_led_by_this_thread = 0;

/// Lives while this thread runs the user code of a call that waits for nothing but this thread.
class leading {
 public:
  leading() noexcept { ++calls_led_by_this_thread; }
  ~leading() { --calls_led_by_this_thread; }
  leading(const leading&) = delete;
  leading& operator=(const leading&) = delete;
};

/// "This thread, which runs a loader, waits for that thread's call." Made in the waiting thread's
/// frame; one thread has one at a time. Fixed while it is in the graph, but for `*leader`.
struct wait_edge {
  std::thread::id waiter;
  const std::thread::id* leader = nullptr;  // nobody before an executor has started the call, and
                                            // after the call has ended: then the edge is void
  wait_edge* next = nullptr;
};

/// Who waits for whom, over all groups of all types. Small: it has an edge for each thread that
/// waits for a call inside a loader, and nothing of all the others.
class wait_graph {
 public:
  /// Adds the edge unless it would close a circle. Returns: whether it did.
  [[nodiscard]] bool add(wait_edge& edge) noexcept {
    const lock guard(mutex_);
    for (std::thread::id at = *edge.leader; at != std::thread::id();) {
      if (at == edge.waiter) return false;
      const wait_edge* onward = from(at);
      if (onward == nullptr) break;
      at = *onward->leader;
    }
    edge.next = edges_;
    edges_ = &edge;
    return true;
  }

  void remove(const wait_edge& edge) noexcept {
    const lock guard(mutex_);
    wait_edge** at = &edges_;
    while (*at != &edge) at = &(*at)->next;
    *at = edge.next;
  }

  /// Says who leads a call, whose edges point at `leader`.
  void set_leader(std::thread::id& leader, std::thread::id who) noexcept {
    const lock guard(mutex_);
    leader = who;
  }

 private:
  /// Returns: the edge of that thread, or null.
  [[nodiscard]] const wait_edge* from(std::thread::id waiter) const noexcept
      SINGLEFLIGHT_REQUIRES(mutex_) {
    const wait_edge* e = edges_;
    while (e != nullptr && e->waiter != waiter) e = e->next;
    return e;
  }

  mutex mutex_;
  wait_edge* edges_ SINGLEFLIGHT_GUARDED_BY(mutex_) = nullptr;
};

/// The one graph. Never destroyed: groups may be used by the destructors of other statics.
inline wait_graph& the_wait_graph() noexcept {
  union immortal {
    wait_graph graph;
    constexpr immortal() noexcept : graph() {}
    ~immortal() {}
  };
  static constinit immortal instance;
  return instance.graph;
}

}  // namespace singleflight::inline v1::detail

#endif  // SINGLEFLIGHT_DETAIL_WAIT_GRAPH_HPP
