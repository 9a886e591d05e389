// SPDX-License-Identifier: MIT
#ifndef SINGLEFLIGHT_TESTS_FIBER_HPP
#define SINGLEFLIGHT_TESTS_FIBER_HPP

#include <functional>
#include <memory>
#include <utility>

#include "support.hpp"

// Only where a thread_local variable is read through a register that the switch does not save; elsewhere
// compilers may keep the address of the old thread's. The sanitizers do not know of other stacks.
#if defined(__linux__) && defined(__GLIBC__) && defined(__x86_64__) && \
    !defined(SINGLEFLIGHT_TESTS_SANITIZED)
#define SINGLEFLIGHT_TESTS_FIBERS
#include <ucontext.h>
#endif

namespace support {

#if defined(SINGLEFLIGHT_TESTS_FIBERS)

inline constexpr bool fibers_migrate = true;

/// A function with a stack of its own, which may be suspended on one thread and resumed on another.
class fiber {
 public:
  using body = std::function<void(const std::function<void()>& suspend)>;

  explicit fiber(body b) : body_(std::move(b)) {
    getcontext(&inside_);
    inside_.uc_stack.ss_sp = stack_.get();
    inside_.uc_stack.ss_size = stack_size;
    starting_ = this;
    makecontext(&inside_, &start, 0);
  }
  fiber(const fiber&) = delete;
  fiber& operator=(const fiber&) = delete;

  /// Runs it on this thread, until it is suspended or ends.
  void resume() {
    starting_ = this;
    swapcontext(&outside_, &inside_);
  }

 private:
  static constexpr std::size_t stack_size = 256 * 1024;

  static void start() {
    fiber* const self = starting_;
    self->body_([self] { swapcontext(&self->inside_, &self->outside_); });
    setcontext(&self->outside_);
  }

  inline static thread_local fiber* starting_ = nullptr;

  const body body_;
  const std::unique_ptr<char[]> stack_ = std::make_unique_for_overwrite<char[]>(stack_size);
  ucontext_t inside_{}, outside_{};
};

#else

inline constexpr bool fibers_migrate = false;

class fiber {
 public:
  template <class Body>
  explicit fiber(const Body&) {}
  void resume() {}
};

#endif

}  // namespace support

#endif  // SINGLEFLIGHT_TESTS_FIBER_HPP
