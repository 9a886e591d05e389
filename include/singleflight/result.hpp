// SPDX-License-Identifier: MIT
#ifndef SINGLEFLIGHT_RESULT_HPP
#define SINGLEFLIGHT_RESULT_HPP

#include <cstddef>
#include <future>
#include <memory>
#include <type_traits>
#include <utility>
#include <variant>

#include "detail/config.hpp"
#include "detail/traits.hpp"

#define SINGLEFLIGHT_DETAIL_KEEP_RESULT                                                          \
  "singleflight: what -> shows of a temporary result is gone at the end of the statement; keep " \
  "the result: auto r = flights.do_call(key, fn);"
#define SINGLEFLIGHT_DETAIL_CANNOT_TAKE                                                        \
  "singleflight: this Value cannot be copied, and other callers may hold it, so it cannot be " \
  "taken; keep the result, auto r = flights.do_call(key, fn);, and use *r"

namespace singleflight::inline SINGLEFLIGHT_ABI {

namespace detail {
struct result_maker;
}  // namespace detail

/// What a caller of a group gets: the value of the call that it led or followed.
///
/// A result never copies a value on its own. If no caller joined the call, the leader's result
/// holds the value itself; otherwise, or if the loader ran on an executor, the results of leader
/// and followers hold one `std::shared_future` between them, and the value lives until the last of
/// them is gone.
///
/// Movable, not copyable. Like a value of the standard library, one result must not be used by two
/// threads at once unless both only read; the results of different callers are independent, but
/// through `const Value&` they may show the same object, so reading a `Value` must be thread-safe.
/// What the leader did before its loader returned is visible to every caller that got the result.
///
///     template_details v = flights.do_call(id, load);   // moved if unshared, else copied
///     const auto& w = *flights.do_call(id, load);       // likewise: a temporary gives its value
///     auto r = flights.do_call(id, load);               // never copied
///     use(*r, r->fragments);
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
  [[nodiscard]] const Value& value() const& SINGLEFLIGHT_DETAIL_LIFETIMEBOUND {
    const Value* own = std::get_if<own_value>(&held_);
    return own != nullptr ? *own : std::get<shared_value>(held_).get();
  }

  /// Returns: the value by value: moved out if this caller led the call on its own thread and no
  /// caller joined it, else copied. A value that cannot be copied cannot be taken, since others may
  /// hold it.
  /// Throws: what the copy or the move throws.
  [[nodiscard]] Value value() && requires detail::copyable<Value> {
    Value* own = std::get_if<own_value>(&held_);
    if (own != nullptr) return std::move(*own);
    return std::get<shared_value>(held_).get();
  }

  /// As `value() const&`.
  [[nodiscard]] const Value& operator*() const& SINGLEFLIGHT_DETAIL_LIFETIMEBOUND {
    return value();
  }

  /// As `value() &&`: what `*flights.do_call(key, fn)` gives may be kept by `const auto&`, and
  /// iterated over by a range-based for.
  [[nodiscard]] Value operator*() && requires detail::copyable<Value> {
    return std::move(*this).value();
  }

  /// As `value() const&`.
  [[nodiscard]] const Value* operator->() const& SINGLEFLIGHT_DETAIL_LIFETIMEBOUND {
    return std::addressof(value());
  }

  /// As `value() &&`, so that `Value v = flights.do_call(key, fn);` works, and `return` likewise.
  [[nodiscard]] operator Value() && requires detail::copyable<Value> {
    return std::move(*this).value();
  }

  /// Returns: whether somebody joined the call before it ended.
  [[nodiscard]] bool shared() const noexcept { return shared_; }

  /// Returns: whether the loader that ran was this caller's.
  [[nodiscard]] bool led() const noexcept { return led_; }

  /// Refused: what it shows would be gone at the end of the statement.
  template <class V = Value>
  const V* operator->() && {
    static_assert(detail::always_false<V>, SINGLEFLIGHT_DETAIL_KEEP_RESULT);
    return nullptr;
  }
  /// Refused: other callers may hold a value that cannot be copied.
  template <detail::uncopyable V = Value>
  void value() && {
    static_assert(detail::always_false<V>, SINGLEFLIGHT_DETAIL_CANNOT_TAKE);
  }
  /// As `value() &&`.
  template <detail::uncopyable V = Value>
  void operator*() && {
    static_assert(detail::always_false<V>, SINGLEFLIGHT_DETAIL_CANNOT_TAKE);
  }
  // Deleted, so that traits say that a result does not convert.
  operator Value() && requires detail::uncopyable<Value>
  = delete;  // Value cannot be copied and others may hold it: auto r = do_call(...), then use *r
  operator Value() const& = delete;  // write *r to copy the value, or std::move(r) to take it
  void value() const&& = delete;
  void operator*() const&& = delete;
  void operator->() const&& = delete;

 private:
  friend struct detail::result_maker;

  static constexpr std::size_t own_value = 0;
  static constexpr std::size_t shared_value = 1;

  // Tagged, since the traits of a Value that is made of anything would ask for it otherwise.
  result(std::in_place_index_t<own_value> tag, Value&& own)
      : held_(tag, std::move(own)), shared_(false), led_(true) {}
  result(std::in_place_index_t<shared_value> tag, std::shared_future<Value>&& ready, bool shared,
         bool led) noexcept
      : held_(tag, std::move(ready)), shared_(shared), led_(led) {}

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
  friend struct detail::result_maker;

  result(bool shared, bool led) noexcept : shared_(shared), led_(led) {}

  bool shared_;
  bool led_;
};

namespace detail {

/// Makes results for those who lead and follow.
struct result_maker {
  /// Of a call that no caller joined, for its leader. Throws: what moving the value throws.
  template <class Value, class Loaded>
  [[nodiscard]] static result<Value> unshared([[maybe_unused]] Loaded& value) {
    if constexpr (std::is_void_v<Value>) {
      return result<void>(false, true);
    } else {
      return result<Value>(std::in_place_index<result<Value>::own_value>, std::move(value));
    }
  }

  /// One more of a result whose value is in a future.
  template <class Value>
  [[nodiscard]] static result<Value> again(const result<Value>& r) {
    if constexpr (std::is_void_v<Value>) {
      return r;
    } else {
      return result<Value>(
          std::in_place_index<result<Value>::shared_value>,
          std::shared_future<Value>(*std::get_if<result<Value>::shared_value>(&r.held_)), r.shared_,
          r.led_);
    }
  }

  /// Puts a value that nobody shares into a future. Throws: what moving the value and the
  /// allocation throw, and then the value is gone.
  template <class Value>
  static void put_into_future([[maybe_unused]] result<Value>& r) {
    if constexpr (!std::is_void_v<Value>) {
      Value* const own = std::get_if<result<Value>::own_value>(&r.held_);
      if (own == nullptr) return;
      std::promise<Value> promise;
      promise.set_value(std::move(*own));
      r.held_.template emplace<result<Value>::shared_value>(promise.get_future().share());
    }
  }

  /// Of a call whose value is in a future, which is ready.
  template <class Value>
  [[nodiscard]] static result<Value> of(std::shared_future<Value>&& ready, bool shared,
                                        bool led) noexcept {
    if constexpr (std::is_void_v<Value>) {
      return result<void>(shared, led);
    } else {
      return result<Value>(std::in_place_index<result<Value>::shared_value>, std::move(ready),
                           shared, led);
    }
  }

  /// Of nothing: for a function that is given a result beside an exception.
  template <class Value>
  [[nodiscard]] static result<Value> empty() noexcept {
    return of<Value>({}, false, false);
  }
};

}  // namespace detail
}  // namespace singleflight::inline SINGLEFLIGHT_ABI

#undef SINGLEFLIGHT_DETAIL_KEEP_RESULT
#undef SINGLEFLIGHT_DETAIL_CANNOT_TAKE

#endif  // SINGLEFLIGHT_RESULT_HPP
