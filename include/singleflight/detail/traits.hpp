// SPDX-License-Identifier: MIT
#ifndef SINGLEFLIGHT_DETAIL_TRAITS_HPP
#define SINGLEFLIGHT_DETAIL_TRAITS_HPP

#include <concepts>
#include <future>
#include <optional>
#include <type_traits>
#include <utility>

#include "config.hpp"

namespace singleflight::inline SINGLEFLIGHT_ABI::detail {

/// For a `static_assert` in a function that must not be used.
template <class>
inline constexpr bool always_false = false;

template <class T>
inline constexpr bool is_complete = requires {
  sizeof(T);
};

template <class T>
inline constexpr bool is_optional = false;
template <class T>
inline constexpr bool is_optional<std::optional<T>> = true;

template <class T>
inline constexpr bool is_future = false;
template <class T>
inline constexpr bool is_future<std::future<T>> = true;
template <class T>
inline constexpr bool is_future<std::promise<T>> = true;

/// `std::is_move_constructible_v`, and true of an incomplete type, of which one may not ask.
template <class T>
inline constexpr bool is_move_constructible = true;
template <class T>
requires is_complete<T>
inline constexpr bool is_move_constructible<T> = std::is_move_constructible_v<T>;

/// Whether a value can be copied. A standard container says that it can be whatever its elements
/// are, and fails to compile when it is, so its elements are asked.
template <class T>
inline constexpr bool copyable = std::copy_constructible<T>;

template <class T>
requires std::copy_constructible<T> && requires { typename T::allocator_type; }
inline constexpr bool copyable<T> = copyable<typename T::value_type>;

/// A map's elements are pairs, which copy what their keys and values copy.
template <class First, class Second>
requires std::copy_constructible<std::pair<First, Second>>
inline constexpr bool copyable<std::pair<First, Second>> =
    copyable<std::remove_cv_t<First>> && copyable<std::remove_cv_t<Second>>;

template <class T>
concept uncopyable = !copyable<T>;

}  // namespace singleflight::inline SINGLEFLIGHT_ABI::detail

#endif  // SINGLEFLIGHT_DETAIL_TRAITS_HPP
