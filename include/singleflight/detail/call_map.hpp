// SPDX-License-Identifier: MIT
#ifndef SINGLEFLIGHT_DETAIL_CALL_MAP_HPP
#define SINGLEFLIGHT_DETAIL_CALL_MAP_HPP

#include <bit>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <exception>
#include <memory>
#include <new>
#include <thread>
#include <utility>

#include "../stats.hpp"
#include "call.hpp"
#include "config.hpp"
#include "key_buffer.hpp"
#include "mutex.hpp"
#include "stop.hpp"
#include "wait_graph.hpp"

#if defined(_MSC_VER)
#pragma warning(push)
#pragma warning(disable : 4324)  // "structure was padded due to alignment specifier": on purpose
#endif

namespace singleflight::inline SINGLEFLIGHT_ABI::detail {

/// Features that a waiter requires of the call.
struct wait_needs {
  bool to_leave = false;     // by a deadline or the group's max_age
  bool to_be_woken = false;  // otherwise than by the future: see waiter_list.hpp
  bool an_edge = false;      // in the wait graph
};

/// One shard of a group: the listed calls of some of its keys, its counters, and the mutex that
/// guards both. Also the one place that says what beginning, joining, leaving and ending a call do
/// to them.
///
/// A hash map with chained buckets whose nodes are the calls themselves, wherever they live.
/// The alignment keeps the shards themselves off each other's cache lines; their bucket arrays may
/// share one.
template <class Key, class Value>
class alignas(64) call_map {
 public:
  using call_type = call<Key, Value>;
  using handle_type = call_handle<Key, Value>;
  using counter = std::uint64_t group_stats::*;

  mutable detail::mutex mutex;

  call_map() = default;
  call_map(const call_map&) = delete;  // calls point into it
  call_map& operator=(const call_map&) = delete;
  ~call_map() = default;

  /// Returns: the listed call for this key, or null. Throws: what the equality throws.
  template <class K, class KeyEqual>
  [[nodiscard]] call_type* find(std::uint64_t hash, const K& key, const KeyEqual& equal) const
      SINGLEFLIGHT_REQUIRES(mutex) {
    for (call_type* c = buckets_[bucket_of(hash)]; c != nullptr; c = c->next) {
      if (c->hash == hash && equal(c->key, key)) return c;
    }
    return nullptr;
  }

  void count(counter which) noexcept SINGLEFLIGHT_REQUIRES(mutex) { ++(stats_.*which); }

  /// Returns: the argument that a new call's key is made of. Throws: what copying a key throws.
  template <class K>
  [[nodiscard]] decltype(auto) make_key(K&& key) SINGLEFLIGHT_REQUIRES(mutex) {
    return key_buffer_.make(std::forward<K>(key));
  }

  /// Begins a call, in which one caller is interested: the one that begins it.
  void begin(call_type&) noexcept SINGLEFLIGHT_REQUIRES(mutex) { ++stats_.in_flight; }

  /// Lets new callers join the call. No other call for its key may be listed.
  void list(call_type& c) noexcept SINGLEFLIGHT_REQUIRES(mutex) {
    if (listed_ >= bucket_count_) grow();
    link(c, buckets_[bucket_of(c.hash)]);
    ++listed_;
  }

  /// Lets nobody join a call that is not in the map.
  void leave_unlisted(call_type& c) noexcept SINGLEFLIGHT_REQUIRES(mutex) {
    c.unlisted = true;
    link(c, unlisted_);
  }

  /// Takes a listed call out of the map while it goes on. Its waiters stay with it.
  void unlist(call_type& c) noexcept SINGLEFLIGHT_REQUIRES(mutex) {
    take_out(c);
    leave_unlisted(c);
  }

  /// Notes that a caller wants no result that was read before now.
  void forget() noexcept SINGLEFLIGHT_REQUIRES(mutex) { ++forgets_; }

  /// Returns: how often a key of this shard was forgotten or a call superseded.
  [[nodiscard]] std::uint64_t forgets() const noexcept SINGLEFLIGHT_REQUIRES(mutex) {
    return forgets_;
  }

  /// Takes a listed call out of the map because of its age.
  void supersede(call_type& c) noexcept SINGLEFLIGHT_REQUIRES(mutex) {
    unlist(c);
    forget();
    count(&group_stats::superseded);
  }

  /// Returns: what a caller needs to wait for the call.
  /// Throws: `std::bad_alloc`, and then no other caller notices.
  wait_ticket<Key, Value> make_ticket(call_type& c, wait_needs needs) SINGLEFLIGHT_REQUIRES(mutex) {
    if (!c.shared) c.shared.emplace();
    if (!c.shared->channel) c.shared->channel.emplace();
    if (needs.to_leave || needs.to_be_woken || needs.an_edge) make_handle(c, needs);
    return {c.shared->channel->future, c.shared->handle};
  }

  /// Returns: the handle of the call that a caller is about to join.
  /// Throws: `std::bad_alloc`, and then no other caller notices.
  const std::shared_ptr<handle_type>& make_handle_to_join(call_type& c, wait_needs needs)
      SINGLEFLIGHT_REQUIRES(mutex) {
    if (!c.shared) c.shared.emplace();
    if (!c.shared->channel) c.shared->channel.emplace();
    return make_handle(c, needs);
  }

  /// Returns: the handle of the call, with what a caller needs of it.
  /// Throws: `std::bad_alloc`, and then no other caller notices.
  const std::shared_ptr<handle_type>& make_handle(call_type& c, wait_needs needs)
      SINGLEFLIGHT_REQUIRES(mutex) {
    if (!c.shared) c.shared.emplace();
    std::shared_ptr<handle_type>& handle = c.shared->handle;
    if (handle == nullptr) {
      handle = std::make_shared<handle_type>();
      handle->home = this;
      handle->running = &c;
    }
    if (needs.to_be_woken && !handle->waiters) handle->waiters.emplace();
    if (needs.an_edge && !handle->watched) {
      handle->watched = true;
      show_leader(c);
    }
    return handle;
  }

  /// Returns: the call of that handle, or null if it has ended.
  [[nodiscard]] call_type* running(const handle_type& handle) const noexcept
      SINGLEFLIGHT_REQUIRES(mutex) {
    return handle.running;
  }

  /// Whether any caller wants the result of a call that runs.
  [[nodiscard]] bool is_wanted(const call_type& c) const noexcept SINGLEFLIGHT_REQUIRES(mutex) {
    return c.interested > 0;
  }

  /// Returns: what the loader of a call that runs is told to stop with: `made`, unless the call has
  /// a source already.
  [[nodiscard]] const stop_source& stop_of(call_type& c, stop_source& made) noexcept
      SINGLEFLIGHT_REQUIRES(mutex) {
    if (!c.stop.stop_possible()) c.stop.swap(made);
    return c.stop;
  }

  /// Says which thread leads the call: none while an executor has it queued.
  void set_leader(call_type& c, std::thread::id leader) noexcept SINGLEFLIGHT_REQUIRES(mutex) {
    c.leader = leader;
    if (c.shared->handle->watched) show_leader(c);
  }

  /// Counts the caller that has begun the call, elsewhere than in its own frame, as one that waits.
  /// From when on, `begin_to_wait` says.
  void add_beginner(call_type& c) noexcept SINGLEFLIGHT_REQUIRES(mutex) {
    c.shared->leader_waits = true;
    ++c.shared->waiters;
    ++stats_.waiting;
  }

  /// Notes that a caller waits from now on, unless one has been waiting. Not earlier than that,
  /// since to read the clock costs as much as all else that a short call does.
  void begin_to_wait(call_type& c) noexcept SINGLEFLIGHT_REQUIRES(mutex) {
    auto& since = c.shared->waiting_since;
    if (since == std::chrono::steady_clock::time_point()) since = std::chrono::steady_clock::now();
  }

  /// Counts a caller among those that have joined the call and wait for it.
  void add_follower(call_type& c) noexcept SINGLEFLIGHT_REQUIRES(mutex) {
    // Not for a caller that is refused: the promise, which then nobody keeps, would break, which
    // takes memory that may not be there.
    handle_type* const handle = c.shared->handle.get();
    if (handle != nullptr && !handle->future.valid()) handle->future = c.shared->channel->future;
    c.shared->joined = true;
    c.shared->handed_out = true;
    ++c.interested;
    begin_to_wait(c);
    ++c.shared->waiters;
    ++stats_.waiting;
  }

  /// Takes back one caller's interest in a call that runs. If it was the last, unlists the call.
  /// Returns: the source to stop the loader with, once the mutex is released; an empty one if
  /// another caller still wants the result.
  [[nodiscard]] stop_source remove_interest(call_type& c) noexcept SINGLEFLIGHT_REQUIRES(mutex) {
    if (--c.interested > 0) return no_stop_source();
    if (c.listed()) unlist(c);
    return c.stop;
  }

  /// Takes back one caller's wait for a call that runs. Returns: as `remove_interest`.
  [[nodiscard]] stop_source remove_waiter(call_type& c) noexcept SINGLEFLIGHT_REQUIRES(mutex) {
    if (--c.shared->waiters == 0) c.shared->waiting_since = {};
    --stats_.waiting;
    return remove_interest(c);
  }

  /// Ends a call: unlists it, by identity, so that a call that was forgotten or superseded leaves
  /// the newer call for its key alone. From here on only the leader touches it.
  void end(call_type& c) noexcept SINGLEFLIGHT_REQUIRES(mutex) {
    take_out(c);
    key_buffer_.keep(c.key);
    end_taken_out(c);
  }

  /// As `end`, for a call whose key is looked at afterwards.
  void end_and_leave_key(call_type& c) noexcept SINGLEFLIGHT_REQUIRES(mutex) {
    take_out(c);
    end_taken_out(c);
  }

  /// In a forked child, which has only this thread: takes out the calls of other threads, and the
  /// followers of this thread's out of the accounts. Runs no user code. Those calls are on stacks of
  /// threads that are gone, which are still readable here and may be reused later. `lost` is for
  /// holders of their futures. Returns: how many asynchronous calls were among them.
  std::size_t forget_other_threads(const std::exception_ptr& lost) noexcept
      SINGLEFLIGHT_REQUIRES(mutex) {
    std::size_t asynchronous = forget_other_threads_of(unlisted_, lost);
    for (std::size_t i = 0; i < bucket_count_; ++i) {
      asynchronous += forget_other_threads_of(buckets_[i], lost);
    }
    return asynchronous;
  }

  [[nodiscard]] const group_stats& stats() const SINGLEFLIGHT_REQUIRES(mutex) { return stats_; }
  [[nodiscard]] std::size_t listed() const SINGLEFLIGHT_REQUIRES(mutex) { return listed_; }

  /// Calls `visit` with every listed call.
  template <class Visit>
  void for_each(const Visit& visit) const SINGLEFLIGHT_REQUIRES(mutex) {
    for (std::size_t i = 0; i < bucket_count_; ++i) {
      for (const call_type* c = buckets_[i]; c != nullptr; c = c->next) visit(*c);
    }
  }

 private:
  static constexpr std::size_t first_buckets = 8;

  /// Takes a call out of its chain, of a bucket or of those that are not listed.
  void take_out(call_type& c) noexcept SINGLEFLIGHT_REQUIRES(mutex) {
    *c.link = c.next;
    if (c.next != nullptr) c.next->link = c.link;
    if (c.listed()) --listed_;
  }

  void end_taken_out(call_type& c) noexcept SINGLEFLIGHT_REQUIRES(mutex) {
    c.ended = true;
    --stats_.in_flight;
    if (!c.shared) return;
    stats_.waiting -= c.shared->waiters;
    if (handle_type* handle = c.shared->handle.get()) {
      handle->running = nullptr;
      handle->joined = c.shared->joined;
    }
  }

  [[nodiscard]] std::size_t bucket_of(std::uint64_t hash) const noexcept
      SINGLEFLIGHT_REQUIRES(mutex) {
    return static_cast<std::size_t>(hash >> shift_);
  }

  /// Shows the wait graph who leads the call.
  void show_leader(call_type& c) noexcept SINGLEFLIGHT_REQUIRES(mutex) {
    the_wait_graph().set_leader(c.shared->handle->node, c.leader);
  }

  static void link(call_type& c, call_type*& bucket) noexcept {
    c.next = bucket;
    if (bucket != nullptr) bucket->link = &c.next;
    c.link = &bucket;
    bucket = &c;
  }

  /// Does what `forget_other_threads` does, with the calls of one chain.
  std::size_t forget_other_threads_of(call_type* chain, const std::exception_ptr& lost) noexcept
      SINGLEFLIGHT_REQUIRES(mutex) {
    std::size_t asynchronous = 0;
    for (call_type* c = chain; c != nullptr;) {
      call_type* const next = c->next;
      if (c->leader == std::this_thread::get_id()) {
        forget_followers(*c);
      } else {
        if (lose(*c, lost)) ++asynchronous;
      }
      c = next;
    }
    return asynchronous;
  }

  void forget_followers(call_type& c) noexcept SINGLEFLIGHT_REQUIRES(mutex) {
    if (!c.shared) return;
    const std::size_t gone = c.followers();
    c.shared->waiters -= gone;
    if (c.shared->waiters == 0) c.shared->waiting_since = {};
    c.interested -= gone;
    stats_.waiting -= gone;
    // Points into their frames.
    if (c.shared->handle != nullptr && c.shared->handle->waiters) {
      c.shared->handle->waiters->forget_all();
    }
  }

  /// Takes out a call that a forked child will never end. Returns: whether it is asynchronous.
  bool lose(call_type& c, [[maybe_unused]] const std::exception_ptr& why) noexcept
      SINGLEFLIGHT_REQUIRES(mutex) {
    take_out(c);
    --stats_.in_flight;
    if (!c.shared) return false;
    stats_.waiting -= c.shared->waiters;
    handle_type* const handle = c.shared->handle.get();
    if (handle != nullptr) {
      handle->running = nullptr;
      handle->lost = true;
      // Whoever comes to wait is the caller whose executor forks: its call is over.
      if (handle->waiters) handle->waiters->forget_all(true);
    }
#if defined(__GLIBCXX__)  // elsewhere a future has a mutex, which a thread that is gone may hold
    if (std::exchange(c.shared->handed_out, false)) c.shared->channel->promise.set_exception(why);
#endif
    return handle != nullptr && !handle->node.by_thread;
  }

  /// Doubles the buckets. Where there is no memory for that, chains get longer instead: a caller
  /// must not fail because of how many others there are.
  void grow() noexcept SINGLEFLIGHT_REQUIRES(mutex) {
    std::unique_ptr<call_type*[]> old(new (std::nothrow) call_type* [2 * bucket_count_] {});
    if (old == nullptr) return;
    buckets_.swap(old);
    --shift_;
    for (std::size_t i = 0; i < bucket_count_; ++i) {
      for (call_type* c = old[i]; c != nullptr;) {
        call_type* const next = c->next;
        link(*c, buckets_[bucket_of(c->hash)]);
        c = next;
      }
    }
    bucket_count_ *= 2;
  }

  std::unique_ptr<call_type* []> buckets_ SINGLEFLIGHT_GUARDED_BY(mutex) {
    new call_type* [first_buckets] {}
  };
  std::size_t bucket_count_ SINGLEFLIGHT_GUARDED_BY(mutex) = first_buckets;  // a power of two
  int shift_ SINGLEFLIGHT_GUARDED_BY(mutex) = 64 - std::countr_zero(first_buckets);
  std::uint32_t listed_ SINGLEFLIGHT_GUARDED_BY(mutex) = 0;       // more would not fit into memory
  call_type* unlisted_ SINGLEFLIGHT_GUARDED_BY(mutex) = nullptr;  // the first of those in flight
  group_stats stats_ SINGLEFLIGHT_GUARDED_BY(mutex);
  SINGLEFLIGHT_DETAIL_NO_UNIQUE_ADDRESS key_buffer<Key> key_buffer_ SINGLEFLIGHT_GUARDED_BY(mutex);
  std::uint64_t forgets_ SINGLEFLIGHT_GUARDED_BY(mutex) = 0;
};

}  // namespace singleflight::inline SINGLEFLIGHT_ABI::detail

#if defined(_MSC_VER)
#pragma warning(pop)
#endif

#endif  // SINGLEFLIGHT_DETAIL_CALL_MAP_HPP
