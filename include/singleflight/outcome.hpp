// SPDX-License-Identifier: MIT
#ifndef SINGLEFLIGHT_OUTCOME_HPP
#define SINGLEFLIGHT_OUTCOME_HPP

#include <exception>
#include <type_traits>
#include <utility>
#include <variant>

#include "detail/config.hpp"
#include "detail/loader.hpp"
#include "detail/traits.hpp"
#include "result.hpp"

namespace singleflight::inline SINGLEFLIGHT_ABI {

namespace detail {
struct outcome_maker;

/// For the place of an outcome that is still to come.
struct no_outcome_yet {
  explicit no_outcome_yet() = default;
};
}  // namespace detail

/// What became of one call for a caller that nothing can be thrown at: its `result`, or the
/// exception that `do_call` would have thrown.
///
/// Movable, not copyable. Thread safety: as `result`.
///
///     if (row.has_value()) use(row.value());
///     else log(row.error());
///
/// A moved-from outcome may be assigned to and destroyed, nothing else.
template <class Value>
class [[nodiscard]] outcome {
  using result_type = singleflight::result<Value>;

 public:
  /// For the library: the place of an outcome that is still to come.
  explicit outcome(detail::no_outcome_yet) noexcept : held_(std::in_place_index<1>) {}

  /// Returns: whether the call gave a value.
  [[nodiscard]] bool has_value() const noexcept { return held_.index() == 0; }

  /// Returns: the value as `result::value() const&`; nothing if `Value` is void.
  /// Throws: the exception that the caller was given.
  /// Lifetime: until this outcome is destroyed, moved from or assigned to.
  std::add_lvalue_reference_t<const Value> value() const& SINGLEFLIGHT_DETAIL_LIFETIMEBOUND {
    return held().value();
  }

  /// Returns: the value by value, as `result::value() &&`.
  /// Throws: the exception that the caller was given; what copying or moving the value throws.
  [[nodiscard]] Value value() && requires(!std::is_void_v<Value> && detail::copyable<Value>) {
    return std::move(*this).result().value();
  }

  /// Returns: the exception that the caller was given, or null if there is a value.
  [[nodiscard]] std::exception_ptr error() const noexcept {
    const std::exception_ptr* const failed = std::get_if<1>(&held_);
    return failed != nullptr ? *failed : nullptr;
  }

  /// Returns: the result, which this outcome no longer has.
  /// Throws: the exception that the caller was given.
  result_type result() && {
    throw_if_failed();
    return std::move(*std::get_if<0>(&held_));
  }

 private:
  friend struct detail::outcome_maker;

  explicit outcome(result_type&& r) : held_(std::in_place_index<0>, std::move(r)) {}
  explicit outcome(std::exception_ptr&& why) noexcept
      : held_(std::in_place_index<1>, std::move(why)) {}

  void throw_if_failed() const {
    if (const std::exception_ptr* const failed = std::get_if<1>(&held_)) {
      std::rethrow_exception(*failed);
    }
  }

  [[nodiscard]] const result_type& held() const& {
    throw_if_failed();
    return *std::get_if<0>(&held_);
  }

  std::variant<result_type, std::exception_ptr> held_;
};

namespace detail {

/// Makes outcomes for those who end calls.
struct outcome_maker {
  /// Throws: what moving a value throws that nobody shares.
  template <class Value>
  [[nodiscard]] static outcome<Value> of(result<Value>&& r) {
    return outcome<Value>(std::move(r));
  }

  // In the place of an outcome, without assigning, which a Value need not allow. If moving the
  // value throws, there is no outcome: another must follow.

  /// Of a call that no caller joined.
  template <class Value>
  static void renew_unshared(outcome<Value>& o, [[maybe_unused]] loaded<Value>& value) {
    o.held_.template emplace<0>(result_maker::unshared<Value>(value));
  }

  template <class Value>
  static void renew(outcome<Value>& o, result<Value>&& r) {
    o.held_.template emplace<0>(std::move(r));
  }
  template <class Value>
  static void renew(outcome<Value>& o, std::exception_ptr why) noexcept {
    o.held_.template emplace<1>(std::move(why));
  }

  /// Another one, which is moved. What moving its value throws is the outcome.
  template <class Value>
  static void renew_from(outcome<Value>& o, outcome<Value>&& other) noexcept {
    if (auto* const r = std::get_if<0>(&other.held_)) {
      try {
        renew(o, std::move(*r));
      } catch (...) {
        renew<Value>(o, std::current_exception());
      }
    } else {
      renew<Value>(o, std::move(*std::get_if<1>(&other.held_)));
    }
  }

  /// The same as another, whose value is shared, or which failed.
  template <class Value>
  static void renew_as(outcome<Value>& o, const outcome<Value>& other) {
    const auto* const shared = std::get_if<0>(&other.held_);
    if (shared != nullptr) {
      renew(o, result_maker::again(*shared));
    } else {
      renew(o, other.error());
    }
  }

  /// Prepares for `renew_as` what one caller was given. What that throws is the outcome.
  template <class Value>
  static void share(outcome<Value>& o) noexcept {
    if (auto* const own = std::get_if<0>(&o.held_)) {
      try {
        result_maker::put_into_future(*own);
      } catch (...) {
        renew(o, std::current_exception());
      }
    }
  }

  template <class Value>
  [[nodiscard]] static outcome<Value> failed(std::exception_ptr why) noexcept {
    return outcome<Value>(std::move(why));
  }
};

}  // namespace detail
}  // namespace singleflight::inline SINGLEFLIGHT_ABI

#endif  // SINGLEFLIGHT_OUTCOME_HPP
