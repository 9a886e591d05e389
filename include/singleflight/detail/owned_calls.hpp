// SPDX-License-Identifier: MIT
#ifndef SINGLEFLIGHT_DETAIL_OWNED_CALLS_HPP
#define SINGLEFLIGHT_DETAIL_OWNED_CALLS_HPP

#include <atomic>
#include <condition_variable>
#include <cstddef>
#include <memory>
#include <mutex>  // std::unique_lock
#include <thread>
#include <utility>

#include "config.hpp"
#include "mutex.hpp"
#include "wait_graph.hpp"
#include "waiter_list.hpp"

namespace singleflight::inline SINGLEFLIGHT_ABI::detail {

/// The calls of a group that live on the heap: those on executors, which the group's destructor
/// waits for, and the asynchronous ones, which it does not.
class owned_calls {
 public:
  /// One of them.
  class member {
   public:
    member() = default;
    member(const member&) = delete;  // linked by address
    member& operator=(const member&) = delete;

   protected:
    ~member() = default;

    /// Returns: what keeps the call alive, or null if it is being destroyed, or is in no list.
    [[nodiscard]] virtual std::shared_ptr<member> keep() noexcept { return nullptr; }
    /// Fails the call as dropped unless a thread has begun to run it.
    virtual void drop() noexcept = 0;

    /// Whether a forked child does not have the thread that would end the call. It is written while
    /// the child has one thread.
    [[nodiscard]] bool lost() const noexcept { return lost_; }

   private:
    friend class owned_calls;

    // Guarded by the mutex of the list.
    std::thread::id owner_;  // gives it to its executor, or runs or fails it; none: it is queued
    member* next_ = nullptr;
    member** link_ = nullptr;  // what points at this one

    bool lost_ = false;
  };

  owned_calls() = default;
  owned_calls(const owned_calls&) = delete;  // linked by address
  owned_calls& operator=(const owned_calls&) = delete;
  ~owned_calls() = default;

  /// Adds a call that this thread is about to give to an executor.
  void add(member& m) noexcept {
    const lock guard(mutex_);
    set_owner(m, std::this_thread::get_id());
    m.next_ = first_;
    if (first_ != nullptr) first_->link_ = &m.next_;
    m.link_ = &first_;
    first_ = &m;
  }

  /// Notes that this thread runs or fails the call.
  void own(member& m) noexcept {
    const lock guard(mutex_);
    set_owner(m, std::this_thread::get_id());
  }

  /// Notes that this thread has given the call to its executor, unless another runs it already.
  void disown(member& m) noexcept {
    const lock guard(mutex_);
    if (!is_owned_here(m)) return;
    set_owner(m, {});
    if (drops_queued_) changed_.notify_one();
  }

  /// Notifies the one destructor that may wait, and under the mutex: once that is released, the
  /// group may be gone.
  void remove(member& m) noexcept {
    const lock guard(mutex_);
    unlink(m);
    if (first_ == nullptr) changed_.notify_one();
  }

  /// Whether no call is on an executor.
  [[nodiscard]] bool empty() noexcept {
    const lock guard(mutex_);
    return first_ == nullptr;
  }

  void add_asynchronous() noexcept { asynchronous_.fetch_add(1); }

  /// Wakes those who wait for the last asynchronous call.
  void remove_asynchronous(std::size_t count = 1) noexcept {
    if (count == 0 || asynchronous_.fetch_sub(count) != count || !awaited_.load()) return;
    std::shared_ptr<waiter_list> drained;
    {
      const lock guard(mutex_);
      drained = std::move(drained_);
    }
    if (drained != nullptr) drained->publish(drained);
  }

  /// Returns: how many asynchronous calls there are.
  [[nodiscard]] std::size_t asynchronous() const noexcept { return asynchronous_.load(); }

  /// Returns: the list to wait in until no asynchronous call is left; null if none is left now.
  /// Throws: `std::bad_alloc`.
  [[nodiscard]] std::shared_ptr<waiter_list> until_drained() {
    auto made = std::make_shared<waiter_list>();  // before the lock: a new-handler may call exit
    const lock guard(mutex_);
    if (drained_ == nullptr) drained_ = std::move(made);
    awaited_.store(true);
    // After that: the last call looks for it when it has counted itself out.
    return asynchronous() == 0 ? nullptr : drained_;
  }

  /// Waits until no call is on an executor. Returns: false, at once, if this thread owns one of
  /// them, which then cannot end: its loader or executor has ended the process or its own group.
  [[nodiscard]] bool wait() noexcept {
    const lock guard(mutex_);
    if (this_thread_owns_one()) return false;
    while (first_ != nullptr) wait_for_a_change();
    return true;
  }

  /// As `wait`, where this thread ends the process: it may be the one that would run what is
  /// queued, which it drops, or lead a call that the others wait for. Returns: false also if other
  /// threads had calls, for one that gave a call to its executor is still in the group.
  [[nodiscard]] bool end_at_exit() noexcept {
    for (bool others_had_some = false;;) {
      std::shared_ptr<member> queued;
      {
        const lock guard(mutex_);
        others_had_some |= any_is_owned();
        queued = find_queued();
        if (queued == nullptr) {
          if (first_ == nullptr) return !others_had_some;
          if (calls_led_by_this_thread > 0 || this_thread_owns_one()) return false;
          drops_queued_ = true;
          wait_for_a_change();
          continue;
        }
      }
      queued->drop();
    }
  }

  // What happens to it when the process forks: see fork.hpp.

  void lock_before_fork() noexcept { mutex_.lock_before_fork(); }
  void unlock_after_fork() noexcept { mutex_.unlock_after_fork(); }

  /// In a forked child, which has only this thread: takes out the calls that it does not own.
  void forget_other_threads() noexcept SINGLEFLIGHT_NOT_ANALYSED {
    member* next = nullptr;
    for (member* m = first_; m != nullptr; m = next) {
      next = m->next_;
      if (is_owned_here(*m)) continue;
      m->lost_ = true;
      unlink(*m);
    }
    if (drained_ != nullptr) drained_->forget_all();
    std::construct_at(&changed_);  // a thread that is gone may have waited on it
    mutex_.renew_after_fork();
  }

 private:
  void unlink(member& m) noexcept SINGLEFLIGHT_REQUIRES(mutex_) {
    *m.link_ = m.next_;
    if (m.next_ != nullptr) m.next_->link_ = m.link_;
  }

  void set_owner(member& m, std::thread::id who) noexcept SINGLEFLIGHT_REQUIRES(mutex_) {
    m.owner_ = who;
  }
  [[nodiscard]] bool is_owned_here(const member& m) const noexcept SINGLEFLIGHT_REQUIRES(mutex_) {
    return m.owner_ == std::this_thread::get_id();
  }

  [[nodiscard]] bool this_thread_owns_one() const noexcept SINGLEFLIGHT_REQUIRES(mutex_) {
    for (const member* m = first_; m != nullptr; m = m->next_) {
      if (is_owned_here(*m)) return true;
    }
    return false;
  }

  [[nodiscard]] bool any_is_owned() const noexcept SINGLEFLIGHT_REQUIRES(mutex_) {
    for (const member* m = first_; m != nullptr; m = m->next_) {
      if (m->owner_ != std::thread::id()) return true;
    }
    return false;
  }

  /// Releases the mutex until the last call may have gone, or one may be queued.
  void wait_for_a_change() noexcept SINGLEFLIGHT_REQUIRES(mutex_) SINGLEFLIGHT_NOT_ANALYSED {
    std::unique_lock guard(mutex_.standard(), std::adopt_lock);
    changed_.wait(guard);
    guard.release();
  }

  [[nodiscard]] std::shared_ptr<member> find_queued() const noexcept SINGLEFLIGHT_REQUIRES(mutex_) {
    for (member* m = first_; m != nullptr; m = m->next_) {
      if (m->owner_ != std::thread::id()) continue;
      if (std::shared_ptr<member> kept = m->keep()) return kept;
    }
    return nullptr;
  }

  mutex mutex_;
  std::condition_variable changed_;
  member* first_ SINGLEFLIGHT_GUARDED_BY(mutex_) = nullptr;  // of the calls on executors
  /// Whether the destructor waits at exit: it wants to know of a call that is queued.
  bool drops_queued_ SINGLEFLIGHT_GUARDED_BY(mutex_) = false;
  /// Null if nobody has waited since the last was left.
  std::shared_ptr<waiter_list> drained_ SINGLEFLIGHT_GUARDED_BY(mutex_);

  std::atomic<std::size_t> asynchronous_ = 0;
  std::atomic<bool> awaited_ = false;  // whether anybody has ever waited
};

}  // namespace singleflight::inline SINGLEFLIGHT_ABI::detail

#endif  // SINGLEFLIGHT_DETAIL_OWNED_CALLS_HPP
