// SPDX-License-Identifier: MIT
#ifndef SINGLEFLIGHT_DETAIL_EXECUTOR_CALL_HPP
#define SINGLEFLIGHT_DETAIL_EXECUTOR_CALL_HPP

#include <atomic>
#include <cstdint>
#include <exception>
#include <memory>
#include <optional>
#include <thread>
#include <type_traits>
#include <utility>

#include "../call_error.hpp"
#include "call.hpp"
#include "call_map.hpp"
#include "config.hpp"
#include "executor_calls.hpp"
#include "exit.hpp"
#include "lead.hpp"
#include "loader.hpp"
#include "mutex.hpp"
#include "wait_graph.hpp"

namespace singleflight::inline SINGLEFLIGHT_ABI::detail {

/// A call whose loader runs on an executor. Owned by the tasks that the executor has been given;
/// the last of them to go without having been run fails the call.
///
/// Life: made; begun, which is listed and given to the executor; claimed by the thread that runs or
/// fails it; empty, which is claimed with key and loader gone. A task may outlive the group, so an empty one touches
/// only itself; so does one that a forked child has lost.
template <class Key, class Value, class Fn>
class executor_call final : public executor_calls::member,
                            public std::enable_shared_from_this<executor_call<Key, Value, Fn>> {
 public:
  using shard = call_map<Key, Value>;

  template <class K>
  executor_call(shard& home, executor_calls& every, std::uint64_t hash, K&& key)
      : home_(home), every_(every), body_(std::in_place, hash, std::forward<K>(key)) {}
  executor_call(const executor_call&) = delete;  // the map points into it
  executor_call& operator=(const executor_call&) = delete;

  ~executor_call() {
    drop();
    if (lost()) detail::publish_failure(get(), make_call_error(reason::lost_in_fork));
  }

  [[nodiscard]] call<Key, Value>& get() noexcept { return body_->call; }

  /// From here on the group's destructor waits for this call. Before, no other thread knows it.
  void begin() noexcept {
    every_.add(*this);
    phase_.store(phase::begun);
  }

  template <class F>
  void set_loader(F&& fn) {
    body_->fn.emplace(std::forward<F>(fn));
  }

  /// To be called when the executor has returned. Until then this thread leads the call, for no
  /// other may come to run it; from now on no thread does, unless a task is run already.
  void handed_over() noexcept {
    every_.disown(*this);
    const lock guard(home_.mutex);
    if (!taken_) home_.set_leader(get(), {});
  }

  /// Runs the loader here, the first time it is called. The loader's exceptions go to those who
  /// wait for the call, none to the executor.
  void run() {
    if (!claim()) return;
    const destruction at_exit{*this};
    watch_this_thread();
    if (!wanted_) {
      detail::fail(home_, get(), make_call_error(reason::nobody_waits));
      return;
    }
    try {
      static_cast<void>(detail::lead(home_, get(), std::move(*body_->fn)));
    } catch (...) {
      if (std::current_exception() == nullptr) throw;  // forced unwinding must go on
    }
  }

  /// Fails the call unless a thread has begun to run it.
  void abandon(std::exception_ptr why) noexcept {
    if (claim()) fail_claimed(std::move(why));
  }

 private:
  [[nodiscard]] std::shared_ptr<executor_calls::member> keep() noexcept override {
    return this->weak_from_this().lock();
  }

  void drop() noexcept override {
    if (claim()) fail_claimed(make_call_error(reason::task_dropped));
  }

  enum class phase { made, begun, claimed };

  struct body {
    template <class K>
    body(std::uint64_t hash, K&& key)
        : call(hash, std::forward<K>(key), std::this_thread::get_id(), stop_source_for<Fn, Key>()) {
    }

    detail::call<Key, Value> call;
    std::optional<Fn> fn;
  };

  /// Destroys key and loader, and lets the group's destructor go on, which may end the group.
  struct destruction {
    executor_call& self;
    ~destruction() {
      self.body_.reset();
      self.every_.remove(self);
    }
  };

  /// Makes this thread the call's leader if it is the first to come. The others must not touch the
  /// group, which may be gone, nor block, for a forked child may lack the first.
  /// Returns: whether it is, and so the one that runs or fails the call.
  [[nodiscard]] bool claim() noexcept {
    phase expected = phase::begun;
    if (lost() || !phase_.compare_exchange_strong(expected, phase::claimed)) return false;
    every_.own(*this);
    const lock guard(home_.mutex);
    taken_ = true;
    home_.set_leader(get(), std::this_thread::get_id());
    wanted_ = get().interested > 0;
    return true;
  }

  void fail_claimed(std::exception_ptr why) noexcept {
    const destruction at_exit{*this};
    detail::fail(home_, get(), std::move(why));
  }

  shard& home_;
  executor_calls& every_;
  std::optional<body> body_;  // of the one that made the call, then of the one that claimed it
  std::atomic<phase> phase_ = phase::made;
  bool taken_ = false;  // whether the thread that claimed it leads it; guarded by the shard's mutex
  bool wanted_ = true;  // whether any caller was left when it was claimed; of that thread
};

template <class Key, class Value, class Fn>
using executor_call_ptr = std::shared_ptr<executor_call<Key, Value, std::decay_t<Fn>>>;

/// The copyable function object that an executor is given. It runs the call when first invoked.
template <class Key, class Value, class Fn>
class executor_task {
 public:
  explicit executor_task(executor_call_ptr<Key, Value, Fn> c) noexcept : call_(std::move(c)) {}

  /// Keeps the call alive itself: an executor may overwrite the task that it is running.
  void operator()() const {
    const auto keep = call_;
    keep->run();
  }

 private:
  executor_call_ptr<Key, Value, Fn> call_;
};

/// Makes a call that can begin. `made` is assigned as soon as there is a key, which must not be
/// destroyed under the lock.
template <class Key, class Value, class Fn, class K>
void make_executor_call(std::shared_ptr<executor_call<Key, Value, Fn>>& made,
                        call_map<Key, Value>& home, executor_calls& every, std::uint64_t hash,
                        K&& key) SINGLEFLIGHT_REQUIRES(home.mutex) {
  made = std::make_shared<executor_call<Key, Value, Fn>>(home, every, hash,
                                                         home.make_key(std::forward<K>(key)));
  // With a handle from the start, through which the wait graph is shown each new leader.
  home.make_ticket(made->get(), {.to_leave = true, .to_be_stopped = false, .an_edge = false});
  made->get().shared->handed_out = true;
  made->get().forgets_before = home.forgets();
}

/// Gives a call that has begun to its executor.
template <class Key, class Value, class Stored, class Executor, class Fn>
void launch(std::shared_ptr<executor_call<Key, Value, Stored>> started, Executor&& executor,
            Fn&& fn) {
  try {
    const leading here;  // until the executor has returned
    started->set_loader(std::forward<Fn>(fn));
    std::forward<Executor>(executor)(executor_task<Key, Value, Stored>(started));
    started->handed_over();
  } catch (...) {
    started->abandon(current_failure());
    if (std::current_exception() == nullptr) throw;  // forced unwinding must go on
  }
}

}  // namespace singleflight::inline SINGLEFLIGHT_ABI::detail

#endif  // SINGLEFLIGHT_DETAIL_EXECUTOR_CALL_HPP
