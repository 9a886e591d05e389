// SPDX-License-Identifier: MIT
#ifndef SINGLEFLIGHT_DETAIL_ASIO_TIMER_HPP
#define SINGLEFLIGHT_DETAIL_ASIO_TIMER_HPP

#include <chrono>
#include <memory>
#include <utility>

#include "config.hpp"
#include "mutex.hpp"

namespace singleflight::inline SINGLEFLIGHT_ABI::detail {

/// Makes a waiter leave when its time has come. Held apart from the waiter, whose memory must be
/// free when its handler runs, which Asio's own reference to the timer would delay. `Wait` has a
/// member `expire(expiration&)`, which returns whether it is to leave; `expiration::leave()` makes
/// it do so, outside the lock, when the waiter may be gone.
template <class Timer, class Wait>
class leaving_timer : public std::enable_shared_from_this<leaving_timer<Timer, Wait>> {
 public:
  template <class Executor>
  leaving_timer(const Executor& executor, Wait& waiting) : timer_(executor), waiting_(&waiting) {}
  leaving_timer(const leaving_timer&) = delete;
  leaving_timer& operator=(const leaving_timer&) = delete;
  ~leaving_timer() = default;

  /// Starts, and calls `wait`, which puts the waiter into its list: the time may have come, and
  /// cannot be acted on before. Returns: what `wait` returns. Throws: what Asio throws.
  template <class Fn>
  auto start(std::chrono::steady_clock::time_point when, const Fn& wait) {
    const lock guard(mutex_);
    timer_.expires_at(when);
    // Of a timer that was cancelled, too: it finds nobody.
    timer_.async_wait([self = this->shared_from_this()](const auto&) { self->expire(); });
    return wait();
  }

  /// The waiter is gone, or will be.
  void end() noexcept {
    const lock guard(mutex_);
    waiting_ = nullptr;
    try {
      timer_.cancel();
    } catch (...) {  // then it ends later, and finds nobody
    }
  }

 private:
  void expire() noexcept {
    typename Wait::expiration out;
    {
      const lock guard(mutex_);
      if (waiting_ == nullptr || !waiting_->expire(out)) return;
    }
    std::move(out).leave();
  }

  detail::mutex mutex_;
  Timer timer_ SINGLEFLIGHT_GUARDED_BY(mutex_);
  Wait* waiting_ SINGLEFLIGHT_GUARDED_BY(mutex_);  // null: it is gone
};

}  // namespace singleflight::inline SINGLEFLIGHT_ABI::detail

#endif  // SINGLEFLIGHT_DETAIL_ASIO_TIMER_HPP
