// SPDX-License-Identifier: MIT
#ifndef SINGLEFLIGHT_DETAIL_EXECUTOR_CALL_HPP
#define SINGLEFLIGHT_DETAIL_EXECUTOR_CALL_HPP

#include <condition_variable>
#include <cstddef>
#include <cstdint>
#include <exception>
#include <memory>
#include <mutex>
#include <optional>
#include <system_error>
#include <thread>
#include <type_traits>
#include <utility>

#include "call.hpp"
#include "call_map.hpp"
#include "lead.hpp"
#include "mutex.hpp"
#include "stop.hpp"
#include "wait_graph.hpp"

namespace singleflight::inline v1::detail {

/// Counts the calls on executors, for the group's destructor to wait until there are none.
class drain {
 public:
  void enter() noexcept {
    const std::lock_guard guard(mutex_);
    ++inside_;
  }

  /// Notifies the one destructor that may wait, and under the mutex: once that is released, the drain
  /// may be gone.
  void leave() noexcept {
    const std::lock_guard guard(mutex_);
    if (--inside_ == 0) empty_.notify_one();
  }

  void wait() noexcept {
    std::unique_lock guard(mutex_);
    empty_.wait(guard, [this] { return inside_ == 0; });
  }

 private:
  std::mutex mutex_;
  std::condition_variable empty_;
  std::size_t inside_ = 0;  // guarded by mutex_
};

/// A call whose loader runs on an executor. Owned by the tasks that the executor has been given;
/// the last of them to go without having been run fails the call.
///
/// Life: made, begun (listed, and given to the executor), claimed (by the one that runs or fails
/// it), empty (key and loader gone). A task may outlive the group, so an empty one touches only
/// itself.
template <class Key, class Value, class Fn>
class executor_call {
 public:
  using shard = call_map<Key, Value>;

  template <class K>
  executor_call(shard& home, drain& group_drain, std::uint64_t hash, K&& key)
      : home_(home), drain_(group_drain), body_(std::in_place, hash, std::forward<K>(key)) {}
  executor_call(const executor_call&) = delete;  // the map points into it
  executor_call& operator=(const executor_call&) = delete;

  ~executor_call() {
    if (claim()) {
      fail_claimed(
          make_failure(std::errc::owner_dead,
                       "singleflight: the executor dropped the loader without running it"));
    }
  }

  [[nodiscard]] call<Key, Value>& get() noexcept { return body_->call; }

  /// From here on the group's destructor waits for this call. Before, nobody else knows it.
  void begin() noexcept {
    drain_.enter();
    phase_ = phase::begun;
  }

  template <class F>
  void set_loader(F&& fn) {
    body_->fn.emplace(std::forward<F>(fn));
  }

  /// To be called when the executor has returned. Until then this thread leads the call, for nobody
  /// else may come to run it; from now on nobody does, unless a task is run already.
  void handed_over() noexcept {
    const std::lock_guard guard(mutex_);
    if (phase_ == phase::begun) set_leader({});
  }

  /// Runs the loader here, the first time it is called. The loader's exceptions go to those who
  /// wait for the call, none to the executor.
  void run() {
    if (!claim()) return;
    const emptier at_exit{*this};
    call<Key, Value>& own = get();
    if (!wanted_) {
      fail(home_, own,
           make_failure(std::errc::operation_canceled,
                        "singleflight: all callers left before the loader began"));
      return;
    }
    try {
      if constexpr (std::is_void_v<Value>) {
        detail::run(home_, own, std::move(*body_->fn));
        detail::end(home_, own);
        detail::publish(home_, own);
      } else {
        Value value = detail::run(home_, own, std::move(*body_->fn));
        detail::end(home_, own);
        detail::publish(home_, own, std::move(value));
      }
    } catch (...) {
      if (std::current_exception() == nullptr) throw;  // forced unwinding must go on
    }
  }

  /// Fails the call unless somebody has begun to run it.
  void abandon(std::exception_ptr why) noexcept {
    if (claim()) fail_claimed(std::move(why));
  }

 private:
  enum class phase { made, begun, claimed };

  struct body {
    template <class K>
    body(std::uint64_t hash, K&& key)
        : call(hash, std::forward<K>(key), std::this_thread::get_id(), stop_source_for<Fn>()) {}

    detail::call<Key, Value> call;
    std::optional<Fn> fn;
  };

  /// Destroys key and loader, and lets the group's destructor go on, which may end the group.
  struct emptier {
    executor_call& self;
    ~emptier() {
      self.body_.reset();
      self.drain_.leave();
    }
  };

  /// Makes this thread the call's leader if it is the first to come. In one step: between the two,
  /// the thread that handed the call over could come back to the group and be taken for its leader.
  /// Returns: whether it is, and so the one that runs or fails the call.
  [[nodiscard]] bool claim() noexcept {
    const std::lock_guard guard(mutex_);
    if (phase_ != phase::begun) return false;
    phase_ = phase::claimed;
    wanted_ = set_leader(std::this_thread::get_id());
    return true;
  }

  void fail_claimed(std::exception_ptr why) noexcept {
    const emptier at_exit{*this};
    detail::fail(home_, get(), std::move(why));
  }

  /// Returns: whether anybody still wants the result.
  bool set_leader(std::thread::id who) noexcept {
    call<Key, Value>& own = get();
    const lock guard(home_.mutex);
    own.leader = who;
    home_.show_leader(own);
    return own.interested > 0;
  }

  shard& home_;
  drain& drain_;
  std::optional<body> body_;  // of the one that made the call, then of the one that claimed it
  std::mutex mutex_;
  phase phase_ = phase::made;  // guarded by mutex_
  bool wanted_ = true;         // whether anybody was left when it was claimed; who claimed it reads
};

/// What an executor is given: a copyable function object that runs the call when first invoked.
template <class Key, class Value, class Fn>
class executor_task {
 public:
  explicit executor_task(std::shared_ptr<executor_call<Key, Value, Fn>> c) noexcept
      : call_(std::move(c)) {}

  /// Keeps the call alive itself: an executor may overwrite the task that it is running.
  void operator()() const {
    const auto keep = call_;
    keep->run();
  }

 private:
  std::shared_ptr<executor_call<Key, Value, Fn>> call_;
};

}  // namespace singleflight::inline v1::detail

#endif  // SINGLEFLIGHT_DETAIL_EXECUTOR_CALL_HPP
