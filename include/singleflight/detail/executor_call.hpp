// SPDX-License-Identifier: MIT
#ifndef SINGLEFLIGHT_DETAIL_EXECUTOR_CALL_HPP
#define SINGLEFLIGHT_DETAIL_EXECUTOR_CALL_HPP

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <exception>
#include <memory>
#include <optional>
#include <thread>
#include <type_traits>
#include <utility>

#include "../call_error.hpp"
#include "call_map.hpp"
#include "config.hpp"
#include "exit.hpp"
#include "lead.hpp"
#include "loader.hpp"
#include "mutex.hpp"
#include "owned_call.hpp"
#include "owned_calls.hpp"
#include "wait_graph.hpp"

namespace singleflight::inline SINGLEFLIGHT_ABI::detail {

/// A call whose loader runs on an executor. Owned by the tasks that the executor has been given;
/// the last of them to go without having been run fails the call.
template <class Key, class Value, class Fn>
class executor_call : public owned_call<Key, Value>,
                      public std::enable_shared_from_this<executor_call<Key, Value, Fn>> {
  using base = owned_call<Key, Value>;

 public:
  template <class K>
  executor_call(call_map<Key, Value>& home, owned_calls& every, std::uint64_t hash, K&& key)
      : base(home, every, hash, std::forward<K>(key), stop_source_for<Fn, Key>(), true, {}) {}

  template <class F>
  void set_loader(F&& fn) {
    fn_.emplace(std::forward<F>(fn));
  }

  /// To be called when the executor has returned. Until then this thread leads the call, for no
  /// other may come to run it; from now on no thread does, unless a task is run already.
  void handed_over() noexcept {
    this->every_.disown(*this);
    this->started();
  }

  /// Runs the loader here, the first time it is called. The loader's exceptions go to those who
  /// wait for the call, none to the executor.
  void run() {
    if (!this->claim()) return;
    const typename base::destruction at_exit{*this};
    watch_this_thread();
    this->every_.own(*this);
    if (!this->lead_here()) {
      detail::fail(this->home_, this->get(), make_call_error(reason::nobody_waits));
      return;
    }
    try {
      static_cast<void>(detail::lead(this->home_, this->get(), std::move(*fn_)));
      this->has_value_ = true;
    } catch (...) {
      if (std::current_exception() == nullptr) throw;  // forced unwinding must go on
    }
  }

  void add_task() noexcept { tasks_.fetch_add(1, std::memory_order_relaxed); }
  void remove_task() noexcept {
    if (tasks_.fetch_sub(1, std::memory_order_acq_rel) == 1) this->give_up();
  }

 protected:
  void is_over(bool lost) noexcept override {
    base::is_over(lost);
    fn_.reset();
  }

 private:
  [[nodiscard]] std::shared_ptr<owned_calls::member> keep() noexcept override {
    return this->weak_from_this().lock();
  }
  [[nodiscard]] std::exception_ptr why_dropped() const noexcept override {
    return make_call_error(reason::task_dropped);
  }

  std::optional<Fn> fn_;  // of who made the call, then of who claimed it
  std::atomic<std::size_t> tasks_ = 0;
};

template <class Key, class Value, class Fn>
using executor_call_ptr = std::shared_ptr<executor_call<Key, Value, std::decay_t<Fn>>>;

/// The copyable function object that an executor is given. It runs the call when first invoked.
template <class Key, class Value, class Fn>
class executor_task {
 public:
  explicit executor_task(executor_call_ptr<Key, Value, Fn> c) noexcept : call_(std::move(c)) {
    call_->add_task();
  }
  executor_task(const executor_task& other) noexcept : call_(other.call_) {
    if (call_ != nullptr) call_->add_task();
  }
  executor_task(executor_task&&) noexcept = default;
  executor_task& operator=(executor_task other) noexcept {
    call_.swap(other.call_);
    return *this;
  }
  ~executor_task() {
    if (call_ != nullptr) call_->remove_task();
  }

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
template <class Key, class Value, class Fn, class K, class Watch>
void make_executor_call(std::shared_ptr<executor_call<Key, Value, Fn>>& made,
                        call_map<Key, Value>& home, owned_calls& every, std::uint64_t hash, K&& key,
                        const Watch& seen) SINGLEFLIGHT_REQUIRES(home.mutex) {
  made = seen.template make<executor_call<Key, Value, Fn>>(home, every, hash,
                                                           home.make_key(std::forward<K>(key)));
}

/// Gives a call that has begun to its executor.
template <class Key, class Value, class Stored, class Executor, class Fn>
void launch(std::shared_ptr<executor_call<Key, Value, Stored>> started, Executor&& executor,
            Fn&& fn) {
  try {
    const leading here;  // until the executor has returned
    const executor_task<Key, Value, Stored> task(started);
    started->set_loader(std::forward<Fn>(fn));
    std::forward<Executor>(executor)(executor_task<Key, Value, Stored>(task));
    started->handed_over();
  } catch (...) {
    started->fail(current_failure());
    if (std::current_exception() == nullptr) throw;  // forced unwinding must go on
  }
}

}  // namespace singleflight::inline SINGLEFLIGHT_ABI::detail

#endif  // SINGLEFLIGHT_DETAIL_EXECUTOR_CALL_HPP
