// SPDX-License-Identifier: MIT
#ifndef SINGLEFLIGHT_DETAIL_ASIO_LOAD_HPP
#define SINGLEFLIGHT_DETAIL_ASIO_LOAD_HPP

#include <exception>
#include <memory>
#include <type_traits>
#include <utility>

#include "../call_context.hpp"
#include "../call_error.hpp"
#include "../coroutine.hpp"
#include "../leader.hpp"
#include "config.hpp"
#include "loader.hpp"
#include "owned_call.hpp"
#include "wait_graph.hpp"

#if defined(__cpp_lib_jthread)
#include <stop_token>
#endif

// How the loader of a call that an Asio operation has begun is run, on its I/O executor.
namespace singleflight::inline SINGLEFLIGHT_ABI::detail {

enum class asio_load { none, value, awaitable, leader };

/// What the loader is, by what it takes and returns.
template <class Asio, class Key, class Value, class Load>
[[nodiscard]] consteval asio_load find_asio_load() {
  if constexpr (is_loader<Load, Key>) {
    using result = returned<Load, Key>;
    if constexpr (Asio::template is_awaitable<result>) {
      return asio_load::awaitable;
    } else if constexpr (std::is_convertible_v<result, Value>) {
      return asio_load::value;
    } else {
      return asio_load::none;
    }
  } else if constexpr (std::is_invocable_v<Load, leader<Value>>) {
    return asio_load::leader;
  } else {
    return asio_load::none;
  }
}

/// Whether the call has no caller any more, so that its loader need not begin.
template <class Value>
[[nodiscard]] bool is_unwanted([[maybe_unused]] const leader<Value>& lead) {
#if defined(__cpp_lib_jthread)
  return lead.stop_token().stop_requested();
#else
  return false;
#endif
}

/// Cancels the coroutine of a loader when no caller is left, on the coroutine's executor.
template <class Asio, class Executor>
class load_canceller {
 public:
  load_canceller(const Executor& executor,
                 std::shared_ptr<typename Asio::cancellation_signal> signal) noexcept
      : executor_(executor), signal_(std::move(signal)) {}

  void operator()() const noexcept {
    try {
      Asio::post(executor_,
                 [signal = signal_] { signal->emit(Asio::cancellation_type::terminal); });
    } catch (...) {  // then it goes on until it ends
    }
  }

 private:
  Executor executor_;
  std::shared_ptr<typename Asio::cancellation_signal> signal_;
};

#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wsubobject-linkage"  // of a lambda in a header, as a loader
#endif

/// Awaits what the loader returns and ends the call with it. `Cancel` is called when no caller is
/// left.
template <class Awaitable, class Key, class Value, class Load, class Cancel>
Awaitable drive_asio(leader<Value> lead, std::shared_ptr<owned_call<Key, Value>> call, Load load,
                     [[maybe_unused]] Cancel cancel) {
  std::exception_ptr failed;
  try {
#if defined(__cpp_lib_jthread)
    const std::stop_callback<Cancel> when_left(lead.stop_token(), std::move(cancel));
#endif
    if (detail::is_unwanted(lead)) throw_call_error(reason::nobody_waits);
    if constexpr (std::is_void_v<Value>) {
      co_await detail::invoke_loader_in(std::move(load), call->get().key, lead.context());
      std::move(lead).set_value();
    } else {
      loaded<Value> value =
          co_await detail::invoke_loader_in(std::move(load), call->get().key, lead.context());
      std::move(lead).set_value(std::move(value));
    }
  } catch (...) {
    failed = current_failure();
  }
  // NOLINTNEXTLINE(bugprone-use-after-move): it was not, where something was thrown
  if (failed != nullptr) std::move(lead).set_exception(std::move(failed));
}

#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC diagnostic pop
#endif

/// Spawns what `make` makes, the coroutine of a loader whose awaitable has the executor `Inner`. It
/// is given what cancels that coroutine.
template <class Asio, class Inner, class Executor, class Make>
void spawn_load(const Executor& executor, const Make& make) {
  const auto signal = std::make_shared<typename Asio::cancellation_signal>();
  const auto spawn = [&](const auto& on) {
    using canceller = load_canceller<Asio, std::decay_t<decltype(on)>>;
    Asio::co_spawn(on, make(canceller(on, signal)), signal);
  };
  // To cancel a coroutine while it runs on another thread is a data race.
  if constexpr (std::is_convertible_v<typename Asio::template strand<Executor>, Inner>) {
    spawn(Asio::make_strand(executor));
  } else {
    spawn(executor);
  }
}

/// Runs the loader on the executor, or here if that is where this thread runs.
/// Throws: what giving it to the executor throws.
template <class Asio, class Executor, class Key, class Value, class Load>
void run_on(const Executor& executor, const std::shared_ptr<owned_call<Key, Value>>& call,
            leader<Value> lead, Load&& load) {
  constexpr asio_load kind = find_asio_load<Asio, Key, Value, Load>();
  if constexpr (kind == asio_load::awaitable) {
    using inner = typename returned<Load, Key>::executor_type;
    using awaitable = typename Asio::template awaitable<void, inner>;
    detail::spawn_load<Asio, inner>(executor, [&](auto cancel) {
      return detail::drive_asio<awaitable, Key, Value, Load>(
          std::move(lead), call, std::forward<Load>(load), std::move(cancel));
    });
  } else {
    Asio::dispatch(
        executor, [call, lead = std::move(lead), load = std::forward<Load>(load)]() mutable {
          if constexpr (kind == asio_load::leader) {
            try {
              std::move(load)(std::move(lead));
            } catch (...) {
              call->fail(current_failure());
            }
          } else {
            const leading here;
            if (!call->lead_here()) return;  // nobody waits: the call is given up
            std::move(lead).set_from([&]() -> Value {
              return detail::invoke_loader_in(std::move(load), call->get().key, lead.context());
            });
          }
        });
  }
}

}  // namespace singleflight::inline SINGLEFLIGHT_ABI::detail

#endif  // SINGLEFLIGHT_DETAIL_ASIO_LOAD_HPP
