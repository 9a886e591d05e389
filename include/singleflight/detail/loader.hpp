// SPDX-License-Identifier: MIT
#ifndef SINGLEFLIGHT_DETAIL_LOADER_HPP
#define SINGLEFLIGHT_DETAIL_LOADER_HPP

#include <type_traits>
#include <utility>
#include <variant>

#include "../call_context.hpp"
#include "config.hpp"
#include "stop.hpp"

// How a loader is invoked: with what it takes of the call.
namespace singleflight::inline SINGLEFLIGHT_ABI::detail {

/// What a loader takes. The first of these that fits is chosen.
enum class loader_form {
  none,
  nothing,
  key,
  stop_token,
  context,
  key_and_stop_token,
  key_and_context
};

/// Whether it is called as functions are. A pointer to a member is invocable, but is not.
template <class Fn, class... Args>
inline constexpr bool is_callable =
    std::is_invocable_v<Fn, Args...> && !std::is_member_pointer_v<std::remove_cvref_t<Fn>>;

template <class Fn, class Key>
[[nodiscard]] consteval loader_form find_loader_form() {
  if constexpr (is_callable<Fn>) {
    return loader_form::nothing;
  } else if constexpr (is_callable<Fn, const Key&>) {
    return loader_form::key;
#if defined(__cpp_lib_jthread)
  } else if constexpr (is_callable<Fn, std::stop_token>) {
    return loader_form::stop_token;
#endif
  } else if constexpr (is_callable<Fn, const call_context&>) {
    return loader_form::context;
#if defined(__cpp_lib_jthread)
  } else if constexpr (is_callable<Fn, const Key&, std::stop_token>) {
    return loader_form::key_and_stop_token;
#endif
  } else if constexpr (is_callable<Fn, const Key&, const call_context&>) {
    return loader_form::key_and_context;
  } else {
    return loader_form::none;
  }
}

/// As what a loader is invoked: as it was given, or, if it can only be invoked as an lvalue, as
/// one.
template <class Fn, class Key>
using invoked_loader =
    std::conditional_t<find_loader_form<Fn, Key>() != loader_form::none, Fn&&, Fn&>;

template <class Fn, class Key>
inline constexpr loader_form form_of = find_loader_form<invoked_loader<Fn, Key>, Key>();

template <class Fn, class Key>
inline constexpr bool is_loader = form_of<Fn, Key> != loader_form::none;

template <class Fn, class Key>
inline constexpr bool takes_stop_token = form_of<Fn, Key> == loader_form::stop_token ||
                                         form_of<Fn, Key> == loader_form::key_and_stop_token;

template <class Fn, class Key>
inline constexpr bool takes_context =
    form_of<Fn, Key> == loader_form::context || form_of<Fn, Key> == loader_form::key_and_context;

/// Returns: the source of the token that a loader of this type takes, or none.
/// Throws: `std::bad_alloc` if it takes one.
template <class Fn, class Key>
[[nodiscard]] stop_source stop_source_for() {
  if constexpr (takes_stop_token<Fn, Key>) {
    return new_stop_source();
  } else {
    return no_stop_source();
  }
}

/// Invokes the loader. The key is the call's own; `token` and `context` are invocable and give
/// those of the call.
template <class Key, class Fn, class Token, class Context>
decltype(auto) invoke_loader(Fn&& fn, [[maybe_unused]] const Key& key,
                             [[maybe_unused]] const Token& token,
                             [[maybe_unused]] const Context& context) {
  constexpr loader_form form = form_of<Fn, Key>;
  using invoked = invoked_loader<Fn, Key>;
  if constexpr (form == loader_form::nothing) {
    return static_cast<invoked>(fn)();
  } else if constexpr (form == loader_form::key) {
    return static_cast<invoked>(fn)(key);
  } else if constexpr (form == loader_form::context) {
    return static_cast<invoked>(fn)(context());
  } else if constexpr (form == loader_form::key_and_context) {
    return static_cast<invoked>(fn)(key, context());
#if defined(__cpp_lib_jthread)
  } else if constexpr (form == loader_form::stop_token) {
    return static_cast<invoked>(fn)(token());
  } else {
    return static_cast<invoked>(fn)(key, token());
#endif
  }
}

/// As above, with what the context of the call has.
template <class Key, class Fn>
decltype(auto) invoke_loader_in(Fn&& fn, const Key& key, const call_context& context) {
#if defined(__cpp_lib_jthread)
  const auto token = [&] { return context.stop_token(); };
#else
  const auto token = [] {};
#endif
  return detail::invoke_loader(std::forward<Fn>(fn), key, token,
                               [&]() -> const call_context& { return context; });
}

/// What a loader of unknown form is asked with, in unevaluated operands.
using context_function = const call_context&();
#if defined(__cpp_lib_jthread)
using token_function = std::stop_token();
#else
using token_function = void();
#endif

/// What a loader returns, as an object: `std::monostate` in place of `void`.
template <class Value>
using loaded = std::conditional_t<std::is_void_v<Value>, std::monostate, Value>;

/// Returns: what the loader returns, converted implicitly, so that compilers warn of narrowing.
template <class Value, class Key, class Fn, class Token, class Context>
[[nodiscard]] loaded<Value> load(Fn&& fn, const Key& key, const Token& token,
                                 const Context& context) {
  if constexpr (std::is_void_v<Value>) {
    detail::invoke_loader(std::forward<Fn>(fn), key, token, context);
    return {};
  } else {
    return detail::invoke_loader(std::forward<Fn>(fn), key, token, context);
  }
}

}  // namespace singleflight::inline SINGLEFLIGHT_ABI::detail

#endif  // SINGLEFLIGHT_DETAIL_LOADER_HPP
