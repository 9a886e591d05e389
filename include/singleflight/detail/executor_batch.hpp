// SPDX-License-Identifier: MIT
#ifndef SINGLEFLIGHT_DETAIL_EXECUTOR_BATCH_HPP
#define SINGLEFLIGHT_DETAIL_EXECUTOR_BATCH_HPP

#include <algorithm>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <exception>
#include <memory>
#include <optional>
#include <span>
#include <thread>
#include <utility>
#include <vector>

#include "../batch.hpp"
#include "../call_context.hpp"
#include "../call_error.hpp"
#include "batch_context.hpp"
#include "bulk_keys.hpp"
#include "bulk_loader.hpp"
#include "call_map.hpp"
#include "config.hpp"
#include "exit.hpp"
#include "lead.hpp"
#include "loader.hpp"
#include "mutex.hpp"
#include "owned_call.hpp"
#include "owned_calls.hpp"
#include "stop.hpp"
#include "traits.hpp"
#include "wait_graph.hpp"

namespace singleflight::inline SINGLEFLIGHT_ABI::detail {

/// A call of a batch that is loaded on an executor.
template <class Key, class Value>
class batch_call : public owned_call<Key, Value> {
 public:
  batch_call(call_map<Key, Value>& home, owned_calls& every, std::uint64_t hash, const Key& key)
      : owned_call<Key, Value>(home, every, hash, home.make_key(key), new_stop_source(), true, {}) {
  }

  /// To be called when the executor has returned: see `executor_call`.
  void handed_over() noexcept {
    this->every_.disown(*this);
    this->started();
  }

  /// Ends the call in its loader, whose thread may end while it moves the value. What the move
  /// throws goes to those who wait.
  void settle(loaded<Value>& value) {
    if (!this->claim()) return;
    const typename owned_call<Key, Value>::destruction at_exit{*this};
    {
      const lock guard(this->home_.mutex);
      this->home_.end(this->get());
    }
    try {
      detail::publish(this->home_, this->get(), value);
      this->has_value_ = true;
    } catch (...) {
      if (std::current_exception() == nullptr) throw;  // forced unwinding must go on
    }
  }

  /// Makes this thread the call's leader. Returns: whether any caller is left that wants the
  /// result.
  [[nodiscard]] bool lead_here() noexcept {
    this->every_.own(*this);
    return owned_call<Key, Value>::lead_here();
  }
};

/// A batch that a caller of `do_many_on` has given to an executor. It has the keys, also after that
/// caller has left. The group's destructor waits for its loader as it does for its calls.
template <class Group, class Key, class Value, class Fn>
class executor_batch final
    : public batch_context<Key, Value>,
      public owned_calls::member,
      public std::enable_shared_from_this<executor_batch<Group, Key, Value, Fn>> {
  using base = batch_context<Key, Value>;

 public:
  using key_type = bulk_key<Key, Value>;

  /// Throws: `std::bad_alloc`.
  executor_batch(Group& group, owned_calls& every, std::shared_ptr<bulk_keys<Key, Value>> all,
                 std::size_t most)
      : group_(group), every_(every), all_(std::move(all)) {
    keys_.reserve(most);
  }
  ~executor_batch() {
    for (key_type* const k : keys_) k->leave(this);
  }

  [[nodiscard]] std::size_t size() const noexcept { return keys_.size(); }
  void add(key_type& k) noexcept {
    k.in.store(this, std::memory_order_relaxed);
    keys_.push_back(&k);
  }

  /// Fails its calls before it is launched: the thread that begins them is being ended.
  void give_up() noexcept { fail_rest(make_call_error(reason::leader_exited)); }

  /// Gives the batch to its executor, and fails its calls if that throws.
  template <class Executor>
  void launch(Executor& executor, const Fn& fn) {
    std::sort(keys_.begin(), keys_.end(),
              [](const key_type* a, const key_type* b) { return a->first < b->first; });
    every_.add(*this);
    std::shared_ptr<task_state> task;  // its end must not come before a failure is known
    try {
      const leading here;  // until the executor has returned
      task = std::make_shared<task_state>(this->shared_from_this());
      fn_.emplace(fn);
      executor([task]() {
        const auto keep = task;  // an executor may overwrite the task that it is running
        keep->batch->run();
      });
      every_.disown(*this);
    } catch (...) {
      abandon(current_failure());
      if (std::current_exception() == nullptr) throw;  // forced unwinding must go on
    }
  }

 private:
  /// The last copy of the task to go, unless one was run, fails the calls.
  struct task_state {
    explicit task_state(std::shared_ptr<executor_batch> b) noexcept : batch(std::move(b)) {}
    task_state(const task_state&) = delete;
    task_state& operator=(const task_state&) = delete;
    ~task_state() { batch->drop(); }
    const std::shared_ptr<executor_batch> batch;
  };

  struct end {
    executor_batch& self;
    ~end() {
      self.fn_.reset();
      self.every_.remove(self);
    }
  };

  void run() {
    if (over_.test_and_set() || lost()) return;
    const end at_exit{*this};
    every_.own(*this);
    watch_this_thread();
    const typename base::leadership whole(*this);
    drop_unwanted();
    if (keys_.empty()) return;
    try {
      const leading here;
      batch<Key, Value> shown = batch_maker::make(static_cast<open_batch<Key, Value>&>(*this));
      detail::invoke_bulk_loader(*fn_, shown, static_cast<const call_context&>(*this));
    } catch (...) {
      fail_rest(current_failure());
      if (std::current_exception() == nullptr) throw;  // forced unwinding must go on
      return;
    }
    if (any_is_open()) fail_rest(make_call_error(reason::no_value));
  }

  /// The keys that all callers have left before the loader could begin.
  void drop_unwanted() {
    const auto unwanted = std::stable_partition(
        keys_.begin(), keys_.end(), [](key_type* k) { return k->elsewhere->lead_here(); });
    for (auto k = unwanted; k != keys_.end(); ++k) {
      (*k)->leave(this);
      (*k)->elsewhere->fail(make_call_error(reason::nobody_waits));
    }
    keys_.erase(unwanted, keys_.end());
  }

  void abandon(const std::exception_ptr& why) noexcept {
    if (over_.test_and_set()) return;
    const end at_exit{*this};
    fail_rest(why);
  }

  [[nodiscard]] bool any_is_open() const noexcept {
    return std::any_of(keys_.begin(), keys_.end(),
                       [](const key_type* k) { return !k->elsewhere->ended(); });
  }

  /// This thread leads what is open: those who are resumed inline run user code before all has
  /// ended.
  void fail_rest(const std::exception_ptr& why) noexcept {
    for (key_type* const k : keys_) k->elsewhere->run_here();
    const leading here;
    for (key_type* const k : keys_) k->elsewhere->fail(why);
  }

  // --- What the loader does with it --------------------------------------------------------------

  [[nodiscard]] std::span<key_type* const> keys() const noexcept override { return keys_; }

  [[nodiscard]] key_type* find(const Key& key) const override {
    key_type* const found = group_.find_in(*all_, key);
    return found != nullptr && found->in.load(std::memory_order_relaxed) == this ? found : nullptr;
  }

  void end_with(key_type& k, loaded<Value>& value) override {
    k.elsewhere->settle(value);
    this->was_settled();
  }

  void fail(key_type& k, std::exception_ptr why) override {
    k.elsewhere->fail(std::move(why));
    this->was_settled();
  }

  void end_rest_with(const loaded<Value>& value, copy_function<Value> copy) override {
    for (key_type* const k : keys_) {
      if (k->elsewhere->ended()) continue;
      try {
        std::optional<loaded<Value>> own;
        copy(own, value);
        k->elsewhere->settle(*own);
      } catch (...) {  // the copy threw
        k->elsewhere->fail(current_failure());
        if (std::current_exception() == nullptr) throw;
      }
    }
  }

  [[nodiscard]] key_state state_of(const key_type& k) const noexcept override {
    const lock guard(k.home.mutex);
    return base::state_in(k.home, k.running());
  }

#if defined(__cpp_lib_jthread)
  [[nodiscard]] std::stop_token token_of(key_type& k) const override {
    return k.own.stop.get_token();
  }
#endif

  // --- In the list of the group ------------------------------------------------------------------

  [[nodiscard]] std::shared_ptr<owned_calls::member> keep() noexcept override {
    return this->weak_from_this().lock();
  }
  void drop() noexcept override {
    if (!lost() && !over_.test()) abandon(make_call_error(reason::task_dropped));
  }

  Group& group_;
  owned_calls& every_;
  const std::shared_ptr<bulk_keys<Key, Value>> all_;
  std::vector<key_type*> keys_;  // in the order of their first mention, once it is launched
  std::optional<Fn> fn_;         // of who launches it, then of who runs it
  // Whether a thread runs or has failed it. Not an atomic<bool>, to exchange which RISC-V needs
  // libatomic.
  std::atomic_flag over_;
};

}  // namespace singleflight::inline SINGLEFLIGHT_ABI::detail

#endif  // SINGLEFLIGHT_DETAIL_EXECUTOR_BATCH_HPP
