// SPDX-License-Identifier: MIT
#ifndef SINGLEFLIGHT_DETAIL_OWNED_CALL_HPP
#define SINGLEFLIGHT_DETAIL_OWNED_CALL_HPP

#include <atomic>
#include <cstdint>
#include <exception>
#include <future>
#include <memory>
#include <optional>
#include <thread>
#include <type_traits>
#include <utility>

#include "../call_context.hpp"
#include "../call_error.hpp"
#include "../leader.hpp"
#include "../result.hpp"
#include "call.hpp"
#include "call_map.hpp"
#include "config.hpp"
#include "context.hpp"
#include "keep_alive.hpp"
#include "lead.hpp"
#include "loader.hpp"
#include "mutex.hpp"
#include "owned_calls.hpp"
#include "stop.hpp"
#include "wait_graph.hpp"
#include "waiter_list.hpp"

namespace singleflight::inline SINGLEFLIGHT_ABI::detail {

/// A call that lives on the heap, since it is not one caller's frame that leads it: led by a
/// `leader`, or run on an executor. Owned by who may end it and by who waits for it. It is its own
/// handle, so that to begin it takes one allocation.
///
/// Life: made; begun, which is listed and given to who is to end it; claimed by the thread that
/// ends it; empty, which is claimed with its key gone. It may outlive the group: an empty one
/// touches only itself, and so does one that a forked child has lost, unless it is asynchronous and
/// keeps its shard.
template <class Key, class Value>
class owned_call : public owned_calls::member, public open_call<Value> {
 public:
  using shard = call_map<Key, Value>;
  using handle_type = call_handle<Key, Value>;

  /// `stop`: what its loader is told to stop with. `alive`: what keeps the shards of a call that
  /// may outlive its group.
  template <class K>
  owned_call(shard& home, owned_calls& every, std::uint64_t hash, K&& key, stop_source stop,
             bool on_executor, const block_ptr& alive)
      : home_(home),
        every_(every),
        on_executor_(on_executor),
        body_(std::in_place, hash, std::forward<K>(key), std::this_thread::get_id(),
              std::move(stop)) {
    body_->shared.emplace();
    handle_.home = &home;
    handle_.owned = this;
    handle_.running = &*body_;
    handle_.alive = alive;
    handle_.node.by_thread = on_executor;
  }
  owned_call(const owned_call&) = delete;  // the map points into it
  owned_call& operator=(const owned_call&) = delete;
  virtual ~owned_call() = default;

  [[nodiscard]] call<Key, Value>& get() noexcept { return *body_; }

  /// Makes what the caller that begins it needs to wait for it, before it begins. `self` owns this.
  /// Throws: `std::bad_alloc`, and then the call must not begin.
  [[nodiscard]] std::shared_ptr<handle_type> prepare(std::shared_ptr<owned_call> self,
                                                     wait_needs needs) {
    if (needs.to_be_woken) handle_.waiters.emplace();
    handle_.watched = needs.an_edge;
    handle_.node.leader = body_->leader;
    return {std::move(self), &handle_};
  }

  /// As above, for one that waits in the future.
  [[nodiscard]] wait_ticket<Key, Value> prepare_future(std::shared_ptr<owned_call> self,
                                                       wait_needs needs) {
    body_->shared->channel.emplace();
    body_->shared->handed_out = true;
    return {body_->shared->channel->future, prepare(std::move(self), needs)};
  }

  /// From here on it must be ended. Before, no other thread knows it. `home` is its shard, by the
  /// name under which the caller has locked it.
  void begin(const shard& home, std::shared_ptr<owned_call> self) noexcept
      SINGLEFLIGHT_REQUIRES(home.mutex) {
    body_->shared->handle = std::shared_ptr<handle_type>(std::move(self), &handle_);
    body_->forgets_before = home.forgets();
    if (on_executor_) {
      every_.add(*this);
    } else {
      every_.add_asynchronous();
    }
  }

  // --- Ending it ---------------------------------------------------------------------------------

  void end_with(loaded<Value>&& value) noexcept final {
    if (!claim()) return;
    const destruction at_exit{*this};
    end_claimed(value);
  }

  void fail(std::exception_ptr why) noexcept final {
    if (claim()) fail_claimed(std::move(why));
  }

  /// While the loader is being started, whoever starts it knows better why the call fails.
  void give_up() noexcept final {
    if (lost()) return lose();
    phase expected = phase::starting;
    if (phase_.compare_exchange_strong(expected, phase::given_up)) return;
    drop();
  }

  /// To be called when the loader has been started on this thread, which led the call until now.
  void started() noexcept {
    if (ended()) return;
    phase now = phase::starting;
    if (!phase_.compare_exchange_strong(now, phase::open) && now == phase::given_up) return drop();
    const lock guard(home_.mutex);
    if (home_.running(handle_) == nullptr) return;
    if (get().shared->leader_waits) home_.begin_to_wait(get());
    if (!taken_) home_.set_leader(get(), {});
  }

  /// Makes this thread the call's leader, which runs its loader to the end of the call.
  /// Returns: whether any caller is left that wants the result.
  [[nodiscard]] bool lead_here() noexcept {
    const lock guard(home_.mutex);
    set_leader_here();
    return home_.is_wanted(get());
  }

  /// The same for an asynchronous call, which keeps its shard alive, and which somebody may have
  /// ended or, in a forked child, lost already.
  void run_here() noexcept override {
    const lock guard(home_.mutex);
    if (home_.running(handle_) != nullptr) set_leader_here();
  }

  /// Whether all who wait have been woken. A thread that sees it sees the result.
  [[nodiscard]] bool ended() const noexcept {
    return phase_.load(std::memory_order_acquire) == phase::ended;
  }

  [[nodiscard]] const call_context& context() const noexcept override { return context_; }

  // --- The caller that began it ------------------------------------------------------------------

  /// Returns: the result for the caller that began it, after the call has ended.
  /// Throws: what the call failed with; what moving the value throws.
  [[nodiscard]] result<Value> take() {
    if (handle_.joined) {
      static_cast<void>(handle_.future.get());
      return result_maker::of<Value>(std::shared_future<Value>(handle_.future), true, true);
    }
    if (error_ != nullptr) std::rethrow_exception(std::exchange(error_, nullptr));
    return detail::keep<Key, Value>(home_, *value_);
  }

 protected:
  enum class phase { starting, given_up, open, claimed, ended };

  /// Destroys the key, and what `Loader` holds, and lets the group's destructor go on, which may
  /// end the group.
  struct destruction {
    owned_call& self;
    ~destruction() {
      self.is_over(false);
      self.body_.reset();
      if (self.on_executor_) {
        self.every_.remove(self);
      } else {
        self.every_.remove_asynchronous();
      }
    }
  };

  /// Returns: whether this thread is the one that ends the call. The others must not touch the
  /// group, which may be gone, nor block, for a forked child may lack the first.
  [[nodiscard]] bool claim() noexcept {
    phase expected = phase_.load();
    while (expected < phase::claimed && !lost()) {
      if (phase_.compare_exchange_weak(expected, phase::claimed)) return true;
    }
    return false;
  }

  /// Hands over a value. Whoever began the call may be the only one to get it.
  void end_claimed(loaded<Value>& value) noexcept {
    has_value_ = detail::end_with(home_, get(), value, [this](loaded<Value>& unshared) {
      try {
        value_.emplace(std::move(unshared));
      } catch (...) {
        error_ = current_failure();
        detail::count_failure(home_);
      }
      detail::announce(get(), !begins_here());
      return error_ == nullptr;
    });
  }

  /// Whether this thread, which has ended the call, is about to return to the caller that begins
  /// it, which sees for itself that it has ended, and is in no list yet. Nobody else touches what
  /// this looks at when the call has ended.
  [[nodiscard]] bool begins_here() noexcept SINGLEFLIGHT_NOT_ANALYSED {
    return !taken_ && get().leader == std::this_thread::get_id();
  }

  void fail_claimed(std::exception_ptr why) noexcept {
    const destruction at_exit{*this};
    error_ = why;
    detail::fail(home_, get(), std::move(why));
  }

  /// Called when all who wait have been told, by who claimed it or, in a forked child, lost it.
  virtual void is_over([[maybe_unused]] bool lost) noexcept {
    phase_.store(phase::ended, std::memory_order_release);
  }

  /// Whether a forked child must not end the call.
  [[nodiscard]] bool lost() const noexcept { return owned_calls::member::lost() || handle_.lost; }

  shard& home_;
  owned_calls& every_;
  const bool on_executor_;
  std::optional<call<Key, Value>> body_;  // of who made the call, then of who claimed it
  std::atomic<phase> phase_ = phase::starting;

  // Of who claimed it.
  bool has_value_ = false;  // whether it has ended with a value

 private:
  void set_leader_here() noexcept SINGLEFLIGHT_REQUIRES(home_.mutex) {
    taken_ = true;
    home_.set_leader(get(), std::this_thread::get_id());
  }

  [[nodiscard]] virtual std::exception_ptr why_dropped() const noexcept {
    return make_call_error(reason::leader_gone);
  }

  /// In a forked child, which cannot end the call: lets go of it.
  void lose() noexcept {
    if (ended()) return;
    detail::publish_failure(get(), make_call_error(reason::lost_in_fork));
    is_over(true);
    body_.reset();
  }

  void drop() noexcept final {
    if (claim()) fail_claimed(why_dropped());
  }

  handle_type handle_;
  /// Whether the thread that is to end it leads it.
  bool taken_ SINGLEFLIGHT_GUARDED_BY(home_.mutex) = false;
  context_of<Key, Value> context_{home_, *body_};

  // What the caller that began it gets if it shares it with nobody. Written before it is woken.
  std::optional<loaded<Value>> value_;
  std::exception_ptr error_;
};

}  // namespace singleflight::inline SINGLEFLIGHT_ABI::detail

#endif  // SINGLEFLIGHT_DETAIL_OWNED_CALL_HPP
