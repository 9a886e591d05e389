// SPDX-License-Identifier: MIT
#ifndef SINGLEFLIGHT_DETAIL_MUTEX_HPP
#define SINGLEFLIGHT_DETAIL_MUTEX_HPP

#include <mutex>

#include "config.hpp"

// Clang checks at compile time (-Wthread-safety) what these say; other compilers read past them.
// https://clang.llvm.org/docs/ThreadSafetyAnalysis.html
#if defined(__clang__)
#define SINGLEFLIGHT_DETAIL_TSA(attribute) __attribute__((attribute))
#else
#define SINGLEFLIGHT_DETAIL_TSA(attribute)
#endif
#define SINGLEFLIGHT_GUARDED_BY(mutex) SINGLEFLIGHT_DETAIL_TSA(guarded_by(mutex))
#define SINGLEFLIGHT_REQUIRES(mutex) SINGLEFLIGHT_DETAIL_TSA(requires_capability(mutex))

namespace singleflight::inline SINGLEFLIGHT_ABI::detail {

/// `std::mutex`, known to the analysis. lock() cannot throw here: no thread locks it twice.
class SINGLEFLIGHT_DETAIL_TSA(capability("mutex")) mutex {
 public:
  void lock() noexcept SINGLEFLIGHT_DETAIL_TSA(acquire_capability()) { mutex_.lock(); }
  void unlock() noexcept SINGLEFLIGHT_DETAIL_TSA(release_capability()) { mutex_.unlock(); }

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

#endif  // SINGLEFLIGHT_DETAIL_MUTEX_HPP
