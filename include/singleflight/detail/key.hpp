// SPDX-License-Identifier: MIT
#ifndef SINGLEFLIGHT_DETAIL_KEY_HPP
#define SINGLEFLIGHT_DETAIL_KEY_HPP

#include <array>
#include <concepts>
#include <cstddef>
#include <limits>
#include <optional>
#include <span>
#include <stdexcept>
#include <string_view>
#include <tuple>
#include <type_traits>
#include <utility>
#include <variant>
#include <vector>

#include "config.hpp"

// What may be a Key, and how the key that a caller gives becomes one.
namespace singleflight::inline SINGLEFLIGHT_ABI::detail {

// --- What may be a Key ---------------------------------------------------------------------------

template <class T>
concept character = std::same_as<T, char> || std::same_as<T, signed char> ||
    std::same_as<T, unsigned char> || std::same_as<T, wchar_t> || std::same_as<T, char8_t> ||
    std::same_as<T, char16_t> || std::same_as<T, char32_t>;

/// Whether a type shows characters or elements that it does not own. A call may outlive them.
template <class T>
inline constexpr bool is_view =
    std::is_pointer_v<T>&& character<std::remove_cv_t<std::remove_pointer_t<T>>>;
template <class Char, class Traits>
inline constexpr bool is_view<std::basic_string_view<Char, Traits>> = true;
template <class T, std::size_t Extent>
inline constexpr bool is_view<std::span<T, Extent>> = true;
template <class T>
inline constexpr bool is_view<std::optional<T>> = is_view<T>;
template <class First, class Second>
inline constexpr bool is_view<std::pair<First, Second>> = is_view<First> || is_view<Second>;
template <class... T>
inline constexpr bool is_view<std::tuple<T...>> = (is_view<T> || ...);
template <class... T>
inline constexpr bool is_view<std::variant<T...>> = (is_view<T> || ...);
template <class T, std::size_t Size>
inline constexpr bool is_view<std::array<T, Size>> = is_view<T>;
template <class T, class Allocator>
inline constexpr bool is_view<std::vector<T, Allocator>> = is_view<T>;

// --- What may be given for a Key -----------------------------------------------------------------

template <class T>
struct number {
  using type = T;
};
template <class T>
requires std::is_enum_v<T>
struct number<T> {
  using type = std::underlying_type_t<T>;
};
/// The type itself, but the underlying type of an enumeration, as which it converts to a number.
template <class T>
using number_of = typename number<std::remove_cvref_t<T>>::type;

/// Whether different values of an arithmetic type stay different in another one.
template <class From, class To>
[[nodiscard]] consteval bool keeps_values_apart() {
  using from = std::numeric_limits<From>;
  using to = std::numeric_limits<To>;
  if constexpr (from::is_integer && to::is_integer) {
    return to::digits + to::is_signed >= from::digits + from::is_signed;
  } else {
    return !to::is_integer && to::digits >= from::digits && to::max_exponent >= from::max_exponent;
  }
}

/// What a `Key` and that of which it is made have in parts, which the standard library converts one
/// by one, in silence. Nothing, unless below.
template <class K, class Key>
struct key_parts {
  static constexpr bool convert_without_loss = true;
  static constexpr void check_range(const K&) noexcept {}
};

/// Whether `K` becomes a `Key` without loss: an arithmetic `Key` holds every value of `K` apart.
/// 64-bit ids in a group with 32-bit keys would give one user another's data.
template <class K, class Key>
[[nodiscard]] consteval bool converts_without_loss() {
  using from = number_of<K>;
  if constexpr (std::same_as<from, Key>) {
    return true;
  } else if constexpr (!std::is_arithmetic_v<Key>) {
    return key_parts<from, Key>::convert_without_loss;
  } else if constexpr (std::is_arithmetic_v<from>) {
    return keeps_values_apart<from, Key>();
  } else {
    return requires(K && key) { Key{std::forward<K>(key)}; };  // braces refuse what narrows
  }
}

template <class Number>
[[nodiscard]] constexpr bool is_negative([[maybe_unused]] Number n) noexcept {
  if constexpr (std::is_signed_v<Number>) {
    return n < Number{};
  } else {
    return false;
  }
}

/// Whether a number is one that an integer `Key` can hold.
template <class Key, class Number>
[[nodiscard]] constexpr bool is_in_range(Number n) noexcept {
  const auto converted = static_cast<Key>(n);
  return static_cast<Number>(converted) == n && is_negative(converted) == is_negative(n);
}

/// Throws: `std::invalid_argument` if a signed `Key` cannot hold the unsigned number, or the other
/// way round.
template <class Key, class K>
constexpr void check_range([[maybe_unused]] const K& key) {
  using from = number_of<K>;
  if constexpr (std::integral<Key> && std::integral<from>) {
    if constexpr (std::is_signed_v<Key> != std::is_signed_v<from>) {
      if (!is_in_range<Key, from>(key)) {
        throw std::invalid_argument(
            "singleflight: this number is beyond the range of the group's Key; use the same type "
            "for both");
      }
    }
  } else {
    key_parts<K, Key>::check_range(key);
  }
}

template <class K, class Key>
inline constexpr bool part_converts_without_loss =
    !std::is_convertible_v<K, Key> || converts_without_loss<K, Key>();

template <class K, class Key>
struct key_parts<K, std::optional<Key>> {
  static constexpr bool convert_without_loss = part_converts_without_loss<K, Key>;
  static constexpr void check_range(const K& key) { detail::check_range<Key>(key); }
};
template <class K, class Key>
struct key_parts<std::optional<K>, std::optional<Key>> {
  static constexpr bool convert_without_loss = part_converts_without_loss<K, Key>;
  static constexpr void check_range(const std::optional<K>& key) {
    if (key) detail::check_range<Key>(*key);
  }
};
template <class K, class Key>
requires(!requires { std::tuple_size<K>::value; }) struct key_parts<K, std::tuple<Key>> {
  static constexpr bool convert_without_loss = part_converts_without_loss<K, Key>;
  static constexpr void check_range(const K& key) { detail::check_range<Key>(key); }
};
template <class... K, class... Key>
requires(sizeof...(K) == sizeof...(Key)) struct key_parts<std::tuple<K...>, std::tuple<Key...>> {
  static constexpr bool convert_without_loss = (part_converts_without_loss<K, Key> && ...);
  static constexpr void check_range(const std::tuple<K...>& key) {
    std::apply([](const auto&... part) { (detail::check_range<Key>(part), ...); }, key);
  }
};
template <class First, class Second, class... Key>
requires(sizeof...(Key) == 2) struct key_parts<std::pair<First, Second>, std::tuple<Key...>>
    : key_parts<std::tuple<First, Second>, std::tuple<Key...>> {
  static constexpr void check_range(const std::pair<First, Second>& key) {
    key_parts<std::tuple<const First&, const Second&>, std::tuple<Key...>>::check_range(key);
  }
};
template <class First, class Second, class... Key>
struct key_parts<std::pair<First, Second>, std::pair<Key...>>
    : key_parts<std::pair<First, Second>, std::tuple<Key...>> {};

/// Returns: the key as a `Key`. Throws: as `check_range`; what the conversion throws.
template <class Key, class K>
[[nodiscard]] Key to_key(K&& key) {
  detail::check_range<Key>(key);
  if constexpr (std::integral<Key> && std::integral<number_of<K>>) {
    return static_cast<Key>(key);
  } else {
    return std::forward<K>(key);  // implicitly, so that compilers warn
  }
}

/// Whether a `K` is looked up as it is, rather than as a `Key` made of it.
template <class K, class Key, class Hash, class KeyEqual>
inline constexpr bool looks_up_directly = std::same_as<std::remove_cvref_t<K>, Key> || requires {
  typename Hash::is_transparent;
  typename KeyEqual::is_transparent;
};

/// Returns: what to look up: the key itself, or a `Key` made of it.
template <class Key, class Hash, class KeyEqual, class K>
[[nodiscard]] decltype(auto) lookup_key(K&& key) {
  constexpr bool directly = looks_up_directly<K, Key, Hash, KeyEqual>;
  constexpr bool convertible = std::is_convertible_v<K, Key>;
  static_assert(directly || convertible,
                "singleflight: the key is not convertible to Key; to look up by another type, give "
                "the group a Hash and a KeyEqual that both have is_transparent");
  static_assert(!directly || std::is_constructible_v<Key, K>,
                "singleflight: this key can be looked up, but the caller that leads must make a "
                "Key of it and cannot");
  static_assert(converts_without_loss<K, Key>(),
                "singleflight: Key is narrower than this key, so that different keys would become "
                "one; make Key as wide as the key, or convert it in sight of the reader");
  if constexpr (directly && std::is_lvalue_reference_v<K>) {
    return std::as_const(key);  // a Key may be made in another way of a Key& than of a const Key&
  } else if constexpr (directly) {
    return std::forward<K>(key);
  } else if constexpr (convertible && converts_without_loss<K, Key>()) {
    return to_key<Key>(std::forward<K>(key));
  } else {
    return std::declval<const Key&>();  // the assertions above have refused it
  }
}

}  // namespace singleflight::inline SINGLEFLIGHT_ABI::detail

#endif  // SINGLEFLIGHT_DETAIL_KEY_HPP
