// SPDX-License-Identifier: MIT
#ifndef SINGLEFLIGHT_DETAIL_ASYNC_WAIT_HPP
#define SINGLEFLIGHT_DETAIL_ASYNC_WAIT_HPP

#include <atomic>
#include <chrono>
#include <cstddef>
#include <cstdint>
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
#include "stop.hpp"
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

  template <class Call>
  void supersedes(const Call& old) noexcept {
    superseded = old.began;
  }
  std::optional<std::chrono::steady_clock::time_point> superseded;  // when the call began
};

/// Gives the waits of callers that are not threads what they need of a group.
struct async_access {
  template <class Group, class Wait, class Key>
  [[nodiscard]] static entered enter(Group& group, Wait& wait, Key&& key) {
    return group.enter_for(wait, std::forward<Key>(key));
  }

  /// Returns: whether a caller may have to leave for a newer call.
  template <class Group>
  [[nodiscard]] static bool ages(const Group& group) noexcept {
    return group.ages();
  }
};

/// In the place of the options of a caller that has none.
struct no_options {};

/// A reason or none, in a byte: each coroutine that waits has one in its frame.
class small_reason {
 public:
  small_reason& operator=(std::optional<reason> why) noexcept {
    one_more_ = why ? static_cast<unsigned char>(static_cast<int>(*why) + 1) : none;
    return *this;
  }
  void reset() noexcept { one_more_ = none; }

  [[nodiscard]] explicit operator bool() const noexcept { return one_more_ != none; }
  [[nodiscard]] reason operator*() const noexcept { return static_cast<reason>(one_more_ - 1); }
  [[nodiscard]] bool operator==(reason why) const noexcept { return *this && **this == why; }

 private:
  static constexpr unsigned char none = 0;
  unsigned char one_more_ = none;  // than the number of the reason
};

/// One asynchronous caller's wait for one call, in that caller's frame.
///
/// Life: entering; then waiting, in the list of its call; or starting, while the loader of the call
/// that it has begun is started, and then waiting, unless the call has ended: then it is in no list
/// of the call, but perhaps in that of a trampoline, and is not stopped any more. Told to stop
/// while it enters or starts, it is not put into the list any more. Who takes it out of the list,
/// or finds that it must not be put there, decides what becomes of it. It is over when its result
/// is taken.
template <class Key, class Value>
class async_wait : public waiter_node {
#if defined(__cpp_lib_jthread)
  struct stopper {
    async_wait* self;
    void operator()() const noexcept { self->leave(self->chosen_->why_stopped()); }
  };
#endif

 public:
  using shard = call_map<Key, Value>;
  using call_type = call<Key, Value>;
  using handle_type = call_handle<Key, Value>;
  using owned_type = owned_call<Key, Value>;
  using clock = std::chrono::steady_clock;

  /// What a caller needs for its options, and for a deadline. Kept by the final class: most
  /// coroutines have none, and their frames should be small.
  struct chosen {
    /// `late`: if not null, whether a stop request means that the caller's deadline has passed.
    explicit chosen(const async_options& options,
                    [[maybe_unused]] const std::atomic<bool>* late = nullptr)
        : attempts(options.attempts) {
      if (options.inside != nullptr) inside = context_access::node_of(*options.inside);
#if defined(__cpp_lib_jthread)
      stop = options.stop;
      is_late = late;
#endif
    }

#if defined(__cpp_lib_jthread)
    [[nodiscard]] reason why_stopped() const noexcept {
      return is_late != nullptr && is_late->load() ? reason::deadline : reason::stop;
    }

    std::stop_token stop;
    const std::atomic<bool>* is_late;
    std::optional<std::stop_callback<stopper>> on_stop;
#endif
    const std::size_t attempts;
    std::size_t failures = 0;
    std::shared_ptr<wait_node> inside;  // null: inside no call
    wait_edge edge;
    clock::time_point expiry;    // when to leave for a newer call
    std::exception_ptr failure;  // of entering again
    bool* gone = nullptr;        // to be set if the caller is destroyed
  };

  /// `own`: the final class's, or null.
  async_wait(const type& t, chosen* own) noexcept : waiter_node(t), chosen_(own) {}
  async_wait(const async_wait&) = delete;
  async_wait& operator=(const async_wait&) = delete;

  /// Leaves the call if it waits for one. To be called by the destructor of the final class, before
  /// anything of it is gone.
  void abandon() noexcept {
    ignore_stops();
    if (chosen_ != nullptr && chosen_->gone != nullptr) *chosen_->gone = true;
    const bool waited = leave_list();  // first: its hook may wait until the call has ended
    tell_left(reason::caller_gone);
    // Who was stopped has left already.
    if (waited && !why_) detail::take_leave(*handle_->home, *handle_, began_, reason::caller_gone);
  }

  /// Makes the caller leave, on any thread: it is resumed with the reason, unless it is being
  /// resumed already. For a newer call it leaves only if its own has not ended.
  void leave(reason why) noexcept {
    phase now = phase_.load();
    while (now == phase::entering || now == phase::starting) {
      const phase left = why == reason::deadline ? phase::late : phase::stopped;
      if (!phase_.compare_exchange_weak(now, left)) continue;
      if (now == phase::starting) static_cast<void>(stop_loader(leave_accounts(why)));
      return;
    }
    departure out;
    if (now == phase::waiting && take_out(why, out)) depart(std::move(out));
  }

  /// What is left to do for a caller that was taken out of the list of its call.
  struct departure {
    reason why{};
    std::shared_ptr<poster> by;  // of a bound one
    stop_source loader = no_stop_source();
  };

  /// The first half of `leave` for a caller that waits. Returns: false if it is being resumed
  /// already.
  [[nodiscard]] bool take_out(reason why, departure& out) noexcept {
    out.why = why;
    shard& home = *handle_->home;
    const lock at_home(home.mutex);
    if (why == reason::newer_call && home.running(*handle_) == nullptr) return false;
    {
      const lock guard(handle_->waiters->mutex);
      if (!handle_->waiters->remove(*this)) return false;
      if (is.how == resumed::bound) out.by = handle_->waiters->poster_of(*this);
    }
    out.loader = account_leave(home, why);
    return true;
  }

  /// The second half, outside all locks.
  void depart(departure out) noexcept {
    why_ = out.why;
    disconnect();  // it waits no more, however late it is resumed
    tell_left(out.why);
    if (!stop_loader(std::move(out.loader))) return;
    if (is.how == resumed::inlined) {
      return trampoline::run(std::shared_ptr<waiter_list>(handle_, &*handle_->waiters), this);
    }
    poster& p = *out.by;
    p.post(std::move(out.by));
  }

  // --- Entering, under the shard's mutex ---------------------------------------------------------

  [[nodiscard]] wait_node* inside() const noexcept {
    return chosen_ != nullptr ? chosen_->inside.get() : nullptr;
  }

  /// Returns: why it is to leave before it has entered, or nothing.
  [[nodiscard]] std::optional<reason> was_stopped() const noexcept {
    const phase now = phase_.load();
    if (now != phase::stopped && now != phase::late) return std::nullopt;
    return reason_of(now);
  }

  /// Makes the caller a follower. From when the mutex is released, others may resume it.
  /// Returns: why it cannot be one, or nothing. Throws: `std::bad_alloc`, only to this caller.
  [[nodiscard]] std::optional<reason> join(shard& home, call_type& running, std::size_t max_waiters,
                                           const block_ptr& alive, clock::time_point expiry)
      SINGLEFLIGHT_REQUIRES(home.mutex) {
    wait_node* const outer = inside();
    if (running.followers() >= max_waiters) {
      return outer != nullptr && detail::waits_for(running, *outer) ? reason::circle : reason::full;
    }
    const std::shared_ptr<handle_type>& handle =
        home.make_handle_to_join(running, {.to_be_woken = true, .an_edge = outer != nullptr});
    if (!handle->alive) handle->alive = alive;
    if (outer != nullptr && !chosen_->edge.connect(*outer, handle->node)) return reason::circle;
    handle_ = handle;
    if (chosen_ != nullptr) chosen_->expiry = expiry;
    if (!advance(phase::entering, finishes ? phase::starting : phase::waiting)) {
      return was_stopped();
    }
    if (!finishes) {  // told to stop meanwhile, it waits for the shard's mutex, which is held here
      const lock guard(handle_->waiters->mutex);
      handle_->waiters->add(*this);
    }
    home.add_follower(running);
    return std::nullopt;
  }

  /// Gives the caller the call that it is about to begin. From here on this owns it, so that its
  /// key is not destroyed under the mutex.
  void prepare(std::shared_ptr<owned_type>&& own) {
    began_ = true;
    owned_type& begun = *own;
    handle_ = begun.prepare(std::move(own), {.to_be_woken = true, .an_edge = inside() != nullptr});
  }

  /// Has the caller wait for that call.
  /// Returns: why the call must not begin, or nothing.
  [[nodiscard]] std::optional<reason> attend(shard& home) SINGLEFLIGHT_REQUIRES(home.mutex) {
    if (chosen_ != nullptr) chosen_->expiry = (clock::time_point::max)();
    if (!advance(phase::entering, phase::starting)) return was_stopped();
    home.add_beginner(begun_here().get());
    wait_node* const outer = inside();
    if (outer != nullptr) chosen_->edge.connect_to_new(*outer, handle_->node);
    return std::nullopt;
  }

  // --- Afterwards --------------------------------------------------------------------------------

  void refuse(reason why) noexcept { why_ = why; }
  [[nodiscard]] reason refused_for() const noexcept { return *why_; }

  /// Returns: the call that it has begun; and what keeps that alive as long as this waits.
  [[nodiscard]] owned_type& begun_here() const noexcept { return *handle_->owned; }
  [[nodiscard]] std::shared_ptr<owned_type> begun() const noexcept {
    return {handle_, handle_->owned};
  }

  /// To be called when the loader of the call that it has begun has been started on this thread; by
  /// a caller that `finishes`, also when it has joined a call.
  /// Returns: `waits`, and then it must not be touched here any more, or `ready`.
  [[nodiscard]] entered finish_start() noexcept {
    if (began_ && handle_->owned->ended()) {
      if (!advance(phase::starting, phase::taken)) has_left();
      return entered::ready;
    }
    const std::shared_ptr<handle_type> handle = handle_;  // a waiter that is resumed frees its own
    lock guard(handle->waiters->mutex);
    const bool waits = !handle->waiters->published();
    if (!advance(phase::starting, waits ? phase::waiting : phase::taken)) {
      guard.unlock();
      has_left();
      return entered::ready;
    }
    if (!waits) return entered::ready;
    handle->waiters->add(*this);
    return entered::waits;
  }

  /// To be called where the caller is resumed, before its result is taken.
  /// Returns: whether it is to enter anew: its call has failed and it may try again, or it has left
  /// for a newer one.
  [[nodiscard]] bool settle() noexcept {
    ignore_stops();
    disconnect();
    tell_ended();
    if (why_ == reason::newer_call && !handle_->alive.closed()) {
      why_.reset();
    } else if (why_ || began_ || handle_ == nullptr || !may_try_again() ||
               handle_->alive.closed() || has_value()) {
      return false;
    }
    // Here: when it enters, under a lock, nothing of the user's may be destroyed.
    handle_.reset();
    return true;
  }

  /// Heeds stop requests from now on. To be called before it enters.
  void heed_stops() noexcept {
    phase_.store(phase::entering, std::memory_order_relaxed);
#if defined(__cpp_lib_jthread)
    if (chosen_ != nullptr && chosen_->stop.stop_possible()) {
      chosen_->on_stop.emplace(chosen_->stop, stopper{this});
    }
#endif
  }

  /// Returns: the result, once. Throws: what `do_call` would throw.
  [[nodiscard]] result<Value> take() {
    phase_.store(phase::taken,
                 std::memory_order_relaxed);  // it is in no list any more: see abandon
    if (why_) throw_call_error(*why_);
    if (began_) return handle_->owned->take();
    std::shared_future<Value> future = handle_->future;
    static_cast<void>(future.get());
    return result_maker::of<Value>(std::move(future), true, false);
  }

  [[nodiscard]] outcome<Value> take_outcome() noexcept {
    try {
      return outcome_maker::of<Value>(take());
    } catch (...) {
      return outcome_maker::failed<Value>(current_failure());
    }
  }

  std::unique_ptr<wait_teller> teller;  // null: nobody is to be told, or has been
  account me;

  /// Whether it is put into the list of a call that it joins by `finish_start`, so that it can
  /// prepare what needs to know the call, or the observer be told first; and whether others than
  /// its stop token make it leave.
  bool finishes = false;

 protected:
  ~async_wait() = default;

  /// For a caller with options, between entering and `finish_start`.
  /// Returns: when it is to leave for a newer call.
  [[nodiscard]] clock::time_point expiry() const noexcept { return chosen_->expiry; }

 private:
  /// Takes it out of the list of its call. Returns: whether it was in.
  [[nodiscard]] bool leave_list() noexcept {
    if (handle_ == nullptr || phase_.load() != phase::waiting) return false;
    {
      const lock guard(handle_->waiters->mutex);
      if (!handle_->waiters->remove(*this)) return false;
    }
    disconnect();
    return true;
  }

  enum class phase : std::uint32_t { entering, starting, waiting, stopped, late, taken };

  /// Goes on to the next phase of its life. Returns: false if it was told to stop before.
  [[nodiscard]] bool advance([[maybe_unused]] phase from, phase to) noexcept {
    if (finishes) return phase_.compare_exchange_strong(from, to);
#if defined(__cpp_lib_jthread)
    if (chosen_ != nullptr && chosen_->on_stop) return phase_.compare_exchange_strong(from, to);
#endif
    phase_.store(to, std::memory_order_relaxed);  // nobody else looks at it
    return true;
  }

  /// Waits for a stop request that another thread is making.
  void ignore_stops() noexcept {
#if defined(__cpp_lib_jthread)
    if (chosen_ != nullptr) chosen_->on_stop.reset();
#endif
  }

  void disconnect() noexcept {
    if (chosen_ != nullptr) chosen_->edge.disconnect();
  }

  /// Counts a failure. Returns: whether it may try again.
  [[nodiscard]] bool may_try_again() noexcept {
    return chosen_ != nullptr && ++chosen_->failures < chosen_->attempts;
  }

  /// Whether the call that it has joined has ended with a value.
  [[nodiscard]] bool has_value() const noexcept {
    try {
      static_cast<void>(handle_->future.get());
      return true;
    } catch (...) {
      return false;
    }
  }

  [[nodiscard]] static reason reason_of(phase left) noexcept {
    return left == phase::late ? reason::deadline : reason::stop;
  }

  [[nodiscard]] stop_source leave_accounts(reason why) noexcept {
    shard& home = *handle_->home;
    const lock guard(home.mutex);
    return account_leave(home, why);
  }

  [[nodiscard]] stop_source account_leave(shard& home, reason why) noexcept
      SINGLEFLIGHT_REQUIRES(home.mutex) {
    if (teller == nullptr) return detail::account_leave(home, *handle_, began_, why);
    return detail::account_leave(home, *handle_, began_, why, *teller);
  }

  /// Tells of a caller that has left, in the phase of starting, and is not resumed for it. Waits
  /// for who makes it leave, on another thread, and still settles its accounts.
  void has_left() noexcept {
    ignore_stops();
    why_ = was_stopped();
    disconnect();
    tell_left(*why_);
  }

  void tell_left(reason why) noexcept {
    if (const std::unique_ptr<wait_teller> t = std::move(teller)) t->tell_left(why);
  }

  /// Tells of the result of a caller that joined a call.
  void tell_ended() noexcept {
    const std::unique_ptr<wait_teller> t = std::move(teller);
    if (t != nullptr && !why_ && !began_) t->tell_ended(has_value());
  }

#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wdangling-pointer"  // where it is left dangling, this is gone
#endif
  /// Runs the stop callbacks of the call's loader, if this was the last caller to leave.
  /// Returns: false if one of them has destroyed this.
  bool stop_loader(stop_source&& loader) noexcept {
    bool gone = false;
    chosen_->gone = &gone;
    loader.request_stop();
    if (gone) return false;
    chosen_->gone = nullptr;
    return true;
  }
#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC diagnostic pop
#endif

  small_reason why_;    // it gets no result
  bool began_ = false;  // the call, rather than joined it; fixed while it waits
  // A word together with the bytes before it. Not a byte, to exchange which RISC-V needs libatomic.
  std::atomic<phase> phase_ = phase::entering;

  // Fixed while it waits.
  chosen* const chosen_;  // null: no options
  std::shared_ptr<handle_type> handle_;
};

}  // namespace singleflight::inline SINGLEFLIGHT_ABI::detail

#endif  // SINGLEFLIGHT_DETAIL_ASYNC_WAIT_HPP
