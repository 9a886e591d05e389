// SPDX-License-Identifier: MIT
#ifndef SINGLEFLIGHT_DETAIL_WAITER_LIST_HPP
#define SINGLEFLIGHT_DETAIL_WAITER_LIST_HPP

#include <memory>
#include <utility>

#include "config.hpp"
#include "mutex.hpp"

// The waiters of a call that its future cannot wake: threads that can be stopped, coroutines,
// callbacks. Plain threads wait in the future, since nothing wakes many of them faster.
namespace singleflight::inline SINGLEFLIGHT_ABI::detail {

class trampoline;

/// Has a waiter resumed elsewhere. Held apart from the waiter, whose frame may be destroyed while
/// it is being posted.
class poster {
 public:
  poster() = default;
  poster(const poster&) = delete;
  poster& operator=(const poster&) = delete;

  virtual void post(std::shared_ptr<poster> self) noexcept = 0;

 protected:
  ~poster() = default;
};

/// One waiter, in its own frame. Being taken out of the list, under the list's mutex, is what
/// decides between the end of the call, a stop request and the destruction of the frame: the one
/// that takes the waiter out wakes it, or not, and nobody else does.
struct waiter_node {
  enum class resumed {
    by_thread,  // woken under the mutex, which keeps its frame alive; leaves the list itself
    bound,      // taken out and posted, before those that are resumed inline
    inlined     // taken out and resumed on this thread, after all others, by a trampoline
  };
  /// What all waiters of one type have in common.
  struct type {
    resumed how;
    void (*wake)(waiter_node&) noexcept;  // may free it; none of a bound one
    std::shared_ptr<poster> (*poster_of)(waiter_node&) noexcept;  // of a bound one, once
  };

  explicit waiter_node(const type& t) noexcept : is(t) {}
  waiter_node(const waiter_node&) = delete;  // linked by address
  waiter_node& operator=(const waiter_node&) = delete;
  ~waiter_node() = default;

  const type& is;

  // Guarded by the mutex of the list.
  waiter_node* next = nullptr;
  waiter_node* previous = nullptr;
  struct waiter_queue* in = nullptr;    // null: nowhere
  const trampoline* only_by = nullptr;  // resumes it, if it was stopped
};

/// First in, first out.
struct waiter_queue {
  waiter_node* first = nullptr;
  waiter_node* last = nullptr;

  void push(waiter_node& n) noexcept {
    n.in = this;
    n.next = nullptr;
    n.previous = last;
    (last != nullptr ? last->next : first) = &n;
    last = &n;
  }

  void erase(waiter_node& n) noexcept {
    (n.previous != nullptr ? n.previous->next : first) = n.next;
    (n.next != nullptr ? n.next->previous : last) = n.previous;
    n.in = nullptr;
  }

  /// Returns: null if there is none.
  [[nodiscard]] waiter_node* pop() noexcept {
    waiter_node* const n = first;
    if (n != nullptr) erase(*n);
    return n;
  }
};

/// The waiters of one call. Held by a `shared_ptr`, since a waiter that is resumed may free
/// whatever else holds the call.
class waiter_list {
 public:
  mutable detail::mutex mutex;

  waiter_list() = default;
  waiter_list(const waiter_list&) = delete;  // waiters point into it
  waiter_list& operator=(const waiter_list&) = delete;
  ~waiter_list() = default;

  [[nodiscard]] bool published() const noexcept SINGLEFLIGHT_REQUIRES(mutex) { return published_; }

  void add(waiter_node& n) noexcept SINGLEFLIGHT_REQUIRES(mutex) { queue_of(n).push(n); }

  /// Returns: false if the waiter is in no queue, since somebody else has taken it out.
  bool remove(waiter_node& n) noexcept SINGLEFLIGHT_REQUIRES(mutex) {
    if (n.in == nullptr) return false;
    n.in->erase(n);
    return true;
  }

  /// As `remove`, for a destructor, in which Clang's analysis sees no lock.
  void lock_and_remove(waiter_node& n) noexcept {
    const lock guard(mutex);
    remove(n);
  }

  /// Returns: what has a bound waiter resumed that was taken out. To be called before the mutex is
  /// released: whoever finds the waiter gone from the list may free it.
  [[nodiscard]] std::shared_ptr<poster> poster_of(waiter_node& n) const noexcept
      SINGLEFLIGHT_REQUIRES(mutex) {
    return n.is.poster_of(n);
  }

  /// Wakes everybody, those first that run elsewhere. One waiter is taken out at a time, so that
  /// one that is resumed may stop or destroy any other. `owner` owns the list, which the last
  /// waiter may free otherwise.
  template <class Owner>
  void publish(const std::shared_ptr<Owner>& owner) noexcept {
    bool some_bound = false;
    bool some_inlined = false;
    {
      const lock guard(mutex);
      published_ = true;
      for (waiter_node* n = threads_.first; n != nullptr; n = n->next) n->is.wake(*n);
      some_bound = bound_.first != nullptr;
      some_inlined = inlined_.first != nullptr;
    }
    if (!some_bound && !some_inlined) return;
    const std::shared_ptr<waiter_list> me(owner, this);
    while (std::shared_ptr<poster> by = some_bound ? pop_bound() : nullptr) {
      poster& p = *by;
      p.post(std::move(by));
    }
    if (some_inlined) resume_inlined(me);
  }

  /// In a forked child: lets go of all waiters, which belong to threads that it lacks.
  void forget_all(bool is_over = false) noexcept SINGLEFLIGHT_NOT_ANALYSED {
    if (is_over) published_ = true;
    for (waiter_queue* q : {&threads_, &bound_, &inlined_, &stopped_}) {
      while (q->pop() != nullptr) {
      }
    }
    mutex.renew_after_fork();
  }

 private:
  friend class trampoline;

  static void resume_inlined(const std::shared_ptr<waiter_list>& list) noexcept;

  [[nodiscard]] waiter_queue& queue_of(const waiter_node& n) noexcept SINGLEFLIGHT_REQUIRES(mutex) {
    return n.is.how == waiter_node::resumed::by_thread ? threads_
           : n.is.how == waiter_node::resumed::bound   ? bound_
                                                       : inlined_;
  }

  [[nodiscard]] std::shared_ptr<poster> pop_bound() noexcept {
    const lock guard(mutex);
    waiter_node* const n = bound_.pop();
    return n != nullptr ? poster_of(*n) : nullptr;
  }

  /// Returns: the next waiter for `here` to resume. Null if there is none; then `here`, if it had
  /// the list, has it no more. A waiter that was stopped is resumed by the thread that stops it:
  /// another would wait in there for the end of the stop callback.
  [[nodiscard]] waiter_node* pop_inlined(const trampoline* here) noexcept {
    const lock guard(mutex);
    for (waiter_node* n = stopped_.first; n != nullptr; n = n->next) {
      if (n->only_by != here) continue;
      stopped_.erase(*n);
      return n;
    }
    if (published_) {
      if (waiter_node* const n = inlined_.pop()) return n;
    }
    if (queued_on_ == here) queued_on_ = nullptr;
    return nullptr;
  }

  waiter_queue threads_ SINGLEFLIGHT_GUARDED_BY(mutex);
  waiter_queue bound_ SINGLEFLIGHT_GUARDED_BY(mutex);
  waiter_queue inlined_ SINGLEFLIGHT_GUARDED_BY(mutex);
  waiter_queue stopped_ SINGLEFLIGHT_GUARDED_BY(mutex);  // inlined ones that are resumed already
  bool published_ SINGLEFLIGHT_GUARDED_BY(mutex) = false;

  trampoline* queued_on_ SINGLEFLIGHT_GUARDED_BY(mutex) = nullptr;
  std::shared_ptr<waiter_list> next_queued_;  // of the thread whose trampoline has the list
};

/// Resumes waiters one after the other where each would else resume the next from its own frame: a
/// waiter that ends another call leaves the waiters of that one to the loop that has resumed it.
/// One for each thread that is resuming waiters, on its stack.
class trampoline {
 public:
  /// Resumes the inlined waiters of the list, here or in the loop that runs on this thread already;
  /// first the one, if any, that this thread has taken out of the list to stop it.
  static void run(const std::shared_ptr<waiter_list>& list,
                  waiter_node* stopped = nullptr) noexcept {
    with_loop([&](trampoline& here) { here.add(list, stopped); });
  }

  /// Resumes a waiter that is in no list, likewise.
  static void run(waiter_node& ready) noexcept {
    with_loop([&](trampoline& here) { here.ready_.push(ready); });
  }

 private:
  /// Out of line: a fiber may come back on another thread, where a compiler could use the address
  /// of the variable on the first (https://github.com/userver-framework/userver/issues/242).
  SINGLEFLIGHT_DETAIL_NOINLINE static trampoline*& current() noexcept {
    static constinit thread_local trampoline* of_this_thread = nullptr;
    return of_this_thread;
  }

  template <class Add>
  static void with_loop(const Add& add) noexcept {
    if (trampoline* const outer = current()) return add(*outer);
    trampoline mine;
    current() = &mine;
    add(mine);
    mine.resume_all();
    current() = nullptr;
  }

  void add(const std::shared_ptr<waiter_list>& list, waiter_node* stopped) noexcept {
    if (stopped != nullptr) {
      stopped->only_by = this;  // nobody else knows it until it is in the list again
      const lock guard(list->mutex);
      list->stopped_.push(*stopped);
    }
    if (!queue(list)) resume_all_of(*list);
  }

  void resume_all() noexcept {
    for (;;) {
      if (waiter_node* const n = ready_.pop()) {
        n->is.wake(*n);
      } else if (const std::shared_ptr<waiter_list> next = pop()) {
        resume_all_of(*next);
      } else {
        return;
      }
    }
  }

  void resume_all_of(waiter_list& list) const noexcept {
    while (waiter_node* const n = list.pop_inlined(this)) n->is.wake(*n);
  }

  /// Returns: false if another thread has the list, on which this one must not depend.
  [[nodiscard]] bool queue(const std::shared_ptr<waiter_list>& list) noexcept {
    {
      const lock guard(list->mutex);
      if (list->queued_on_ != nullptr) return list->queued_on_ == this;
      list->queued_on_ = this;
    }
    (last_ != nullptr ? last_->next_queued_ : first_) = list;
    last_ = list.get();
    return true;
  }

  [[nodiscard]] std::shared_ptr<waiter_list> pop() noexcept {
    std::shared_ptr<waiter_list> list = std::move(first_);
    if (list != nullptr) first_ = std::move(list->next_queued_);
    if (first_ == nullptr) last_ = nullptr;
    return list;
  }

  std::shared_ptr<waiter_list> first_;
  waiter_list* last_ = nullptr;
  waiter_queue ready_;  // of this thread alone
};

inline void waiter_list::resume_inlined(const std::shared_ptr<waiter_list>& list) noexcept {
  trampoline::run(list);
}

}  // namespace singleflight::inline SINGLEFLIGHT_ABI::detail

#endif  // SINGLEFLIGHT_DETAIL_WAITER_LIST_HPP
