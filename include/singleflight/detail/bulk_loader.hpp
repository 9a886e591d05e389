// SPDX-License-Identifier: MIT
#ifndef SINGLEFLIGHT_DETAIL_BULK_LOADER_HPP
#define SINGLEFLIGHT_DETAIL_BULK_LOADER_HPP

#include <concepts>
#include <iterator>
#include <type_traits>
#include <utility>

#include "../batch.hpp"
#include "../call_context.hpp"
#include "config.hpp"

// How a bulk loader is invoked, and what it may return.
namespace singleflight::inline SINGLEFLIGHT_ABI::detail {

template <class Fn, class Key, class Value>
inline constexpr bool takes_batch = std::is_invocable_v<Fn&, batch<Key, Value>&>;

template <class Fn, class Key, class Value>
inline constexpr bool takes_batch_and_context =
    std::is_invocable_v<Fn&, batch<Key, Value>&, const call_context&>;

/// Whether something can be what a bulk loader has found: a range, or nothing.
template <class Found>
inline constexpr bool is_found_by_bulk = std::is_void_v<Found> || requires {
  std::begin(std::declval<std::remove_reference_t<Found>&>());
  std::end(std::declval<std::remove_reference_t<Found>&>());
};

template <class Fn, class Key, class Value>
constexpr void check_bulk_loader() {
  static_assert(takes_batch<Fn, Key, Value> || takes_batch_and_context<Fn, Key, Value>,
                "singleflight: a bulk loader must be callable with a singleflight::batch<Key, "
                "Value>&, or with that and a const call_context&");
}

template <class Fn, class Key, class Value>
constexpr void check_copied_bulk_loader() {
  check_bulk_loader<Fn, Key, Value>();
  static_assert(std::copy_constructible<Fn>,
                "singleflight: each batch of an asynchronous caller keeps its loader, so the "
                "loader must be copyable");
}

template <class Fn, class Key, class Value>
decltype(auto) call_bulk_loader(Fn& fn, batch<Key, Value>& keys,
                                [[maybe_unused]] const call_context& context) {
  if constexpr (takes_batch<Fn, Key, Value>) {
    return fn(keys);
  } else {
    return fn(keys, context);
  }
}

/// Whether what a range shows is its own, so that it may be moved away.
template <class Found>
inline constexpr bool owns_its_values = !std::is_reference_v<Found> && requires {
  typename Found::allocator_type;
};

/// Settles what a loader has returned: a range of pairs of a key and its value.
template <class Found, class Key, class Value>
void settle_found(batch<Key, Value>& keys, std::remove_reference_t<Found>& found) {
  for (auto&& [key, value] : found) {
    if constexpr (owns_its_values<Found>) {
      keys.set(key, std::move(value));
    } else {
      keys.set(key, value);
    }
  }
}

/// Invokes the loader, and settles what it returns.
template <class Fn, class Key, class Value>
void invoke_bulk_loader(Fn& fn, batch<Key, Value>& keys, const call_context& context) {
  using found_type = decltype(detail::call_bulk_loader(fn, keys, context));
  if constexpr (std::is_void_v<found_type>) {
    detail::call_bulk_loader(fn, keys, context);
  } else {
    found_type found = detail::call_bulk_loader(fn, keys, context);
    detail::settle_found<found_type>(keys, found);
  }
}

}  // namespace singleflight::inline SINGLEFLIGHT_ABI::detail

#endif  // SINGLEFLIGHT_DETAIL_BULK_LOADER_HPP
