// SPDX-License-Identifier: MIT
#ifndef SINGLEFLIGHT_DETAIL_ASYNC_BATCH_HPP
#define SINGLEFLIGHT_DETAIL_ASYNC_BATCH_HPP

#include <algorithm>
#include <cstddef>
#include <exception>
#include <memory>
#include <optional>
#include <span>
#include <utility>
#include <vector>

#include "../batch.hpp"
#include "../call_error.hpp"
#include "../leader.hpp"
#include "../stats.hpp"
#include "batch_context.hpp"
#include "bulk_keys.hpp"
#include "call.hpp"
#include "call_map.hpp"
#include "config.hpp"
#include "fixed_block.hpp"
#include "loader.hpp"
#include "mutex.hpp"
#include "owned_call.hpp"
#include "stop.hpp"
#include "traits.hpp"
#include "wait_graph.hpp"

#if defined(__cpp_lib_jthread)
#include <stop_token>
#endif

namespace singleflight::inline SINGLEFLIGHT_ABI::detail {

/// The hash and the equality of a group, for what may outlive it.
template <class Hash, class KeyEqual>
struct key_functions {
  SINGLEFLIGHT_DETAIL_NO_UNIQUE_ADDRESS Hash hash;
  SINGLEFLIGHT_DETAIL_NO_UNIQUE_ADDRESS KeyEqual equal;
};

/// A batch whose loader may go on anywhere. Its calls are asynchronous, and may outlive the group
/// as it may. Owned by its loader.
template <class Key, class Value, class KeyFunctions>
class async_batch final : public batch_context<Key, Value> {
  using base = batch_context<Key, Value>;
  using owned = owned_call<Key, Value>;

 public:
  using key_type = bulk_key<Key, Value>;

  /// Throws: `std::bad_alloc`.
  async_batch(std::shared_ptr<bulk_keys<Key, Value>> all, const KeyFunctions& functions,
              std::size_t most)
      : all_(std::move(all)), functions_(functions) {
    keys_.reserve(most);
    calls_.reserve(most);
  }
  /// Its loader is gone, perhaps before it was done.
  ~async_batch() {
    end(nullptr, reason::leader_gone);
    for (key_type* const k : keys_) k->leave(this);
  }

  [[nodiscard]] std::size_t size() const noexcept { return keys_.size(); }

  /// Adds a key, in the order of their first mention.
  void add(key_type& k, leader<Value>&& of_key) noexcept {
    auto call = std::static_pointer_cast<owned>(leader_maker::take(std::move(of_key)));
    {
      const lock guard(k.home.mutex);
      k.is_loaded_by(call->get());
    }
    k.in.store(this, std::memory_order_relaxed);
    keys_.push_back(&k);
    calls_.push_back(std::move(call));
  }

  /// Counts it. To be called when its loader begins.
  void begin() noexcept {
    shard& home = keys_.front()->home;
    const lock guard(home.mutex);
    home.count(&group_stats::batches);
  }
  /// Says that this thread runs the loader now, so that it does not wait in there for itself.
  void lead_here() noexcept {
    for (const auto& c : calls_) c->run_here();
  }
  /// The same of the key that was added last, while others are still asked for.
  void lead_last_here() noexcept { calls_.back()->run_here(); }
  /// Says that no thread runs it.
  void hand_over() noexcept {
    for (const key_type* const k : keys_) {
      const lock guard(k->home.mutex);
      if (call<Key, Value>* const running = k->running()) k->home.set_leader(*running, {});
    }
  }

  [[nodiscard]] batch<Key, Value> shown() noexcept {
    return batch_maker::make(static_cast<open_batch<Key, Value>&>(*this));
  }

  /// The loader is done. `failed`: what it has thrown, or null.
  void finish(std::exception_ptr failed) noexcept { end(std::move(failed), reason::no_value); }

 private:
  using shard = call_map<Key, Value>;

  /// Fails the calls that are open: with what was thrown, if anything was, or for that reason.
  void end(std::exception_ptr thrown, reason why) noexcept {
    const bool is_open =
        std::any_of(calls_.begin(), calls_.end(), [](const auto& c) { return !c->ended(); });
    if (is_open) {
      if (thrown == nullptr) thrown = make_call_error(why);
      lead_here();  // those who are resumed inline run user code before all has ended
      const leading here;
      for (const auto& c : calls_) c->fail(thrown);
    }
    inside_it_.reset();
    this->end_leadership();
  }

  [[nodiscard]] owned& call_of(const key_type& k) const noexcept {
    const auto at =
        std::lower_bound(keys_.begin(), keys_.end(), k.first,
                         [](const key_type* one, std::size_t first) { return one->first < first; });
    return *calls_[static_cast<std::size_t>(at - keys_.begin())];
  }

  // --- What the loader does with it --------------------------------------------------------------

  [[nodiscard]] std::span<key_type* const> keys() const noexcept override { return keys_; }

  [[nodiscard]] key_type* find(const Key& key) const override {
    key_type* const found = all_->find_by_plain_hash(functions_.hash(key), key, functions_.equal);
    return found != nullptr && found->in.load(std::memory_order_relaxed) == this ? found : nullptr;
  }

  void end_with(key_type& k, loaded<Value>& value) override {
    call_of(k).end_with(std::move(value));
    this->was_settled();
  }

  void fail(key_type& k, std::exception_ptr why) override {
    call_of(k).fail(std::move(why));
    this->was_settled();
  }

  void end_rest_with(const loaded<Value>& value, copy_function<Value> copy) override {
    for (const auto& c : calls_) {
      if (c->ended()) continue;
      try {
        std::optional<loaded<Value>> own;
        copy(own, value);
        c->end_with(std::move(*own));
      } catch (...) {  // the copy threw
        c->fail(current_failure());
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
    stop_source source;  // before the lock: it allocates
    const lock guard(k.home.mutex);
    call<Key, Value>* const running = k.running();
    return running != nullptr ? k.home.stop_of(*running, source).get_token() : std::stop_token();
  }
#endif

  /// Each of its calls waits for one node, which no thread leads, and that for what is asked for
  /// inside the loader.
  void show_in_graph(wait_node& batch) const override {
    inside_it_.emplace(keys_.size());
    for (key_type* const k : keys_) {
      const lock guard(k->home.mutex);
      if (call<Key, Value>* const running = k->running()) {
        inside_it_->emplace_back().connect_to_new(
            k->home.make_handle(*running, {.an_edge = true})->node, batch);
      }
    }
  }

  const std::shared_ptr<bulk_keys<Key, Value>> all_;
  const KeyFunctions functions_;
  std::vector<key_type*> keys_;                              // in the order of their first mention
  std::vector<std::shared_ptr<owned>> calls_;                // of the keys, in this order
  mutable std::optional<fixed_block<wait_edge>> inside_it_;  // empty until it is shown
};

}  // namespace singleflight::inline SINGLEFLIGHT_ABI::detail

#endif  // SINGLEFLIGHT_DETAIL_ASYNC_BATCH_HPP
