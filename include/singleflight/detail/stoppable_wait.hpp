// SPDX-License-Identifier: MIT
#ifndef SINGLEFLIGHT_DETAIL_STOPPABLE_WAIT_HPP
#define SINGLEFLIGHT_DETAIL_STOPPABLE_WAIT_HPP

#include <chrono>
#include <condition_variable>
#include <mutex>

#include "../options.hpp"
#include "config.hpp"

#if defined(__cpp_lib_jthread)
#include <stop_token>
#endif

namespace singleflight::inline SINGLEFLIGHT_ABI::detail {

#if defined(__cpp_lib_jthread)

/// The wait of followers with a stop token, since the wait in a future cannot be interrupted. Each
/// follower waits on a condition variable of its own frame, so that to stop one wakes no other.
class stoppable_wait {
 public:
  /// Returns: whether the result has been published, rather than the caller stopped or out of time.
  [[nodiscard]] bool wait(const call_options& options,
                          std::chrono::steady_clock::time_point until) {
    waiter me(*this);
    const std::stop_callback wake(options.stop, [&me]() noexcept { me.stop(); });
    std::unique_lock lock(mutex_);  // after the callback, whose end may have to wait for the mutex
    const auto over = [this, &me] { return published_ || me.stopped; };
    if (until == (std::chrono::steady_clock::time_point::max)()) {
      me.changed.wait(lock, over);
    } else {
      me.changed.wait_until(lock, until, over);
    }
    return published_;
  }

  /// Notifies under the mutex, which keeps the waiters in their frames.
  void publish() noexcept {
    const std::lock_guard lock(mutex_);
    published_ = true;
    for (waiter* w = first_; w != nullptr; w = w->next) w->changed.notify_one();
  }

 private:
  /// One waiting follower, in the list while it lives. Guarded by the mutex.
  struct waiter {
    explicit waiter(stoppable_wait& every) noexcept : all(every) {
      const std::lock_guard lock(all.mutex_);
      next = all.first_;
      if (next != nullptr) next->link = &next;
      all.first_ = this;
    }
    waiter(const waiter&) = delete;  // linked by address
    waiter& operator=(const waiter&) = delete;
    ~waiter() {
      const std::lock_guard lock(all.mutex_);
      *link = next;
      if (next != nullptr) next->link = link;
    }

    void stop() noexcept {
      const std::lock_guard lock(all.mutex_);
      stopped = true;
      changed.notify_one();
    }

    stoppable_wait& all;
    std::condition_variable changed;
    bool stopped = false;
    waiter* next;
    waiter** link = &all.first_;  // what points at this one
  };

  std::mutex mutex_;
  waiter* first_ = nullptr;  // guarded by mutex_
  bool published_ = false;   // guarded by mutex_
};

#else

/// Where there are no stop tokens, no follower waits here.
class stoppable_wait {
 public:
  [[nodiscard]] static bool wait(const call_options&,
                                 std::chrono::steady_clock::time_point) noexcept {
    return false;
  }
  static void publish() noexcept {}
};

#endif

}  // namespace singleflight::inline SINGLEFLIGHT_ABI::detail

#endif  // SINGLEFLIGHT_DETAIL_STOPPABLE_WAIT_HPP
