// SPDX-License-Identifier: MIT
#ifndef SINGLEFLIGHT_COROUTINE_HPP
#define SINGLEFLIGHT_COROUTINE_HPP

#include <atomic>
#include <concepts>
#include <coroutine>
#include <exception>
#include <memory>
#include <type_traits>
#include <utility>
#include <variant>

#include "async_options.hpp"
#include "call_context.hpp"
#include "call_error.hpp"
#include "detail/async_wait.hpp"
#include "detail/awaitable.hpp"
#include "detail/callback_wait.hpp"
#include "detail/co_bulk.hpp"
#include "detail/config.hpp"
#include "detail/loader.hpp"
#include "detail/owned_call.hpp"
#include "detail/owned_calls.hpp"
#include "detail/stop.hpp"
#include "detail/waiter_list.hpp"
#include "group.hpp"
#include "leader.hpp"
#include "result.hpp"

// Makes `group::co_call`, `group::co_call_many` and `group::drained` usable:
//
//     task<template_details> get(std::string id) {
//       if (auto hit = cache.find(id)) co_return *hit;
//       co_return co_await flights.co_call(id, pool_executor, [](const auto& key) -> task<row> {
//         co_return co_await db.load_template(key);
//       });
//     }
//
// The loader is callable with what the loader of a `do_call` is callable with, and returns what
// converts to `Value`, or anything that can be awaited and gives that. It is called on the thread
// of the coroutine that begins the call, inside its co_await. Its key is the call's own, and lives,
// as the loader itself, until the call has ended. The call belongs to none of its callers: it goes
// on when the coroutine that began it is destroyed, and is told to stop when no caller is left.
//
// A coroutine that waits is resumed once, by `on`, with the result or with a `call_error` for its
// stop request:
//
//   * an executor, as in `do_call_on`, is given a task that resumes it, never inside the co_await.
//     If the executor throws, the coroutine is resumed where the executor was called. If it drops
//     the task, the coroutine stays suspended, and its owner is to destroy it;
//   * `resume_inline`: on the thread that ends the call or requests the stop, after those that wait
//     in threads or have an executor; or it is not suspended at all, if the call ends while it is
//     begun. Many callers, and many calls that end each other, take a bounded stack.
//
// Options with a stop token are to be named: g++ 12 destroys a temporary that is made by braces
// inside a co_await expression twice.
//
// A coroutine may be destroyed while it is suspended in here. It is then one caller less, as if it
// had left. Where it has an executor, it may be destroyed even after the task was posted, on the
// same executor as it is resumed on, so that both do not happen at once. One that is resumed inline
// must not be destroyed while another thread may be ending its call. It must not be destroyed by
// the loader of the call that it begins before that loader has been suspended or has returned.
namespace singleflight::inline SINGLEFLIGHT_ABI {

namespace detail {

// --- Starting the loader -------------------------------------------------------------------------

template <class Fn, class Key>
using returned = decltype(detail::invoke_loader_in(std::declval<Fn>(), std::declval<const Key&>(),
                                                   std::declval<const call_context&>()));

#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wsubobject-linkage"  // of a lambda in a header, as a loader
#endif

/// Awaits what the loader returns and ends the call with it.
template <class Key, class Value, class Load>
driver drive(leader<Value> lead, const Key& key, Load load) {
  std::exception_ptr failed;
  try {
    // In one expression: g++ 12 moves an awaiter that it has by &&, which need not be movable.
    if constexpr (std::is_void_v<Value>) {
      co_await detail::invoke_loader_in(std::move(load), key, lead.context());
      std::move(lead).set_value();
    } else {
      loaded<Value> value = co_await detail::invoke_loader_in(std::move(load), key, lead.context());
      std::move(lead).set_value(std::move(value));
    }
  } catch (...) {
    failed = current_failure();
  }
  if (failed != nullptr) std::move(lead).set_exception(std::move(failed));
}

#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC diagnostic pop
#endif

/// Calls the loader of a call that `wait` has begun.
template <class Key, class Value, class Load>
void start_loader(async_wait<Key, Value>& wait, Load&& load) {
  owned_call<Key, Value>& begun = wait.begun_here();
  using loaded_type = returned<Load, Key>;
  if constexpr (std::is_convertible_v<loaded_type, Value> || std::is_void_v<loaded_type>) {
    detail::start(begun, [&] {
      if constexpr (std::is_void_v<Value>) {
        detail::invoke_loader_in(std::forward<Load>(load), begun.get().key, begun.context());
        begun.end_with({});
      } else {
        loaded<Value> value =
            detail::invoke_loader_in(std::forward<Load>(load), begun.get().key, begun.context());
        begun.end_with(std::move(value));
      }
    });
  } else {
    detail::start(begun, [&] {
      detail::drive<Key, Value>(leader_maker::make<Value>(wait.begun()), begun.get().key,
                                std::forward<Load>(load));
    });
  }
}

// --- Waiting -------------------------------------------------------------------------------------

/// What an executor is given to resume a coroutine. It outlives the coroutine if that is destroyed.
template <class Wait, class On>
struct resumption final : poster {
  resumption(Wait& w, const On& o) : waiting(&w), on(o) {}

  std::atomic<Wait*> waiting;  // null: it was resumed or destroyed
  On on;

  /// Copyable. The first to be run resumes the coroutine.
  struct task {
    std::shared_ptr<resumption> target;
    void operator()() const {
      if (Wait* const w = target->waiting.exchange(nullptr)) w->resume();
    }
  };

  void post(std::shared_ptr<poster> self) noexcept override {
    const task resume{std::static_pointer_cast<resumption>(std::move(self))};
    try {
      on(task(resume));
    } catch (...) {
      resume();
    }
  }
};

template <class Group, class On, class Load, class Options>
class co_call_awaiter final
    : public async_wait<typename Group::key_type, typename Group::value_type> {
  using key_type = typename Group::key_type;
  using value_type = typename Group::value_type;
  using base = async_wait<key_type, value_type>;
  using resumption_type = resumption<co_call_awaiter, On>;
  static constexpr bool inlined = std::same_as<On, resume_inline_t>;
  static constexpr bool has_options = std::same_as<Options, async_options>;

 public:
  template <class O, class L>
  co_call_awaiter(Group& group, key_type&& key, O&& on, const Options& options, L&& load)
      : base(type_of_coroutines, address_of(options_)),
        options_(options),
        group_(group),
        key_(std::move(key)),
        on_(std::forward<O>(on)),
        load_(std::forward<L>(load)) {}
  ~co_call_awaiter() {
    this->abandon();
    if constexpr (!inlined) {
      if (resumption_ != nullptr) resumption_->waiting.store(nullptr);
    }
  }

  [[nodiscard]] static constexpr bool await_ready() noexcept { return false; }

  /// Throws: what entering throws.
  [[nodiscard]] bool await_suspend(std::coroutine_handle<> caller) {
    caller_ = caller;
    const entered now = enter();
    if (now == entered::waits) return true;
    if constexpr (inlined) {
      return try_again();
    } else {
      resumption_->post(resumption_);
      return true;
    }
  }

  /// Throws: what `do_call` throws.
  result<value_type> await_resume() {
    if constexpr (has_options) {
      if (options_.failure != nullptr) std::rethrow_exception(std::move(options_.failure));
    }
    return this->take();
  }

  /// Called where the coroutine is to be resumed.
  void resume() noexcept {
    if (try_again()) return;
    caller_.resume();
  }

 private:
  static void wake(waiter_node& n) noexcept { static_cast<co_call_awaiter&>(n).resume(); }
  /// The frame stays the owner, too: see the destructor.
  static std::shared_ptr<poster> poster_of(waiter_node& n) noexcept {
    if constexpr (inlined) {
      return nullptr;
    } else {
      return static_cast<co_call_awaiter&>(n).resumption_;
    }
  }
  static constexpr waiter_node::type type_of_coroutines{
      inlined ? base::resumed::inlined : base::resumed::bound, &wake, &poster_of};

  [[nodiscard]] static typename base::chosen* address_of(typename base::chosen& own) noexcept {
    return &own;
  }
  [[nodiscard]] static typename base::chosen* address_of(no_options&) noexcept { return nullptr; }

  /// Returns: whether it waits again.
  [[nodiscard]] bool try_again() noexcept {
    while (this->settle()) {
      try {
        if (enter() == entered::waits) return true;
      } catch (...) {
        if constexpr (has_options) options_.failure = current_failure();
        return false;
      }
    }
    return false;
  }

  /// Out of line, so that no compiler keeps what others see of this in registers
  /// (https://github.com/llvm/llvm-project/issues/56301).
  SINGLEFLIGHT_DETAIL_NOINLINE entered enter() {
    if constexpr (!inlined) {
      resumption_ = std::make_shared<resumption_type>(*this, on_);
    }
    this->heed_stops();
    const entered now = async_access::enter(group_, *this, std::as_const(key_));
    if (now != entered::begun) return now;
    detail::start_loader<key_type, value_type>(*this, std::move(load_));
    return this->finish_start();
  }

  SINGLEFLIGHT_DETAIL_NO_UNIQUE_ADDRESS
  std::conditional_t<has_options, typename base::chosen, no_options> options_;
  Group& group_;
  const key_type key_;
  SINGLEFLIGHT_DETAIL_NO_UNIQUE_ADDRESS On on_;
  SINGLEFLIGHT_DETAIL_NO_UNIQUE_ADDRESS Load load_;
  SINGLEFLIGHT_DETAIL_NO_UNIQUE_ADDRESS
  std::conditional_t<inlined, std::monostate, std::shared_ptr<resumption_type>> resumption_;
  std::coroutine_handle<> caller_;
};

/// What `co_call` returns. Movable, unlike its awaiter, since coroutines that re-route what they
/// await move it. Awaited once.
template <class Group, class On, class Load, class Options>
class [[nodiscard]] co_call_awaitable {
  using key_type = typename Group::key_type;

 public:
  template <class O, class L>
  co_call_awaitable(Group& group, key_type&& key, O&& on, const Options& options, L&& load)
      : group_(&group),
        key_(std::move(key)),
        on_(std::forward<O>(on)),
        options_(options),
        load_(std::forward<L>(load)) {}

  [[nodiscard]] co_call_awaiter<Group, On, Load, Options> operator co_await() && {
    return {*group_, std::move(key_), std::move(on_), options_, std::move(load_)};
  }

 private:
  Group* group_;
  key_type key_;
  SINGLEFLIGHT_DETAIL_NO_UNIQUE_ADDRESS On on_;
  SINGLEFLIGHT_DETAIL_NO_UNIQUE_ADDRESS Options options_;
  SINGLEFLIGHT_DETAIL_NO_UNIQUE_ADDRESS Load load_;
};

/// Waits until no asynchronous call is in flight.
class [[nodiscard]] drained_awaiter final : public waiter_node {
 public:
  explicit drained_awaiter(owned_calls& calls) noexcept
      : waiter_node(type_of_drained), calls_(calls) {}
  drained_awaiter(const drained_awaiter&) = delete;
  drained_awaiter& operator=(const drained_awaiter&) = delete;
  ~drained_awaiter() {
    if (list_ != nullptr) list_->lock_and_remove(*this);
  }

  [[nodiscard]] static constexpr bool await_ready() noexcept { return false; }
  [[nodiscard]] SINGLEFLIGHT_DETAIL_NOINLINE bool await_suspend(std::coroutine_handle<> caller) {
    caller_ = caller;
    list_ = calls_.until_drained();
    if (list_ == nullptr) return false;
    const std::shared_ptr<waiter_list> list = list_;
    const lock guard(list->mutex);
    if (list->published()) return false;
    list->add(*this);
    return true;
  }
  static constexpr void await_resume() noexcept {}

 private:
  static void resume(waiter_node& n) noexcept { static_cast<drained_awaiter&>(n).caller_.resume(); }
  static constexpr type type_of_drained{resumed::inlined, &resume, nullptr};

  owned_calls& calls_;
  std::shared_ptr<waiter_list> list_;
  std::coroutine_handle<> caller_;
};

/// What `group` makes its awaitables with. Where this is incomplete, <singleflight/coroutine.hpp>
/// is not included.
template <class Group>
struct include_singleflight_coroutine_hpp {
  template <class On, class Load, class O, class Options, class L>
  [[nodiscard]] static auto call(Group& group, typename Group::key_type&& key, O&& on,
                                 const Options& options, L&& load) {
    using key_type = typename Group::key_type;
    using value_type = typename Group::value_type;
    using loader = std::decay_t<Load>;
    static_assert(is_loader<loader, key_type>,
                  "singleflight: the loader must be callable with nothing, the key, a "
                  "std::stop_token, a const call_context&, or the key and one of the last two");
    if constexpr (is_loader<loader, key_type>)
      check_returned<returned<loader, key_type>, value_type>();
    return co_call_awaitable<Group, std::decay_t<On>, loader, Options>(
        group, std::move(key), std::forward<O>(on), options, std::forward<L>(load));
  }

  [[nodiscard]] static drained_awaiter drained(owned_calls& calls) noexcept {
    return drained_awaiter(calls);
  }

 private:
  template <class Returned, class Value>
  static constexpr void check_returned() {
    if constexpr (!std::is_convertible_v<Returned, Value>) {
      static_assert(
          awaitable<Returned>,
          "singleflight: what the loader returns must convert to the group's Value or be "
          "something that a coroutine can await; for an asio::awaitable use async_call of "
          "<singleflight/asio.hpp> or <singleflight/boost_asio.hpp>");
      if constexpr (awaitable<Returned>) {
        static_assert(std::is_convertible_v<awaited<Returned>, Value>,
                      "singleflight: what awaiting the loader's result gives must convert to the "
                      "group's Value, and be nothing where that is void");
      }
    }
  }
};

}  // namespace detail
}  // namespace singleflight::inline SINGLEFLIGHT_ABI

#endif  // SINGLEFLIGHT_COROUTINE_HPP
