// SPDX-License-Identifier: MIT
// Executors, slots and services as users write them, by which a test sees, or decides, what Asio does.
#ifndef SINGLEFLIGHT_TESTS_OWN_EXECUTORS_HPP
#define SINGLEFLIGHT_TESTS_OWN_EXECUTORS_HPP

#include <exception>
#include <functional>
#include <memory>
#include <stdexcept>
#include <type_traits>
#include <utility>

#include "either_asio.hpp"

/// The executor of a context. It may hold something, and do something around each post.
struct own_executor {
  asio::io_context* context;
  std::shared_ptr<void> held = {};
  const std::function<void()>* before = nullptr;
  const std::function<void()>* after = nullptr;

  [[nodiscard]] asio::execution_context& query(asio::execution::context_t) const noexcept {
    return *context;
  }
  [[nodiscard]] own_executor require(asio::execution::blocking_t::never_t) const noexcept {
    return *this;
  }
  template <class Fn>
  void execute(Fn&& fn) const {
    const own_executor kept = *this;  // this may be gone when the function runs
    if (kept.before != nullptr) (*kept.before)();
    asio::post(*kept.context, std::forward<Fn>(fn));
    if (kept.after != nullptr) (*kept.after)();
  }
  bool operator==(const own_executor& other) const noexcept { return context == other.context; }
  bool operator!=(const own_executor& other) const noexcept { return context != other.context; }
};

/// In the place of `before`.
inline const std::function<void()> throw_that_it_is_full = [] {
  throw std::runtime_error("the queue is full");
};

/// An executor that has no context of Asio.
struct foreign_executor {
  support::task_queue* queue;

  [[nodiscard]] foreign_executor require(asio::execution::blocking_t::never_t) const noexcept {
    return *this;
  }
  template <class Fn>
  void execute(Fn&& fn) const {
    (*queue)([f = std::make_shared<std::decay_t<Fn>>(std::forward<Fn>(fn))] { (*f)(); });
  }
  bool operator==(const foreign_executor& other) const noexcept { return queue == other.queue; }
  bool operator!=(const foreign_executor& other) const noexcept { return queue != other.queue; }
};

/// A cancellation slot that takes no handler.
struct refusing_slot {
  [[nodiscard]] static constexpr bool is_connected() noexcept { return true; }
  [[nodiscard]] static constexpr bool has_handler() noexcept { return false; }
  template <class Handler, class... Args>
  Handler& emplace(Args&&...) {
    throw std::runtime_error("no slot");
  }
  void clear() noexcept {}
  bool operator==(const refusing_slot&) const noexcept { return true; }
  bool operator!=(const refusing_slot&) const noexcept { return false; }
};

/// Calls `then` when its context is destroyed, after all services that the context has got later.
class end_of_context : public asio::execution_context::service {
 public:
  inline static asio::execution_context::id id;

  explicit end_of_context(asio::execution_context& context)
      : asio::execution_context::service(context) {}

  std::function<void()> then;

 private:
  void shutdown() noexcept override {
    if (then) then();
  }
};

/// Waits until another thread has begun to destroy the context: it takes no callers then.
inline void await_end_of(asio::io_context& context) {
  singleflight::group<int, int> flights;
  const auto callers = [&] { return flights.stats().led + flights.stats().joined; };
  support::await(
      [&] {
        const auto before = callers();
        async_call(flights, context, 1, must_not_load,
                   [](const std::exception_ptr&, const auto&) { FAIL() << "called"; });
        return callers() == before;
      },
      "the context to be destroyed");
}

/// Calls `f` when the last copy of what this returns is destroyed.
[[nodiscard]] inline std::shared_ptr<void> at_end(std::function<void()> f) {
  return {nullptr, [f = std::move(f)](void*) { f(); }};
}

#endif  // SINGLEFLIGHT_TESTS_OWN_EXECUTORS_HPP
