// SPDX-License-Identifier: MIT
#ifndef SINGLEFLIGHT_DETAIL_CO_BULK_HPP
#define SINGLEFLIGHT_DETAIL_CO_BULK_HPP

#include <atomic>
#include <concepts>
#include <coroutine>
#include <exception>
#include <memory>
#include <type_traits>
#include <utility>

#include "../async_options.hpp"
#include "../batch.hpp"
#include "../call_context.hpp"
#include "../call_error.hpp"
#include "async_bulk.hpp"
#include "awaitable.hpp"
#include "bulk_loader.hpp"
#include "config.hpp"
#include "wait_graph.hpp"

// `group::co_call_many`.
namespace singleflight::inline SINGLEFLIGHT_ABI::detail {

template <class Load, class Key, class Value>
using returned_by_bulk =
    decltype(detail::call_bulk_loader(std::declval<Load&>(), std::declval<batch<Key, Value>&>(),
                                      std::declval<const call_context&>()));

#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wsubobject-linkage"  // of a lambda in a header, as a loader
#endif

/// Awaits what the loader of a batch returns, and settles it. What `begin(*all)` returns lives
/// until that is done.
template <class Coroutine, class Key, class Value, class Batch, class Load, class Begin>
Coroutine drive_many(std::shared_ptr<Batch> all, Load load, Begin begin) {
  std::exception_ptr failed;
  batch<Key, Value> shown = all->shown();
  try {
    [[maybe_unused]] const auto until_done = begin(*all);
    using found_type = awaited<returned_by_bulk<Load, Key, Value>>;
    if constexpr (std::is_void_v<found_type>) {
      co_await detail::call_bulk_loader(load, shown, static_cast<const call_context&>(*all));
    } else {
      found_type found =
          co_await detail::call_bulk_loader(load, shown, static_cast<const call_context&>(*all));
      detail::settle_found<found_type>(shown, found);
    }
  } catch (...) {
    failed = current_failure();
  }
  all->finish(std::move(failed));
}

#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC diagnostic pop
#endif

/// Starts the loader of a batch on this thread, which leads its calls until it has been started.
template <class Key, class Value>
struct start_bulk_loader {
  template <class Batch, class Load>
  static void start(const std::shared_ptr<Batch>& all, Load&& load) noexcept {
    all->begin();
    all->lead_here();
    {
      const leading here;
      try {
        std::decay_t<Load> own(std::forward<Load>(load));
        if constexpr (awaitable<returned_by_bulk<std::decay_t<Load>, Key, Value>>) {
          detail::drive_many<driver, Key, Value>(all, std::move(own),
                                                 [](const Batch&) { return std::true_type(); });
        } else {
          batch<Key, Value> shown = all->shown();
          detail::invoke_bulk_loader(own, shown, static_cast<const call_context&>(*all));
          all->finish(nullptr);
        }
      } catch (...) {
        all->finish(current_failure());
      }
    }
    all->hand_over();
  }
};

/// Resumes a coroutine, as `on` says.
template <class On>
struct co_bulk_resumption {
  On on;
  std::atomic<void*> caller = nullptr;  // the coroutine, while it waits

  template <class Bulk>
  void operator()(const std::shared_ptr<Bulk>& bulk) noexcept {
    if constexpr (std::same_as<On, resume_inline_t>) {
      resume();
    } else {
      try {
        on([bulk] { bulk->done().resume(); });
      } catch (...) {
        resume();
      }
    }
  }

  void resume() noexcept {
    if (void* const c = caller.exchange(nullptr)) std::coroutine_handle<>::from_address(c).resume();
  }
};

template <class Bulk, bool Inlined>
class co_bulk_awaiter {
 public:
  explicit co_bulk_awaiter(std::shared_ptr<Bulk> bulk) noexcept : bulk_(std::move(bulk)) {}
  co_bulk_awaiter(const co_bulk_awaiter&) = delete;
  co_bulk_awaiter& operator=(const co_bulk_awaiter&) = delete;
  ~co_bulk_awaiter() {
    if (bulk_->done().caller.exchange(nullptr) != nullptr) bulk_->abandon();
  }

  [[nodiscard]] static constexpr bool await_ready() noexcept { return false; }

  /// Throws: `std::bad_alloc`. Out of line: see `co_call_awaiter::enter`.
  [[nodiscard]] SINGLEFLIGHT_DETAIL_NOINLINE bool await_suspend(std::coroutine_handle<> caller) {
    const std::shared_ptr<Bulk> bulk = bulk_;  // this may be gone when it has begun
    bulk->done().caller.store(caller.address());
    if (!bulk->begin()) return true;
    if constexpr (Inlined) {
      bulk->done().caller.store(nullptr);
      return false;
    } else {
      bulk->done()(bulk);
      return true;
    }
  }

  [[nodiscard]] typename Bulk::answers await_resume() const { return bulk_->take_answers(); }

 private:
  const std::shared_ptr<Bulk> bulk_;
};

/// What `co_call_many` returns. Movable, unlike its awaiter. Awaited once.
template <class Bulk, bool Inlined>
class [[nodiscard]] co_bulk_awaitable {
 public:
  explicit co_bulk_awaitable(std::shared_ptr<Bulk> bulk) noexcept : bulk_(std::move(bulk)) {}

  [[nodiscard]] co_bulk_awaiter<Bulk, Inlined> operator co_await() && {
    return co_bulk_awaiter<Bulk, Inlined>(std::move(bulk_));
  }

 private:
  std::shared_ptr<Bulk> bulk_;
};

template <class Group>
struct include_singleflight_coroutine_hpp_for_many {
  template <class Keys, class On, class Load>
  [[nodiscard]] static auto call(Group& group, Keys& keys, On&& on,
                                 const async_bulk_options& options, Load&& load) {
    using key_type = typename Group::key_type;
    using value_type = typename Group::value_type;
    using loader = std::decay_t<Load>;
    using resumption = co_bulk_resumption<std::decay_t<On>>;
    using bulk = async_bulk<Group, loader, start_bulk_loader<key_type, value_type>, resumption>;
    constexpr bool inlined = std::same_as<std::decay_t<On>, resume_inline_t>;
    return co_bulk_awaitable<bulk, inlined>(std::make_shared<bulk>(
        group, keys, options, std::forward<Load>(load), std::forward<On>(on)));
  }
};

}  // namespace singleflight::inline SINGLEFLIGHT_ABI::detail

#endif  // SINGLEFLIGHT_DETAIL_CO_BULK_HPP
