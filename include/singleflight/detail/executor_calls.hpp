// SPDX-License-Identifier: MIT
#ifndef SINGLEFLIGHT_DETAIL_EXECUTOR_CALLS_HPP
#define SINGLEFLIGHT_DETAIL_EXECUTOR_CALLS_HPP

#include <condition_variable>
#include <mutex>
#include <thread>

#include "config.hpp"

namespace singleflight::inline SINGLEFLIGHT_ABI::detail {

/// The calls of a group that run on executors, for the group's destructor to wait until there are
/// none.
class executor_calls {
 public:
  /// One of them. Its members are guarded by the mutex of the list.
  struct member {
    std::thread::id runner;  // the thread that runs its loader
    member* next = nullptr;
    member** link = nullptr;  // what points at this one
  };

  executor_calls() = default;
  executor_calls(const executor_calls&) = delete;  // linked by address
  executor_calls& operator=(const executor_calls&) = delete;
  ~executor_calls() = default;

  void add(member& m) noexcept {
    const std::lock_guard guard(mutex_);
    m.next = first_;
    if (first_ != nullptr) first_->link = &m.next;
    m.link = &first_;
    first_ = &m;
  }

  /// Notes that this thread runs the loader.
  void run_here(member& m) noexcept {
    const std::lock_guard guard(mutex_);
    m.runner = std::this_thread::get_id();
  }

  /// Notifies the one destructor that may wait, and under the mutex: once that is released, the
  /// group may be gone.
  void remove(member& m) noexcept {
    const std::lock_guard guard(mutex_);
    *m.link = m.next;
    if (m.next != nullptr) m.next->link = m.link;
    if (first_ == nullptr) empty_.notify_one();
  }

  /// Waits until there are none. Returns: false, at once, if this thread runs one of them, which
  /// then cannot end: the loader has ended the process or its own group.
  [[nodiscard]] bool wait() noexcept {
    std::unique_lock guard(mutex_);
    for (const member* m = first_; m != nullptr; m = m->next) {
      if (m->runner == std::this_thread::get_id()) return false;
    }
    empty_.wait(guard, [this] { return first_ == nullptr; });
    return true;
  }

 private:
  std::mutex mutex_;
  std::condition_variable empty_;
  member* first_ = nullptr;  // guarded by mutex_
};

}  // namespace singleflight::inline SINGLEFLIGHT_ABI::detail

#endif  // SINGLEFLIGHT_DETAIL_EXECUTOR_CALLS_HPP
