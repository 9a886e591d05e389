// SPDX-License-Identifier: MIT
#ifndef SINGLEFLIGHT_DETAIL_STOPPABLE_WAIT_HPP
#define SINGLEFLIGHT_DETAIL_STOPPABLE_WAIT_HPP

#include <chrono>
#include <condition_variable>
#include <mutex>

#include "../options.hpp"
#include "config.hpp"
#include "mutex.hpp"
#include "waiter_list.hpp"

#if defined(__cpp_lib_jthread)
#include <stop_token>
#endif

namespace singleflight::inline SINGLEFLIGHT_ABI::detail {

/// The wait of a thread with a stop token, since the wait in a future cannot be interrupted. Each
/// thread waits on a condition variable of its own frame, so that to stop one wakes no other.
class thread_waiter : public waiter_node {
 public:
  explicit thread_waiter(waiter_list& all) noexcept : waiter_node(of_threads), all_(all) {
    const lock guard(all_.mutex);
    all_.add(*this);
  }
  thread_waiter(const thread_waiter&) = delete;
  thread_waiter& operator=(const thread_waiter&) = delete;
  ~thread_waiter() {
    const lock guard(all_.mutex);
    all_.remove(*this);
  }

  void stop() noexcept {
    const lock guard(all_.mutex);
    stopped_ = true;
    changed_.notify_one();
  }

  /// Returns: whether the result has been published, rather than the thread stopped or out of time.
  [[nodiscard]] bool wait_until(std::chrono::steady_clock::time_point until)
      SINGLEFLIGHT_NOT_ANALYSED {
    std::unique_lock guard(all_.mutex.standard());
    const auto over = [this]() SINGLEFLIGHT_NOT_ANALYSED { return all_.published() || stopped_; };
    if (until == (std::chrono::steady_clock::time_point::max)()) {
      changed_.wait(guard, over);
    } else {
      changed_.wait_until(guard, until, over);
    }
    return all_.published();
  }

 private:
  static void notify(waiter_node& n) noexcept {
    static_cast<thread_waiter&>(n).changed_.notify_one();
  }
  static constexpr type of_threads{resumed::by_thread, &notify, nullptr};

  waiter_list& all_;
  std::condition_variable changed_;
  bool stopped_ SINGLEFLIGHT_GUARDED_BY(all_.mutex) = false;
};

#if defined(__cpp_lib_jthread)

/// Returns: as `thread_waiter::wait_until`.
[[nodiscard]] SINGLEFLIGHT_DETAIL_NOINLINE inline bool wait_stoppably(
    waiter_list& all, const call_options& options, std::chrono::steady_clock::time_point until) {
  thread_waiter me(all);
  const std::stop_callback wake(options.stop, [&me]() noexcept { me.stop(); });
  return me.wait_until(
      until);  // locks after the callback, whose end may have to wait for the mutex
}

#else

/// Where there are no stop tokens, no thread waits here.
[[nodiscard]] inline bool wait_stoppably(waiter_list&, const call_options&,
                                         std::chrono::steady_clock::time_point) noexcept {
  return false;
}

#endif

}  // namespace singleflight::inline SINGLEFLIGHT_ABI::detail

#endif  // SINGLEFLIGHT_DETAIL_STOPPABLE_WAIT_HPP
