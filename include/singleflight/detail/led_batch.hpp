// SPDX-License-Identifier: MIT
#ifndef SINGLEFLIGHT_DETAIL_LED_BATCH_HPP
#define SINGLEFLIGHT_DETAIL_LED_BATCH_HPP

#include <algorithm>
#include <atomic>
#include <cstddef>
#include <exception>
#include <future>
#include <memory>
#include <optional>
#include <span>
#include <type_traits>
#include <utility>
#include <vector>

#include "../batch.hpp"
#include "../call_context.hpp"
#include "../call_error.hpp"
#include "../observer.hpp"
#include "../outcome.hpp"
#include "../result.hpp"
#include "batch_context.hpp"
#include "bulk_keys.hpp"
#include "bulk_loader.hpp"
#include "call.hpp"
#include "call_map.hpp"
#include "config.hpp"
#include "context.hpp"
#include "lead.hpp"
#include "loader.hpp"
#include "mutex.hpp"
#include "stop.hpp"
#include "wait_graph.hpp"

namespace singleflight::inline SINGLEFLIGHT_ABI::detail {

/// A batch that a caller of `do_many` leads on its own thread. `Ends`: what is told of their ends.
template <class Key, class Value, class Ends>
class led_batch final : public batch_context<Key, Value> {
  using base = batch_context<Key, Value>;

 public:
  using key_type = bulk_key<Key, Value>;
  using shard = call_map<Key, Value>;
  using answers = std::vector<outcome<Value>>;

  /// Throws: `std::bad_alloc`.
  led_batch(bulk_keys<Key, Value>& all, answers& to, std::size_t most, const Ends& ends)
      : all_(all),
        answers_(to),
        in_order_(std::make_unique_for_overwrite<key_type*[]>(most)),
        ends_(ends) {}

  [[nodiscard]] std::size_t size() const noexcept { return by_shard_.size(); }
  void clear() noexcept {
    for (key_type* k = by_shard_.take(); k != nullptr; k = k->next) k->leave(this);
  }

  /// Adds a key whose call this caller is about to begin; one shard after the other.
  void add(key_type& k) noexcept {
    k.in.store(this, std::memory_order_relaxed);
    by_shard_.push_back(k);
  }

  /// Runs the loader, if there is a key for it, and ends all calls. What the loader throws is the
  /// answer for the keys that it has not settled.
  template <class Find, class Fn>
  void lead(const call_options& options, const Find& find, Fn& fn) {
    if (size() == 0) return;
    const typename base::leadership whole(*this);
    sort();
    find_ = {&find,
             [](const void* how, const Key& key) { return (*static_cast<const Find*>(how))(key); }};
    const on_stop<withdrawal_of_all> withdraw(options, {by_shard_.first(), ends_});
    try {
      const leading here;
      batch<Key, Value> shown = batch_maker::make(static_cast<open_batch<Key, Value>&>(*this));
      detail::invoke_bulk_loader(fn, shown, static_cast<const call_context&>(*this));
    } catch (...) {
      fail_rest(current_failure());
      if (std::current_exception() == nullptr) throw;  // forced unwinding must go on
      return;
    }
    if (any_is_open()) fail_rest(make_call_error(reason::no_value));
  }

  /// Fails what is open: the thread that leads it is being ended.
  void give_up() {
    if (any_is_open()) fail_rest(make_call_error(reason::leader_exited));
  }

 private:
  struct withdrawal_of_all {
    key_type* first;
    SINGLEFLIGHT_DETAIL_NO_UNIQUE_ADDRESS Ends ends;
    void operator()() const noexcept {
      for (key_type* k = first; k != nullptr; k = k->next) {
        const auto tell = ends.on_withdrawal(*k);
        withdrawal<Key, Value, std::remove_const_t<decltype(tell)>>{k->home, k->own, tell}();
      }
    }
  };

  /// When those who wait for an ended call have been told.
  struct told {
    const Ends& ends;
    const key_type& k;
    ending how = ending::exception;
    ~told() { ends.tell_ended(k, how); }
  };

  void sort() noexcept {
    key_type** end = in_order_.get();
    if (size() == all_.in_order().size()) {
      for (key_type& k : all_.in_order()) *end++ = &k;
    } else {
      for (key_type* k = by_shard_.first(); k != nullptr; k = k->next) *end++ = k;
      std::sort(in_order_.get(), end,
                [](const key_type* a, const key_type* b) { return a->first < b->first; });
    }
  }

  // --- What the loader does with it --------------------------------------------------------------

  [[nodiscard]] std::span<key_type* const> keys() const noexcept override {
    return {in_order_.get(), size()};
  }

  [[nodiscard]] key_type* find(const Key& key) const override {
    key_type* const found = find_.by(find_.how, key);
    return found != nullptr && found->in.load(std::memory_order_relaxed) == this ? found : nullptr;
  }

  void end_with(key_type& k, loaded<Value>& value) override {
    if (!end(k, false)) return;
    give(k, value);
    this->was_settled();
  }

  void fail(key_type& k, std::exception_ptr why) override {
    if (!end(k, true)) return;
    give_failure(k, why);
    this->was_settled();
  }

  void end_rest_with(const loaded<Value>& value, copy_function<Value> copy) override {
    end_rest(false, [&](key_type& k) {
      std::optional<loaded<Value>> own;
      try {
        copy(own, value);
      } catch (...) {
        detail::count_failure(k.home);
        give_failure(k, current_failure());
        if (std::current_exception() == nullptr) throw;
        return;
      }
      give(k, *own);
    });
  }

  [[nodiscard]] key_state state_of(const key_type& k) const noexcept override {
    const lock guard(k.home.mutex);
    return base::state_in(k.home, k.own.ended ? nullptr : &k.own);
  }

#if defined(__cpp_lib_jthread)
  [[nodiscard]] std::stop_token token_of(key_type& k) const override {
    const context_of<Key, Value> of_one(k.home, k.own);
    return of_one.stop_token();
  }
#endif

  // --- Ending the calls --------------------------------------------------------------------------

  /// Returns: whether this has ended the call, rather than another before.
  [[nodiscard]] static bool end(key_type& k, bool failed) noexcept {
    shard& home = k.home;
    const lock guard(home.mutex);
    if (k.own.ended) return false;
    end_in(home, k, failed);
    return true;
  }

  static void end_in(shard& home, key_type& k, bool failed) noexcept
      SINGLEFLIGHT_REQUIRES(home.mutex) {
    if (failed) home.count(&group_stats::failed);
    home.end_and_leave_key(k.own);
  }

  /// Ends all that are open, under one lock for each shard, and gives each its answer after that.
  template <class Give>
  void end_rest(bool failed, const Give& give) {
    for (key_type* k = by_shard_.first(); k != nullptr;) {
      shard& home = k->home;
      key_type* ended = nullptr;
      key_type** last = &ended;
      {
        const lock guard(home.mutex);
        for (; k != nullptr && &k->home == &home; k = k->next) {
          if (k->own.ended) continue;
          end_in(home, *k, failed);
          *last = k;
          last = &k->next_ended;
        }
      }
      *last = nullptr;
      for (; ended != nullptr; ended = ended->next_ended) give(*ended);
    }
  }

  void fail_rest(const std::exception_ptr& why) {
    const leading here;  // those who are resumed inline run user code while keys are still open
    end_rest(true, [&](key_type& k) { give_failure(k, why); });
  }

  /// For the loader's thread, when the loader is over: all that has ended a call came before.
  [[nodiscard]] bool any_is_open() const noexcept {
    const key_type* k = by_shard_.first();
    while (k != nullptr && k->own.ended) k = k->next;
    return k != nullptr;
  }

  /// Hands the value of an ended call to those who wait for it, and to this caller.
  void give(key_type& k, loaded<Value>& value) {
    if (k.own.handed_out()) return share(k, value);
    told at_exit{ends_, k};
    try {
      outcome_maker::renew_unshared(answers_[k.first], value);
      at_exit.how = ending::value;
    } catch (...) {  // the move threw
      detail::count_failure(k.home);
      outcome_maker::renew(answers_[k.first], current_failure());
      if (std::current_exception() == nullptr) throw;
    }
  }

  SINGLEFLIGHT_DETAIL_NOINLINE void share(key_type& k, loaded<Value>& value) {
    told at_exit{ends_, k};
    try {
      detail::publish(k.home, k.own, value);
      outcome_maker::renew(
          answers_[k.first],
          result_maker::of<Value>(std::shared_future<Value>(k.own.shared->channel->future),
                                  k.own.joined(), true));
      at_exit.how = ending::value;
    } catch (...) {  // the move threw, which has been counted
      outcome_maker::renew(answers_[k.first], current_failure());
      if (std::current_exception() == nullptr) throw;
    }
  }

  SINGLEFLIGHT_DETAIL_NOINLINE void give_failure(key_type& k, const std::exception_ptr& why) {
    const told at_exit{ends_, k};
    detail::publish_failure(k.own, why);
    outcome_maker::renew(answers_[k.first], why);
  }

  struct finder {
    const void* how;
    key_type* (*by)(const void* how, const Key& key);
  };

  bulk_keys<Key, Value>& all_;
  answers& answers_;
  key_list<Key, Value> by_shard_;
  const std::unique_ptr<key_type*[]> in_order_;  // of their first mention; made by `sort`
  finder find_{};
  SINGLEFLIGHT_DETAIL_NO_UNIQUE_ADDRESS const Ends ends_;
};

}  // namespace singleflight::inline SINGLEFLIGHT_ABI::detail

#endif  // SINGLEFLIGHT_DETAIL_LED_BATCH_HPP
