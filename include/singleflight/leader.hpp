// SPDX-License-Identifier: MIT
#ifndef SINGLEFLIGHT_LEADER_HPP
#define SINGLEFLIGHT_LEADER_HPP

#include <exception>
#include <memory>
#include <type_traits>
#include <utility>

#include "call_context.hpp"
#include "call_error.hpp"
#include "detail/assert.hpp"
#include "detail/config.hpp"
#include "detail/loader.hpp"
#include "detail/wait_graph.hpp"

#if defined(__cpp_lib_jthread)
#include <stop_token>
#endif

namespace singleflight::inline SINGLEFLIGHT_ABI {

namespace detail {

/// A call that whoever leads it may end anywhere.
template <class Value>
class open_call {
 public:
  open_call() = default;
  open_call(const open_call&) = delete;
  open_call& operator=(const open_call&) = delete;

  /// Ends the call with a value, unless it has ended. What moving it throws fails the call.
  virtual void end_with(loaded<Value>&& value) noexcept = 0;
  /// Ends the call without a value, unless it has ended.
  virtual void fail(std::exception_ptr why) noexcept = 0;
  /// Fails the call unless it has ended: nobody is left to end it.
  virtual void give_up() noexcept = 0;
  /// Makes this thread, which is about to run the loader to its end, the call's leader.
  virtual void run_here() noexcept = 0;
  [[nodiscard]] virtual const call_context& context() const noexcept = 0;

 protected:
  ~open_call() = default;
};

struct leader_maker;

}  // namespace detail

/// The right and the duty to end one call: lead it here, complete it elsewhere. Whoever has it may
/// end the call on any thread, once, by one of the `set_` functions; if it is destroyed first, the
/// call fails with `owner_dead`.
///
/// Movable, not copyable. A leader that has ended its call, or was moved from, may be assigned to
/// and destroyed, nothing else. It may outlive its group.
///
///     auto r = flights.lead_or_follow(id);
///     if (auto* mine = std::get_if<singleflight::leader<row>>(&r)) {
///       db.query(id, [mine = std::move(*mine)](row found) mutable {
///         std::move(mine).set_value(std::move(found));
///       });
///     }
///
/// Thread safety: one leader must not be used by two threads at once, but for its token and
///   context.
template <class Value>
class [[nodiscard]] leader {
 public:
  /// Takes over the call; the other leads none any more.
  leader(leader&&) noexcept = default;
  /// Gives up the call that it leads, if any.
  leader& operator=(leader&& other) noexcept {
    leader(std::move(other)).call_.swap(call_);
    return *this;
  }
  leader(const leader&) = delete;
  leader& operator=(const leader&) = delete;
  ~leader() {
    if (call_ != nullptr) call_->give_up();
  }

  /// Ends the call with a value. What moving it throws fails the call and is not thrown here.
  /// Effects: unlists the call, then wakes all who wait for it; those that are resumed inline run
  ///   in here.
  void set_value(detail::loaded<Value> value) && requires(!std::is_void_v<Value>) {
    take()->end_with(std::move(value));
  }

  /// Ends the call of a group whose `Value` is `void`. As above.
  void set_value() && noexcept requires std::is_void_v<Value> { take()->end_with({}); }

  /// Ends the call without a value. Precondition: `why` is not null.
  /// Effects: as `set_value`.
  void set_exception(std::exception_ptr why) && noexcept {
    SINGLEFLIGHT_ASSERT(why != nullptr, "a call must not fail with a null exception_ptr");
    take()->fail(std::move(why));
  }

  /// Ends the call with what `fn()` returns or throws. `fn` may use this leader's token and
  /// context. While it runs, this thread leads the call: to wait in there for the call itself is
  /// refused.
  /// Throws: nothing.
  template <class Fn>
  requires std::is_invocable_v<Fn>
  void set_from(Fn&& fn) && {
    static_assert(std::is_convertible_v<std::invoke_result_t<Fn>, Value>,
                  "singleflight: what fn returns must convert to the group's Value, and be nothing "
                  "where that is void");
    SINGLEFLIGHT_ASSERT(call_ != nullptr, "a leader ends its call once");
    call_->run_here();
    try {
      const auto run = [&]() -> Value {
        const detail::leading_from_here here;
        return std::forward<Fn>(fn)();
      };
      if constexpr (std::is_void_v<Value>) {
        run();
        take()->end_with({});
      } else {
        detail::loaded<Value> value = run();
        take()->end_with(std::move(value));
      }
    } catch (...) {
      take()->fail(detail::current_failure());
      if (std::current_exception() == nullptr) throw;  // forced unwinding must go on
    }
  }

#if defined(__cpp_lib_jthread)
  /// Returns: the token that is told when no caller wants the result any more.
  /// Throws: `std::bad_alloc`.
  [[nodiscard]] std::stop_token stop_token() const { return context().stop_token(); }
#endif

  /// Returns: as `call_context::forgotten`.
  [[nodiscard]] bool forgotten() const noexcept { return context().forgotten(); }

  /// Returns: the context of the call, for calls that are made inside it: `{.inside =
  ///   &l.context()}`.
  /// Lifetime: until the call is ended.
  [[nodiscard]] const call_context& context() const noexcept { return call_->context(); }

 private:
  friend struct detail::leader_maker;

  explicit leader(std::shared_ptr<detail::open_call<Value>> call) noexcept
      : call_(std::move(call)) {}

  [[nodiscard]] std::shared_ptr<detail::open_call<Value>> take() noexcept {
    SINGLEFLIGHT_ASSERT(call_ != nullptr, "a leader ends its call once");
    return std::move(call_);
  }

  std::shared_ptr<detail::open_call<Value>> call_;
};

namespace detail {

struct leader_maker {
  template <class Value>
  [[nodiscard]] static leader<Value> make(std::shared_ptr<open_call<Value>> call) noexcept {
    return leader<Value>(std::move(call));
  }
  template <class Value>
  [[nodiscard]] static std::shared_ptr<open_call<Value>> take(leader<Value>&& l) noexcept {
    return l.take();
  }
};

}  // namespace detail
}  // namespace singleflight::inline SINGLEFLIGHT_ABI

#endif  // SINGLEFLIGHT_LEADER_HPP
