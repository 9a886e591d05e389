// SPDX-License-Identifier: MIT
// Coroutines that follow a call, as many as a benchmark wants.
#ifndef SINGLEFLIGHT_BENCH_COROUTINE_WAITERS_HPP
#define SINGLEFLIGHT_BENCH_COROUTINE_WAITERS_HPP

#include <atomic>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <latch>
#include <singleflight/coroutine.hpp>
#include <singleflight/group.hpp>
#include <stop_token>
#include <utility>

#include "../tests/tasks.hpp"

namespace bench {

using async_group = ::singleflight::group<std::uint64_t, std::uint64_t>;

/// Coroutines that wait for one call, and what becomes of them.
class waiters {
 public:
  using clock = std::chrono::steady_clock;

  explicit waiters(std::size_t n) : left_(n) {}

  /// Makes one that follows the call of key 1, which is listed. Its result must be `expected`.
  template <class On>
  support::detached follow(async_group& flights, On on, std::uint64_t expected) {
    const auto got = co_await flights.co_call(1, on, [this] { return lead(); });
    if (*got != expected) wrong_ = true;
    if (--left_ > 0) co_return;
    last_ = clock::now();
    all_back_.count_down();
  }

  /// Blocks until all have gone on. Returns: when the last of them did.
  [[nodiscard]] clock::time_point last() {
    all_back_.wait();
    return last_;
  }

  /// Whether one of them got another result than that of the call.
  [[nodiscard]] bool wrong() const { return wrong_; }

 private:
  std::uint64_t lead() {
    wrong_ = true;  // it came too late
    return 0;
  }

  std::atomic<std::size_t> left_;
  std::atomic<bool> wrong_{false};
  clock::time_point last_;
  std::latch all_back_{1};
};

/// Makes a coroutine that follows the call of key 1 until its stop is requested.
/// Effects: then counts in `left`.
inline support::detached follow_until_stopped(async_group& flights, std::stop_token stop,
                                              std::uint64_t& left) {
  // Not in the co_await: g++ 12 destroys an aggregate there twice.
  const ::singleflight::async_options options{.stop = std::move(stop)};
  try {
    static_cast<void>(co_await flights.co_call(1, ::singleflight::resume_inline, options,
                                               [] { return std::uint64_t{0}; }));
  } catch (const ::singleflight::call_error&) {
    ++left;
  }
}

}  // namespace bench

#endif  // SINGLEFLIGHT_BENCH_COROUTINE_WAITERS_HPP
