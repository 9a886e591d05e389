// SPDX-License-Identifier: MIT
// Helpers that the tests share: threads that are joined on every path, and waits for a state
// instead of a time.
#ifndef SINGLEFLIGHT_TESTS_SUPPORT_HPP
#define SINGLEFLIGHT_TESTS_SUPPORT_HPP

#include <gtest/gtest.h>

#include <atomic>
#include <chrono>
#include <cstddef>
#include <exception>
#include <functional>
#include <stdexcept>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "sanitizers.hpp"

// glibc ends a thread (pthread_exit, cancellation) by unwinding it through libstdc++'s catch blocks.
// libc++ ends the program instead; musl, macOS and Windows do not unwind at all.
#if defined(__GLIBCXX__) && defined(__GLIBC__)
#define SINGLEFLIGHT_TESTS_THREAD_EXIT_UNWINDS
#endif

// A thread can be cancelled while it waits in a condition variable. AddressSanitizer takes what the
// unwound frames leave on the stack for the poison of living ones, in the sigaltstack of its own
// __asan_handle_no_return, and aborts.
#if defined(SINGLEFLIGHT_TESTS_THREAD_EXIT_UNWINDS) && !defined(SINGLEFLIGHT_TESTS_ASAN)
#define SINGLEFLIGHT_TESTS_CANCELS_WAITS
#endif

// libstdc++'s std::promise uses std::call_once, which uses pthread_once. Where that does not survive
// an exception (TSan's does not, nor any but glibc's), a promise whose value throws when moved hangs:
// https://gcc.gnu.org/bugzilla/show_bug.cgi?id=66146
#if defined(SINGLEFLIGHT_TESTS_TSAN) || (defined(__GLIBCXX__) && !defined(__GLIBC__))
#define SINGLEFLIGHT_TESTS_CALL_ONCE_HANGS
#endif

namespace support {

/// Waits until `condition()` holds. If it does not within a minute, the test fails with `what`.
/// Apart from that limit the result does not depend on time.
template <class Condition>
void await(const Condition& condition, const char* what) {
  const auto give_up = std::chrono::steady_clock::now() + std::chrono::minutes(1);
  while (!condition()) {
    if (std::chrono::steady_clock::now() > give_up) {
      throw std::runtime_error(std::string("waited a minute for: ") + what);
    }
    std::this_thread::yield();
  }
}

/// As std::latch, which may lose a wake-up where there is no futex: libstdc++ 12 on MinGW.
class latch {
 public:
  explicit latch(std::ptrdiff_t n) noexcept : left_(n) {}
  void count_down() noexcept { --left_; }
  void wait() const {
    await([this] { return left_ == 0; }, "all to arrive");
  }
  void arrive_and_wait() {
    count_down();
    wait();
  }

 private:
  std::atomic<std::ptrdiff_t> left_;
};

/// Waits until `n` followers wait in the group.
template <class Group>
void await_followers(const Group& group, std::size_t n) {
  await([&] { return group.stats().waiting == n; }, "the followers to have joined");
}

/// Expects one exception object, or none. Microsoft's library copies the exception for each caller,
/// so there nothing is compared.
inline void expect_same([[maybe_unused]] const std::exception_ptr& one,
                        [[maybe_unused]] const std::exception_ptr& other) {
#if !defined(_MSC_VER)
  EXPECT_EQ(one, other);
#endif
}

/// No call is listed or in flight in the group, and no caller waits.
template <class Group>
void expect_idle(const Group& group) {
  EXPECT_EQ(group.stats().in_flight, 0U);
  EXPECT_EQ(group.stats().waiting, 0U);
  EXPECT_TRUE(group.in_flight().empty());
}

/// Threads that the destructor joins. (libc++ before 20 has no std::jthread.)
class threads {
 public:
  threads() = default;
  threads(std::size_t n, const std::function<void(std::size_t)>& body) {
    for (std::size_t i = 0; i < n; ++i) start([body, i] { body(i); });
  }
  threads(const threads&) = delete;
  threads& operator=(const threads&) = delete;
  ~threads() { join(); }

  template <class Body>
  void start(Body&& body) {
    running_.emplace_back(std::forward<Body>(body));
  }
  void join() {
    for (std::thread& t : running_) t.join();
    running_.clear();
  }

 private:
  std::vector<std::thread> running_;
};

}  // namespace support

#endif  // SINGLEFLIGHT_TESTS_SUPPORT_HPP
