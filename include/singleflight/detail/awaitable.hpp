// SPDX-License-Identifier: MIT
#ifndef SINGLEFLIGHT_DETAIL_AWAITABLE_HPP
#define SINGLEFLIGHT_DETAIL_AWAITABLE_HPP

#include <coroutine>
#include <exception>
#include <type_traits>
#include <utility>

#include "config.hpp"

// What can be awaited, and the coroutine that awaits what a loader returns.
namespace singleflight::inline SINGLEFLIGHT_ABI::detail {

template <class T>
concept member_co_await = requires(T&& t) {
  std::forward<T>(t).operator co_await();
};
template <class T>
concept free_co_await = requires(T&& t) {
  operator co_await(std::forward<T>(t));
};

template <class T>
decltype(auto) awaiter_of(T&& t) {
  if constexpr (member_co_await<T>) {
    return std::forward<T>(t).operator co_await();
  } else if constexpr (free_co_await<T>) {
    return operator co_await(std::forward<T>(t));
  } else {
    return std::forward<T>(t);
  }
}

/// The coroutine that awaits what a loader returns. Frees itself when it is done.
struct driver {
  struct promise_type {
    [[nodiscard]] driver get_return_object() const noexcept { return {}; }
    [[nodiscard]] std::suspend_never initial_suspend() const noexcept { return {}; }
    [[nodiscard]] std::suspend_never final_suspend() const noexcept { return {}; }
    void return_void() const noexcept {}
    [[noreturn]] void unhandled_exception() const noexcept { std::terminate(); }
  };
};

template <class Awaiter>
concept awaiter = requires(Awaiter& a, std::coroutine_handle<driver::promise_type> h) {
  static_cast<bool>(a.await_ready());
  a.await_suspend(h);
  a.await_resume();
};

template <class T>
concept awaitable =
    awaiter<std::remove_reference_t<decltype(detail::awaiter_of(std::declval<T>()))>>;

template <class T>
using awaited = decltype(detail::awaiter_of(std::declval<T>()).await_resume());

}  // namespace singleflight::inline SINGLEFLIGHT_ABI::detail

#endif  // SINGLEFLIGHT_DETAIL_AWAITABLE_HPP
