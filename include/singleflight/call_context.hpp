// SPDX-License-Identifier: MIT
#ifndef SINGLEFLIGHT_CALL_CONTEXT_HPP
#define SINGLEFLIGHT_CALL_CONTEXT_HPP

#include <memory>
#include <thread>

#include "detail/config.hpp"

#if defined(__cpp_lib_jthread)
#include <stop_token>
#endif

namespace singleflight::inline SINGLEFLIGHT_ABI {

namespace detail {
struct context_access;
struct wait_node;
}  // namespace detail

/// What a loader may ask of the call that it runs for, by taking a `const call_context&`.
///
/// Thread safety: all members may be called at once from any thread.
/// Lifetime: until the loader returns; where a `leader` ends the call, until that is used or gone.
class call_context {
 public:
  call_context(const call_context&) = delete;
  call_context& operator=(const call_context&) = delete;

#if defined(__cpp_lib_jthread)
  /// Returns: the token by which the loader is told that no caller wants its result any more.
  /// Throws: `std::bad_alloc`. Complexity: one lock; an allocation the first time.
  [[nodiscard]] std::stop_token stop_token() const { return get_stop_token(); }
#endif

  /// Returns: whether the key was forgotten, or the call superseded, since the call began: whether
  ///   what the loader read may be older than a write that a caller of `forget` has made. True may
  ///   also be due to another key of the same shard. False is exact, whether or not a call was
  ///   listed when the key was forgotten.
  /// Complexity: one lock.
  [[nodiscard]] bool forgotten() const noexcept { return was_forgotten(); }

 protected:
  call_context() = default;
  ~call_context() = default;

 private:
  friend struct detail::context_access;

#if defined(__cpp_lib_jthread)
  [[nodiscard]] virtual std::stop_token get_stop_token() const = 0;
#endif
  [[nodiscard]] virtual bool was_forgotten() const noexcept = 0;
  [[nodiscard]] virtual std::shared_ptr<detail::wait_node> get_node() const = 0;
};

}  // namespace singleflight::inline SINGLEFLIGHT_ABI

#endif  // SINGLEFLIGHT_CALL_CONTEXT_HPP
