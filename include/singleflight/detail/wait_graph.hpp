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

/// How many calls this thread leads, one inside the other, and how many hooks of observers it runs,
/// during which it may lead some. Only a thread that leads a call can close a circle of waits, so
/// only such a thread looks for circles.
SINGLEFLIGHT_DETAIL_ONE_PER_PROCESS inline constinit thread_local std::size_t
    calls_led_by_this_thread = 0;

/// Lives while this thread runs the user code of a call that waits for nothing but this thread.
class leading {
 public:
  leading() noexcept { ++calls_led_by_this_thread; }
  /// A loader that began on another thread, as a fiber can, leaves that thread's count one too
  /// high, which costs it a search, and must not leave this one's below zero, which would end its
  /// searches.
  ~leading() {
    if (calls_led_by_this_thread-- > 0) return;
    calls_led_by_this_thread = 0;
    SINGLEFLIGHT_ASSERT(calls_led_by_this_thread > 0,
                        "a loader must return on the thread on which it was called");
  }
  leading(const leading&) = delete;
  leading& operator=(const leading&) = delete;
};

/// The same for user code that may continue on another thread, as a fiber can, which costs this
/// thread nothing but a search.
class leading_from_here {
 public:
  SINGLEFLIGHT_DETAIL_NOINLINE leading_from_here() noexcept : count_(&calls_led_by_this_thread) {
    ++*count_;
  }
  SINGLEFLIGHT_DETAIL_NOINLINE ~leading_from_here() {
    if (count_ == &calls_led_by_this_thread) --*count_;
  }
  leading_from_here(const leading_from_here&) = delete;
  leading_from_here& operator=(const leading_from_here&) = delete;

 private:
  std::size_t* const count_;
};

struct wait_edge;

/// A call in the wait graph. Lives in the handle of the call, and may outlive the call.
struct wait_node {
  // Guarded by the graph's mutex.
  std::thread::id leader;      // no thread: none runs the loader now, or the call has ended
  wait_edge* edges = nullptr;  // of asynchronous callers that make their call inside this one
  bool over = false;           // the call has ended: it waits for nothing any more

  bool by_thread = true;  // whether one thread runs the whole loader; fixed
};

/// "This thread, which runs a loader, waits for that call", or "this call waits for that call",
/// where its loader has said so. Lives in the frame of the caller that waits. That of a thread is
/// in the graph only while the thread does nothing but wait, and so runs no user code: a thread
/// then has one such edge at most, and does not become a leader.
struct wait_edge {
  wait_edge() = default;
  wait_edge(const wait_edge&) = delete;  // linked by address
  wait_edge& operator=(const wait_edge&) = delete;
  ~wait_edge();

  /// Adds the edge of this thread unless it would close a circle. Returns: whether it was added.
  [[nodiscard]] bool connect(const wait_node& call) noexcept;
  /// Adds the edge of an asynchronous caller inside the call `from`, likewise.
  [[nodiscard]] bool connect(wait_node& from, const wait_node& call) noexcept;
  /// As above for a call that begins now and so waits for nothing.
  void connect_to_new(wait_node& from, const wait_node& call) noexcept;
  /// Takes the edge out if it is in.
  void disconnect() noexcept;

  // Fixed while the edge is in the graph.
  std::thread::id thread;             // that waits; none: `inside` does, and no thread for it
  wait_node* inside = nullptr;        // the call that waits; null: the thread itself
  const wait_node* target = nullptr;  // the call that it waits for

  // Guarded by the graph's mutex.
  wait_edge* next = nullptr;      // in the bucket's or the call's chain
  wait_edge** link = nullptr;     // what points at this edge in that chain
  wait_edge* to_visit = nullptr;  // the search: what else is to be visited
  std::uint64_t visited = 0;      // the last search that came here

  bool connected = false;  // whether the edge is in the graph; of the waiting caller alone
};

/// Which thread and which call waits for which call, over all groups of all types. It has an edge
/// for each thread that waits for a call inside a loader, and for each asynchronous caller that
/// says inside which call it is; others touch it only where they lead such a call. The edges of
/// threads are in a hash map of fixed size, so that a step takes constant time with up to some
/// thousand of them.
class wait_graph {
 public:
  /// Returns: false, with nothing added, if the edge would close a circle. To a new call no edge
  ///   does.
  [[nodiscard]] bool add(wait_edge& edge, bool to_new = false) noexcept {
    const lock guard(mutex_);
    if (edge.inside != nullptr && edge.inside->by_thread) edge.thread = edge.inside->leader;
    if (!to_new && leads_to(*edge.target, edge.thread, edge.inside)) return false;
    wait_edge*& chain =
        edge.thread == std::thread::id() ? edge.inside->edges : buckets_[bucket_of(edge.thread)];
    edge.next = chain;
    if (chain != nullptr) chain->link = &edge.next;
    edge.link = &chain;
    chain = &edge;
    return true;
  }

  void remove(wait_edge& edge) noexcept {
    const lock guard(mutex_);
    *edge.link = edge.next;
    if (edge.next != nullptr) edge.next->link = edge.link;
  }

  /// Whether a thread is that other one or waits for it, through others or not.
  [[nodiscard]] bool waits_for(std::thread::id waiter, std::thread::id other) noexcept {
    wait_node led;
    led.leader = waiter;
    const lock guard(mutex_);
    return leads_to(led, other, nullptr);
  }

  /// Whether a call is that other one or waits for it, through others or not.
  [[nodiscard]] bool waits_for(const wait_node& call, const wait_node& other) noexcept {
    const lock guard(mutex_);
    return leads_to(call, other.by_thread ? other.leader : std::thread::id(), &other);
  }

  /// In a forked child, whose one thread waits for none: takes out all edges, which are in frames
  /// of threads that it lacks, as the owner of the mutex may be.
  void renew_after_fork() noexcept { ::new (this) wait_graph; }

  /// Says who leads a call.
  void set_leader(wait_node& call, std::thread::id who) noexcept {
    const lock guard(mutex_);
    call.leader = who;
  }

  /// Says that a call has ended.
  void end(wait_node& call) noexcept {
    const lock guard(mutex_);
    take_out(call);
  }

 private:
  static constexpr std::size_t bucket_count = 1024;

  [[nodiscard]] static std::size_t bucket_of(std::thread::id thread) noexcept {
    constexpr int shift = 64 - std::countr_zero(bucket_count);
    return static_cast<std::size_t>(mix(std::hash<std::thread::id>()(thread)) >> shift);
  }

  /// Nobody leads the call, and it waits for nothing any more.
  void take_out(wait_node& call) noexcept SINGLEFLIGHT_REQUIRES(mutex_) {
    call.leader = {};
    call.over = true;
  }

  /// Whether a way leads from a call to a thread or to another call. Visits each edge once, so that
  /// it ends whatever is in the graph.
  [[nodiscard]] bool leads_to(const wait_node& from, std::thread::id thread,
                              const wait_node* call) noexcept SINGLEFLIGHT_REQUIRES(mutex_) {
    ++search_;
    wait_edge* to_visit = nullptr;
    for (const wait_node* at = &from;;) {
      if (!at->over) {
        if (at == call) return true;
        if (at->leader != std::thread::id()) {
          if (at->leader == thread) return true;
          push_edges(buckets_[bucket_of(at->leader)], at->leader, to_visit);
        }
        push_edges(at->edges, std::thread::id(), to_visit);
      }
      if (to_visit == nullptr) return false;
      at = to_visit->target;
      to_visit = to_visit->to_visit;
    }
  }

  /// Has the edges of a thread, or of a call, visited.
  void push_edges(wait_edge* chain, std::thread::id of, wait_edge*& to_visit) const noexcept
      SINGLEFLIGHT_REQUIRES(mutex_) {
    for (wait_edge* e = chain; e != nullptr; e = e->next) {
      if (e->thread != of || e->visited == search_ || (e->inside != nullptr && e->inside->over)) {
        continue;
      }
      e->visited = search_;
      e->to_visit = to_visit;
      to_visit = e;
    }
  }

  mutex mutex_;
  wait_edge* buckets_[bucket_count] SINGLEFLIGHT_GUARDED_BY(mutex_) = {};
  std::uint64_t search_ SINGLEFLIGHT_GUARDED_BY(mutex_) = 0;
};

/// The one graph. Never destroyed: groups may be used by the destructors of other statics. (Not
/// `constinit`: the constructor of `std::mutex` is not constexpr everywhere.)
SINGLEFLIGHT_DETAIL_ONE_PER_PROCESS inline wait_graph& the_wait_graph() noexcept {
  alignas(wait_graph) static std::byte room[sizeof(wait_graph)];
  static wait_graph& graph = *::new (room) wait_graph;
  return graph;
}

inline wait_edge::~wait_edge() { disconnect(); }

inline bool wait_edge::connect(const wait_node& call) noexcept {
  thread = std::this_thread::get_id();
  target = &call;
  return connected = the_wait_graph().add(*this);
}

inline bool wait_edge::connect(wait_node& from, const wait_node& call) noexcept {
  thread = {};
  inside = &from;
  target = &call;
  return connected = the_wait_graph().add(*this);
}

inline void wait_edge::connect_to_new(wait_node& from, const wait_node& call) noexcept {
  thread = {};
  inside = &from;
  target = &call;
  connected = the_wait_graph().add(*this, true);
}

inline void wait_edge::disconnect() noexcept {
  if (std::exchange(connected, false)) the_wait_graph().remove(*this);
}

}  // namespace singleflight::inline SINGLEFLIGHT_ABI::detail

#endif  // SINGLEFLIGHT_DETAIL_WAIT_GRAPH_HPP
