// SPDX-License-Identifier: MIT
#ifndef SINGLEFLIGHT_DETAIL_STOP_HPP
#define SINGLEFLIGHT_DETAIL_STOP_HPP

#include <chrono>
#include <condition_variable>
#include <mutex>
#include <type_traits>
#include <utility>
#include <version>

#include "../options.hpp"

#if defined(__cpp_lib_jthread)
#include <stop_token>
#endif

// All that the library does with stop tokens, and the same names with nothing behind them for
// standard libraries that have none (libc++ before 20).
namespace singleflight::inline v1::detail {

#if defined(__cpp_lib_jthread)

template <class Fn>
inline constexpr bool takes_stop_token = std::is_invocable_v<Fn, std::stop_token>;

/// What a call tells its loader to stop with. Empty, and free, for a loader that takes no token.
using stop_source = std::stop_source;

/// Returns: a source for a loader of this type. Throws: `std::bad_alloc` if it takes a token.
template <class Fn>
[[nodiscard]] stop_source stop_source_for() {
  if constexpr (takes_stop_token<Fn>) return stop_source();
  return stop_source(std::nostopstate);
}

template <class Fn>
decltype(auto) run_loader(Fn&& fn, [[maybe_unused]] const stop_source& stop) {
  if constexpr (takes_stop_token<Fn>) {
    return std::forward<Fn>(fn)(stop.get_token());
  } else {
    return std::forward<Fn>(fn)();
  }
}

[[nodiscard]] inline bool can_be_stopped(const call_options& options) noexcept {
  return options.stop.stop_possible();
}

[[nodiscard]] inline bool was_stopped(const call_options& options) noexcept {
  return options.stop.stop_requested();
}

/// Runs `Callback` if the caller is told to stop while this lives; does nothing if it cannot be.
template <class Callback>
class on_stop {
 public:
  on_stop(const call_options& options, Callback callback)
      : callback_(options.stop, std::move(callback)) {}

 private:
  std::stop_callback<Callback> callback_;
};

/// What the followers of a call wait on that can be told to stop; a future cannot be told. Each
/// waits on a condition variable of its own frame, so that to stop one wakes no other.
class stoppable_wait {
 public:
  /// Returns: whether the result has been published, rather than the caller stopped or out of time.
  [[nodiscard]] bool wait(const call_options& options,
                          std::chrono::steady_clock::time_point until) {
    waiter me(*this);
    const std::stop_callback wake(options.stop, [&me]() noexcept { me.stop(); });
    std::unique_lock lock(mutex_);  // after the callback, whose end may have to wait for the mutex
    const auto over = [this, &me] { return published_ || me.stopped; };
    if (until == std::chrono::steady_clock::time_point::max()) {
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
  /// One waiting follower, listed while it lives. Guarded by the mutex.
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

template <class Fn>
inline constexpr bool takes_stop_token = false;

struct stop_source {
  void request_stop() const noexcept {}
};

template <class Fn>
[[nodiscard]] stop_source stop_source_for() noexcept {
  return {};
}

template <class Fn>
decltype(auto) run_loader(Fn&& fn, const stop_source&) {
  return std::forward<Fn>(fn)();
}

[[nodiscard]] constexpr bool can_be_stopped(const call_options&) noexcept { return false; }
[[nodiscard]] constexpr bool was_stopped(const call_options&) noexcept { return false; }

template <class Callback>
struct on_stop {
  on_stop(const call_options&, Callback) noexcept {}
};

struct stoppable_wait {
  [[nodiscard]] static bool wait(const call_options&,
                                 std::chrono::steady_clock::time_point) noexcept {
    return false;
  }
  static void publish() noexcept {}
};

#endif

template <class Fn>
inline constexpr bool is_loader = std::is_invocable_v<Fn> || takes_stop_token<Fn>;

}  // namespace singleflight::inline v1::detail

#endif  // SINGLEFLIGHT_DETAIL_STOP_HPP
