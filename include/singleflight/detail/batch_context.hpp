// SPDX-License-Identifier: MIT
#ifndef SINGLEFLIGHT_DETAIL_BATCH_CONTEXT_HPP
#define SINGLEFLIGHT_DETAIL_BATCH_CONTEXT_HPP

#include <algorithm>
#include <atomic>
#include <cstddef>
#include <memory>
#include <span>
#include <thread>
#include <utility>

#include "../batch.hpp"
#include "../call_context.hpp"
#include "bulk_keys.hpp"
#include "call.hpp"
#include "call_map.hpp"
#include "config.hpp"
#include "fixed_block.hpp"
#include "mutex.hpp"
#include "stop.hpp"
#include "wait_graph.hpp"

#if defined(__cpp_lib_jthread)
#include <stop_token>
#endif

namespace singleflight::inline SINGLEFLIGHT_ABI::detail {

/// What may become of a key of a batch.
enum class key_state { wanted, unwanted, settled };

#if defined(__cpp_lib_jthread)

/// Tells a bulk loader to stop when it has keys left to load and nobody wants any of them. Made
/// when the loader asks for its token: each call then tells by a token of its own that it is not
/// wanted.
template <class Batch>
class batch_stop {
 public:
  /// Throws: `std::bad_alloc`.
  explicit batch_stop(Batch& batch) : batch_(batch), unwanted_(batch.keys().size()) {
    for (auto* const k : batch.keys()) {
      unwanted_.emplace_back(batch.token_of(*k), look_again{this});
    }
  }

  void look() noexcept {
    if (is_needless()) source_.request_stop();
  }

  [[nodiscard]] std::stop_token token() const noexcept { return source_.get_token(); }

 private:
  struct look_again {
    batch_stop* of;
    void operator()() const noexcept { of->look(); }
  };

  /// Looks at the last keys first, which most loaders settle last.
  [[nodiscard]] bool is_needless() const noexcept {
    bool any_is_open = false;
    const auto keys = batch_.keys();
    for (std::size_t i = keys.size(); i-- > 0;) {
      const key_state state = batch_.state_of(*keys[i]);
      if (state == key_state::wanted) return false;
      any_is_open = any_is_open || state == key_state::unwanted;
    }
    return any_is_open;
  }

  Batch& batch_;
  std::stop_source source_;
  fixed_block<std::stop_callback<look_again>> unwanted_;  // the last member: they use the others
};

#endif

/// What the loader of a batch may ask, whoever leads it.
template <class Key, class Value>
class batch_context : public open_batch<Key, Value>, public call_context {
 public:
  using key_type = bulk_key<Key, Value>;

  [[nodiscard]] virtual key_state state_of(const key_type& k) const noexcept = 0;
#if defined(__cpp_lib_jthread)
  /// Returns: the token that is told when nobody wants the key. Throws: `std::bad_alloc`.
  [[nodiscard]] virtual std::stop_token token_of(key_type& k) const = 0;
#endif

 protected:
  ~batch_context() = default;

  /// `running`: the call of a key of that shard, or null if it has ended.
  [[nodiscard]] static key_state state_in(const call_map<Key, Value>& home,
                                          const call<Key, Value>* running) noexcept
      SINGLEFLIGHT_REQUIRES(home.mutex) {
    if (running == nullptr) return key_state::settled;
    return home.is_wanted(*running) ? key_state::wanted : key_state::unwanted;
  }

  /// From the loader to the end of the last call.
  struct leadership {
    batch_context& of;
    explicit leadership(batch_context& b) noexcept : of(b) {
      of.leader_ = std::this_thread::get_id();
    }
    leadership(const leadership&) = delete;
    leadership& operator=(const leadership&) = delete;
    ~leadership() { of.end_leadership(); }
  };

  /// The loader is done: no other thread asks for the node or the token any more.
  void end_leadership() noexcept SINGLEFLIGHT_NOT_ANALYSED {
    if (node_ != nullptr) the_wait_graph().end(*std::exchange(node_, nullptr));
#if defined(__cpp_lib_jthread)
    shown_stop_.store(nullptr);
    stop_.reset();
#endif
  }

  /// To be called after a call of the batch has ended, unless none is open any more.
  void was_settled() noexcept {
#if defined(__cpp_lib_jthread)
    if (auto* const shown = shown_stop_.load()) shown->look();
#endif
  }

  [[nodiscard]] bool wanted(const key_type& k) const noexcept final {
    return state_of(k) == key_state::wanted;
  }

  [[nodiscard]] bool forgotten(const key_type& k) const noexcept final {
    const lock guard(k.home.mutex);
    return k.home.forgets() != k.own.forgets_before;
  }

 private:
  [[nodiscard]] bool was_forgotten() const noexcept final {
    const std::span<key_type* const> all = this->keys();
    return std::any_of(all.begin(), all.end(), [this](const key_type* k) { return forgotten(*k); });
  }

#if defined(__cpp_lib_jthread)
  [[nodiscard]] std::stop_token get_stop_token() const final {
    const lock guard(making_);
    if (stop_ == nullptr) {
      stop_ = std::make_unique<batch_stop<const batch_context>>(*this);
      shown_stop_.store(stop_.get());
      stop_->look();  // for a key that was settled before it was shown
    }
    return stop_->token();
  }
#endif

  /// One node for all of its calls, since one loader loads them.
  [[nodiscard]] std::shared_ptr<wait_node> get_node() const final {
    const lock guard(making_);
    if (node_ == nullptr) {
      auto node = std::make_shared<wait_node>();
      show_in_graph(*node);
      node_ = std::move(node);
    }
    return node_;
  }

  /// Connects its calls with the node that stands for all of them. Throws: `std::bad_alloc`.
  virtual void show_in_graph(wait_node& batch) const { batch.leader = leader_; }

  std::thread::id leader_;
  mutable mutex making_;
  mutable std::shared_ptr<wait_node> node_ SINGLEFLIGHT_GUARDED_BY(making_);
#if defined(__cpp_lib_jthread)
  mutable std::unique_ptr<batch_stop<const batch_context>> stop_ SINGLEFLIGHT_GUARDED_BY(making_);
  mutable std::atomic<batch_stop<const batch_context>*> shown_stop_ = nullptr;
#endif
};

}  // namespace singleflight::inline SINGLEFLIGHT_ABI::detail

#endif  // SINGLEFLIGHT_DETAIL_BATCH_CONTEXT_HPP
