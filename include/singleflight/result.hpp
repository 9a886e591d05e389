// SPDX-License-Identifier: MIT
#ifndef SINGLEFLIGHT_RESULT_HPP
#define SINGLEFLIGHT_RESULT_HPP

#include <concepts>
#include <cstddef>
#include <future>
#include <memory>
#include <utility>
#include <variant>

namespace singleflight::inline v1 {

/// What a caller of a group gets: the value of the call that it led or followed.
///
/// A result never copies a value on its own. If nobody joined the call, the leader's result holds
/// the value itself; if somebody did, or the loader ran on an executor, the results of leader and
/// followers hold one `std::shared_future` between them, and the value lives until the last of them
/// is gone.
///
/// Movable, not copyable. Like a value of the standard library, one result must not be used by two
/// threads at once unless both only read; the results of different callers are independent, but
/// through `const Value&` they may show the same object, so reading a `Value` must be thread-safe.
/// What the leader did before its loader returned is visible to every caller that got the result.
///
///     template_details v = flights.do_call(id, load);    // moves if unshared, else copies
///     auto r = flights.do_call(id, load);                // never copies
///     use(*r);
///
/// A moved-from result may be assigned to and destroyed, nothing else.
template <class Value>
class [[nodiscard]] result {
 public:
  /// Takes the other's value or future, and leaves a moved-from result.
  result(result&&) = default;
  /// As the constructor; the value that this result held or shared goes.
  result& operator=(result&&) = default;
  ~result() = default;

  // A copy of an unshared result would copy the value behind the caller's back.
  result(const result&) = delete;
  result& operator=(const result&) = delete;

  /// Returns: the value, of which other callers may hold the same object.
  /// Lifetime: until this result is destroyed, moved from or assigned to.
  [[nodiscard]] const Value& value() const& {
    const Value* own = std::get_if<own_value>(&held_);
    return own != nullptr ? *own : std::get<shared_value>(held_).get();
  }

  /// Returns: the value by value: moved out if this caller led the call on its own thread and
  /// nobody joined it, else copied. A move-only `Value` cannot be taken out, since others may hold
  /// it: there `value()` gives `const Value&`, also of a temporary, and for no longer than that
  /// lives.
  /// Throws: what the copy or the move throws.
  [[nodiscard]] Value value() && requires std::copy_constructible<Value> {
    Value* own = std::get_if<own_value>(&held_);
    if (own != nullptr) return std::move(*own);
    return std::get<shared_value>(held_).get();
  }

  /// As `value() const&`.
  [[nodiscard]] const Value& operator*() const { return value(); }

  /// As `value() const&`.
  [[nodiscard]] const Value* operator->() const { return std::addressof(value()); }

  /// As `value() &&`, so that `Value v = flights.do_call(key, fn);` works, and `return` likewise.
  [[nodiscard]] operator Value() && requires std::copy_constructible<Value> {
    return std::move(*this).value();
  }

  /// Returns: whether somebody joined the call before it ended.
  [[nodiscard]] bool shared() const noexcept { return shared_; }

  /// Returns: whether the loader that ran was this caller's.
  [[nodiscard]] bool led() const noexcept { return led_; }

 private:
  template <class, class, class, class>
  friend class group;

  static constexpr std::size_t own_value = 0;
  static constexpr std::size_t shared_value = 1;

  explicit result(Value&& own)
      : held_(std::in_place_index<own_value>, std::move(own)), shared_(false), led_(true) {}
  result(std::shared_future<Value>&& ready, bool shared, bool led) noexcept
      : held_(std::in_place_index<shared_value>, std::move(ready)), shared_(shared), led_(led) {}

  std::variant<Value, std::shared_future<Value>> held_;  // the future is ready and has a value
  bool shared_;
  bool led_;
};

/// What a caller of a group gets whose loader returns nothing: that the call succeeded.
template <>
class result<void> {
 public:
  /// Does nothing, for code that is generic in `Value`: a failed call has thrown already.
  void value() const noexcept {}
  /// As `value()`.
  void operator*() const noexcept {}

  /// Returns: whether somebody joined the call before it ended.
  [[nodiscard]] bool shared() const noexcept { return shared_; }

  /// Returns: whether the loader that ran was this caller's.
  [[nodiscard]] bool led() const noexcept { return led_; }

 private:
  template <class, class, class, class>
  friend class group;

  result(bool shared, bool led) noexcept : shared_(shared), led_(led) {}

  bool shared_;
  bool led_;
};

}  // namespace singleflight::inline v1

#endif  // SINGLEFLIGHT_RESULT_HPP
