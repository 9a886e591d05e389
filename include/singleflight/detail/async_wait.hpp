// SPDX-License-Identifier: MIT
#ifndef SINGLEFLIGHT_DETAIL_ASYNC_WAIT_HPP
#define SINGLEFLIGHT_DETAIL_ASYNC_WAIT_HPP

#include <atomic>
#include <cstddef>
#include <exception>
#include <future>
#include <memory>
#include <optional>
#include <type_traits>
#include <utility>

#include "../async_options.hpp"
#include "../call_error.hpp"
#include "../outcome.hpp"
#include "../result.hpp"
#include "../stats.hpp"
#include "call.hpp"
#include "call_map.hpp"
#include "config.hpp"
#include "context.hpp"
#include "follow.hpp"
#include "keep_alive.hpp"
#include "mutex.hpp"
#include "owned_call.hpp"
#include "wait_graph.hpp"
#include "waiter_list.hpp"

#if defined(__cpp_lib_jthread)
#include <stop_token>
#endif

// What an asynchronous caller does: enter, wait without a thread, leave or be resumed. Its twin for
// threads is follow.hpp.
namespace singleflight::inline SINGLEFLIGHT_ABI::detail {

/// What has become of an asynchronous caller in the function that made it enter.
enum class entered {
  waits,  // it is resumed by somebody else, perhaps already: nobody here touches it any more
  begun,  // it has begun a call, whose loader is to be started here
  ready   // it does not wait: what it asked for is there, or refused
};

/// Stands for the tasks that executors are given, where it is asked whether something is one.
struct any_task {
  void operator()() const noexcept {}
};

/// Tells the group's observer how the wait of an asynchronous caller ends, once.
class wait_teller {
 public:
  wait_teller() = default;
  wait_teller(const wait_teller&) = delete;
  wait_teller& operator=(const wait_teller&) = delete;
  virtual ~wait_teller() = default;

  virtual void tell_left(reason why) noexcept = 0;
  virtual void tell_ended(bool with_value) noexcept = 0;
};

/// Gives the waits of callers that are not threads what they need of a group.
struct async_access {
  template <class Group, class Wait, class Key, class Owned>
  [[nodiscard]] static entered enter(Group& group, Wait& wait, Key&& key,
                                     std::shared_ptr<Owned>& begun) {
    return group.enter_for(wait, std::forward<Key>(key), begun);
  }
};

/// One asynchronous caller's wait for one call, in that caller's frame.
///
/// Life: entering; then waiting, in the list of its call; or starting, while the loader of the call that
/// it has begun is started, and then waiting. Told to stop while it enters or starts, it is not put into
/// the list any more. Who takes it out of the list, or finds that it must not be put there, decides what
/// becomes of it.
template <class Key, class Value>
class async_wait : public waiter_node {
 public:
  using shard = call_map<Key, Value>;
  using call_type = call<Key, Value>;
  using handle_type = call_handle<Key, Value>;
  using owned_type = owned_call<Key, Value>;

  async_wait(kind k, wake_function* w, const async_options& options)
      : waiter_node(k, w), attempts_(options.attempts) {
    if (options.inside != nullptr) inside_ = context_access::node_of(*options.inside);
#if defined(__cpp_lib_jthread)
    stop_ = options.stop;
#endif
  }
  async_wait(const async_wait&) = delete;
  async_wait& operator=(const async_wait&) = delete;

  /// Leaves the call if it waits for one. To be called by the destructor of the final class, before
  /// anything of it is gone.
  void abandon() noexcept {
    ignore_stops();
    tell_left(reason::caller_gone);
    if (gone_ != nullptr) *gone_ = true;
    if (handle_ == nullptr || phase_.load() != phase::waiting) return;
    {
      const lock guard(handle_->waiters->mutex);
      if (!handle_->waiters->remove(*this)) return;
    }
    edge_.disconnect();
    if (!why_) leave(reason::caller_gone);  // who was stopped has left already
  }

  // --- Entering, under the shard's mutex -----------------------------------------------------------

  [[nodiscard]] const wait_node* inside() const noexcept { return inside_.get(); }

  /// Whether it was told to stop before it has entered.
  [[nodiscard]] bool was_stopped() const noexcept { return phase_.load() == phase::stopped; }

  /// Makes the caller a follower. From when the mutex is released, others may resume it.
  /// Returns: why it cannot be one, or nothing. Throws: `std::bad_alloc`, only to this caller.
  [[nodiscard]] std::optional<reason> join(shard& home, call_type& running, std::size_t max_waiters,
                                           const block_ptr& alive)
      SINGLEFLIGHT_REQUIRES(home.mutex) {
    if (running.followers() >= max_waiters) {
      return inside_ != nullptr && detail::waits_for(running, *inside_) ? reason::circle
                                                                        : reason::full;
    }
    wait_ticket<Key, Value> ticket = home.make_ticket(
        running, {.to_leave = true, .to_be_woken = true, .an_edge = inside_ != nullptr});
    if (!ticket.handle->alive) ticket.handle->alive = alive;
    if (inside_ != nullptr && !edge_.connect(*inside_, ticket.handle->node)) return reason::circle;
    home_ = &home;
    begun_ = nullptr;
    future_ = std::move(ticket.future);
    handle_ = std::move(ticket.handle);
    if (finishes_) {
      if (!advance(phase::entering, phase::starting)) return reason::stop;
    } else {
      const lock guard(handle_->waiters->mutex);
      if (!advance(phase::entering, phase::waiting)) return reason::stop;
      handle_->waiters->add(*this);
    }
    home.add_follower(running);
    return std::nullopt;
  }

  /// Has the caller wait for a call that it is about to begin.
  /// Returns: why the call must not begin, or nothing.
  [[nodiscard]] std::optional<reason> attend(shard& home, const std::shared_ptr<owned_type>& own)
      SINGLEFLIGHT_REQUIRES(home.mutex) {
    home_ = &home;
    begun_ = own.get();
    handle_ =
        own->prepare(own, {.to_leave = true, .to_be_woken = true, .an_edge = inside_ != nullptr});
    if (!advance(phase::entering, phase::starting)) return reason::stop;
    home.add_beginner(own->get());
    if (inside_ != nullptr) edge_.connect_to_new(*inside_, handle_->node);
    return std::nullopt;
  }

  // --- Afterwards ----------------------------------------------------------------------------------

  void refuse(reason why) noexcept { why_ = why; }
  [[nodiscard]] const std::optional<reason>& refused_for() const noexcept { return why_; }

  /// To be called when the loader of the call that it has begun has been started on this thread; by a
  /// caller that `finishes_`, also when it has joined a call.
  /// Returns: `waits`, and then it must not be touched here any more, or `ready`.
  [[nodiscard]] entered finish_start() noexcept {
    if (begun_ != nullptr && begun_->ended()) {
      if (!advance(phase::starting, phase::waiting)) has_left(reason::stop);
      return entered::ready;
    }
    const std::shared_ptr<handle_type> handle = handle_;  // a waiter that is resumed frees its own
    lock guard(handle->waiters->mutex);
    if (!advance(phase::starting, phase::waiting)) {
      guard.unlock();
      has_left(reason::stop);
      return entered::ready;
    }
    if (handle->waiters->published()) return entered::ready;
    handle->waiters->add(*this);
    return entered::waits;
  }

  /// To be called where the caller is resumed, before its result is taken.
  /// Returns: whether its call has failed and it may try again, by entering anew.
  [[nodiscard]] bool settle() noexcept {
    ignore_stops();
    edge_.disconnect();
    tell_ended();
    if (why_ || begun_ != nullptr || handle_ == nullptr || ++failures_ >= attempts_) return false;
    if (handle_->alive.closed()) return false;
    try {
      static_cast<void>(future_.get());
      return false;
    } catch (...) {
    }
    // Here: when it enters, under a lock, no exception of the user's may be destroyed.
    future_ = {};
    handle_.reset();
    return true;
  }

  /// Heeds stop requests from now on. To be called before it enters.
  void heed_stops() noexcept {
    phase_.store(phase::entering, std::memory_order_relaxed);
#if defined(__cpp_lib_jthread)
    if (stop_.stop_possible()) on_stop_.emplace(stop_, stopper{this});
#endif
  }

  /// Returns: the result, once. Throws: what `do_call` would throw.
  [[nodiscard]] result<Value> take() {
    if (why_) throw_call_error(*why_);
    if (begun_ != nullptr) return begun_->take();
    static_cast<void>(future_.get());
    return result_maker::of<Value>(std::move(future_), true, false);
  }

  [[nodiscard]] outcome<Value> take_outcome() noexcept {
    try {
      return outcome_maker::of<Value>(take());
    } catch (...) {
      return outcome_maker::failed<Value>(current_failure());
    }
  }

  entry me;  // in the counters

  /// Whether it is put into the list of a call that it joins by `finish_start`, so that the observer
  /// can be told first. To be set before it enters.
  bool finishes_ = false;
  std::unique_ptr<wait_teller> teller;  // null: nobody is to be told, or has been

 protected:
  ~async_wait() = default;

 private:
  enum class phase : unsigned char { entering, starting, waiting, stopped };

  /// Goes on to the next phase of its life. Returns: false if it was told to stop before.
  [[nodiscard]] bool advance([[maybe_unused]] phase from, phase to) noexcept {
#if defined(__cpp_lib_jthread)
    if (on_stop_) return phase_.compare_exchange_strong(from, to);
#endif
    phase_.store(to, std::memory_order_relaxed);  // nobody else looks at it
    return true;
  }

  /// Waits for a stop request that another thread is making.
  void ignore_stops() noexcept {
#if defined(__cpp_lib_jthread)
    on_stop_.reset();
#endif
  }

  void tell_left(reason why) noexcept {
    if (const std::unique_ptr<wait_teller> t = std::move(teller)) t->tell_left(why);
  }

  void has_left(reason why) noexcept {
    why_ = why;
    tell_left(why);
  }

  /// Tells of the result of a caller that joined a call.
  void tell_ended() noexcept {
    const std::unique_ptr<wait_teller> t = std::move(teller);
    if (t == nullptr || why_ || begun_ != nullptr) return;
    bool with_value = true;
    try {
      static_cast<void>(future_.get());
    } catch (...) {
      with_value = false;
    }
    t->tell_ended(with_value);
  }

  void leave(reason why) { detail::take_leave(*home_, *handle_, begun_ != nullptr, why); }

#if defined(__cpp_lib_jthread)
  struct stopper {
    async_wait* self;
    void operator()() const noexcept { self->stop(); }
  };

  void stop() noexcept {
    phase now = phase_.load();
    while (now == phase::entering || now == phase::starting) {
      if (!phase_.compare_exchange_weak(now, phase::stopped)) continue;
      if (now == phase::starting) leave_for(reason::stop);
      return;
    }
    std::shared_ptr<poster> elsewhere;
    {
      const lock guard(handle_->waiters->mutex);
      if (!handle_->waiters->remove(*this)) return;
      if (how == kind::bound) elsewhere = std::move(by);
    }
    edge_.disconnect();  // it waits no more, however late it is resumed
    has_left(reason::stop);
    if (!leave_for(reason::stop)) return;
    if (how == kind::inlined) {
      return trampoline::run(std::shared_ptr<waiter_list>(handle_, &*handle_->waiters), this);
    }
    poster& p = *elsewhere;
    p.post(std::move(elsewhere));
  }

  /// Leaves the call, which may run stop callbacks of its loader.
  /// Returns: false if one of them has destroyed this.
  bool leave_for(reason why) noexcept {
    bool gone = false;
    gone_ = &gone;
    const std::shared_ptr<handle_type> handle = handle_;
    detail::take_leave(*home_, *handle, begun_ != nullptr, why);
    if (gone) return false;
    gone_ = nullptr;
    return true;
  }

  std::stop_token stop_;
  std::optional<std::stop_callback<stopper>> on_stop_;
#endif

  const std::size_t attempts_;
  std::size_t failures_ = 0;
  std::shared_ptr<wait_node> inside_;  // null: inside no call
  std::atomic<phase> phase_ = phase::entering;
  std::optional<reason> why_;  // it gets no result
  bool* gone_ = nullptr;       // to be set if it is destroyed

  // Fixed while it waits.
  shard* home_ = nullptr;
  std::shared_ptr<handle_type> handle_;
  std::shared_future<Value> future_;  // of a call that it has joined
  owned_type* begun_ = nullptr;       // the call that it has begun
  wait_edge edge_;
};

}  // namespace singleflight::inline SINGLEFLIGHT_ABI::detail

#endif  // SINGLEFLIGHT_DETAIL_ASYNC_WAIT_HPP
