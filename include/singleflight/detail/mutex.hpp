// SPDX-License-Identifier: MIT
#ifndef SINGLEFLIGHT_DETAIL_MUTEX_HPP
#define SINGLEFLIGHT_DETAIL_MUTEX_HPP

#include <chrono>
#include <memory>
#include <mutex>
#include <thread>

#include "config.hpp"

#if defined(__SANITIZE_THREAD__)
#define SINGLEFLIGHT_DETAIL_TSAN
#elif defined(__has_feature)
#if __has_feature(thread_sanitizer)
#define SINGLEFLIGHT_DETAIL_TSAN
#endif
#endif
#if defined(SINGLEFLIGHT_DETAIL_TSAN)
#include <sanitizer/tsan_interface.h>
#endif

// Clang checks at compile time (-Wthread-safety) what these say; other compilers read past them.
// https://clang.llvm.org/docs/ThreadSafetyAnalysis.html
#if defined(__clang__)
#define SINGLEFLIGHT_DETAIL_TSA(attribute) __attribute__((attribute))
#else
#define SINGLEFLIGHT_DETAIL_TSA(attribute)
#endif
#define SINGLEFLIGHT_GUARDED_BY(mutex) SINGLEFLIGHT_DETAIL_TSA(guarded_by(mutex))
#define SINGLEFLIGHT_REQUIRES(mutex) SINGLEFLIGHT_DETAIL_TSA(requires_capability(mutex))
#define SINGLEFLIGHT_NOT_ANALYSED SINGLEFLIGHT_DETAIL_TSA(no_thread_safety_analysis)

namespace singleflight::inline SINGLEFLIGHT_ABI::detail {

// For the time of a fork one thread holds the mutexes of all groups. ThreadSanitizer ends the
// program where a thread holds more than 64, so it is told that they are free. No other thread can
// tell.

inline void lock_before_fork(std::mutex& m) noexcept SINGLEFLIGHT_NOT_ANALYSED {
  m.lock();
#if defined(SINGLEFLIGHT_DETAIL_TSAN)
  __tsan_mutex_pre_unlock(&m, 0);
  __tsan_mutex_post_unlock(&m, 0);
#endif
}

inline void unlock_after_fork(std::mutex& m) noexcept SINGLEFLIGHT_NOT_ANALYSED {
#if defined(SINGLEFLIGHT_DETAIL_TSAN)
  __tsan_mutex_pre_lock(&m, __tsan_mutex_try_lock);
  __tsan_mutex_post_lock(&m, __tsan_mutex_try_lock, 0);
#endif
  m.unlock();
}

/// In the child, where the thread that locked the mutex has another number and may not be allowed
/// to unlock it.
inline void renew_after_fork(std::mutex& m) noexcept { std::construct_at(&m); }

/// `std::mutex`, known to the analysis. lock() cannot throw here: no thread locks it twice.
class SINGLEFLIGHT_DETAIL_TSA(capability("mutex")) mutex {
 public:
  void lock() noexcept SINGLEFLIGHT_DETAIL_TSA(acquire_capability()) { mutex_.lock(); }
  void unlock() noexcept SINGLEFLIGHT_DETAIL_TSA(release_capability()) { mutex_.unlock(); }

  /// Locks the mutex unless it stays locked for much longer than code of the library holds it.
  /// Returns: whether it has locked it.
  [[nodiscard]] bool lock_unless_held() noexcept
      SINGLEFLIGHT_DETAIL_TSA(try_acquire_capability(true)) {
    if (mutex_.try_lock()) return true;
    const auto limit = std::chrono::steady_clock::now() + std::chrono::milliseconds(100);
    while (std::chrono::steady_clock::now() < limit) {
      if (mutex_.try_lock()) return true;
      std::this_thread::yield();
    }
    return false;
  }

  /// For `std::condition_variable`, which waits with no other.
  [[nodiscard]] std::mutex& standard() noexcept { return mutex_; }

  void lock_before_fork() noexcept { detail::lock_before_fork(mutex_); }
  void unlock_after_fork() noexcept { detail::unlock_after_fork(mutex_); }
  void renew_after_fork() noexcept { detail::renew_after_fork(mutex_); }

 private:
  std::mutex mutex_;
};

/// Holds a mutex until it is destroyed or told to unlock, whichever comes first.
class SINGLEFLIGHT_DETAIL_TSA(scoped_lockable) lock {
 public:
  explicit lock(mutex& m) noexcept SINGLEFLIGHT_DETAIL_TSA(acquire_capability(m)) : mutex_(&m) {
    m.lock();
  }
  ~lock() SINGLEFLIGHT_DETAIL_TSA(release_capability()) {
    if (mutex_ != nullptr) mutex_->unlock();
  }
  lock(const lock&) = delete;
  lock& operator=(const lock&) = delete;

  void unlock() noexcept SINGLEFLIGHT_DETAIL_TSA(release_capability()) {
    mutex_->unlock();
    mutex_ = nullptr;
  }

 private:
  mutex* mutex_;  // null: unlocked
};

}  // namespace singleflight::inline SINGLEFLIGHT_ABI::detail

#undef SINGLEFLIGHT_DETAIL_TSAN

#endif  // SINGLEFLIGHT_DETAIL_MUTEX_HPP
