// SPDX-License-Identifier: MIT
// Measures how fast followers wake: its threads are known to sleep until a loader ends.
#ifndef SINGLEFLIGHT_BENCH_HERD_HPP
#define SINGLEFLIGHT_BENCH_HERD_HPP

#include <algorithm>
#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstddef>
#include <functional>
#include <mutex>
#include <thread>
#include <utility>
#include <vector>

#include "thread_state.hpp"

namespace bench {

/// The times at which the threads of a herd were back, counted from the end of the loader.
struct wake_up {
  std::chrono::nanoseconds leader;
  std::chrono::nanoseconds median;  // of the followers
  std::chrono::nanoseconds last;    // of all, the leader included
};

/// N threads that follow, again and again, a call that the thread that owns the herd leads.
class herd {
 public:
  using clock = std::chrono::steady_clock;

  explicit herd(std::size_t n) : returned_(n) {
    threads_.reserve(n);
    for (std::size_t i = 0; i < n; ++i) threads_.emplace_back([this, i] { live(i); });
    await([this] { return states_.size() == threads_.size(); });
  }
  herd(const herd&) = delete;  // its threads point at it
  herd& operator=(const herd&) = delete;
  ~herd() {
    release([] {}, true);
    for (std::thread& thread : threads_) thread.join();
  }

  /// One round. `lead(loader)` makes a call on this thread whose loader is `loader`, which ends
  /// when every other thread sleeps in `follow()`, called after the loader has begun.
  template <class Lead, class Follow>
  wake_up wake(const Lead& lead, const Follow& follow) {
    clock::time_point loaded;
    lead([&] {
      release(follow, false);
      await_asleep();
      loaded = clock::now();
    });
    const auto back = clock::now();
    await([this] { return back_ == threads_.size(); });
    std::sort(returned_.begin(), returned_.end());
    return {.leader = back - loaded,
            .median = returned_[returned_.size() / 2] - loaded,
            .last = std::max(returned_.back(), back) - loaded};
  }

 private:
  void live(std::size_t i) {
    add_state();
    for (std::size_t round = 1;; ++round) {
      std::function<void()> follow;
      {
        std::unique_lock lock(mutex_);
        gate_.wait(lock, [&] { return round_ == round; });
        if (over_) return;
        follow = follow_;
        ++entered_;
      }
      follow();
      returned_[i] = clock::now();
      if (++back_ < threads_.size()) continue;
      const std::lock_guard lock(mutex_);
      progress_.notify_one();
    }
  }

  void add_state() {
    const std::lock_guard lock(mutex_);
    states_.emplace_back();
    progress_.notify_one();
  }

  void release(std::function<void()> follow, bool over) {
    const std::lock_guard lock(mutex_);
    follow_ = std::move(follow);
    over_ = over;
    entered_ = 0;
    back_ = 0;
    ++round_;
    gate_.notify_all();
  }

  template <class Condition>
  void await(const Condition& condition) {
    std::unique_lock lock(mutex_);
    progress_.wait(lock, condition);
  }

  /// Waits until all have entered and sleep, as the kernel says. This does not depend on
  /// the call that they follow. A thread that sleeps for a moment, for a lock, is found awake by
  /// one of the next looks.
  void await_asleep() {
    const auto entered = [this] {
      const std::lock_guard lock(mutex_);
      return entered_ == threads_.size();
    };
    const auto asleep = [](const thread_state& state) { return state.asleep(); };
    for (int in_a_row = 0; in_a_row < 3;) {
      const bool all = entered() && std::all_of(states_.begin(), states_.end(), asleep);
      in_a_row = all ? in_a_row + 1 : 0;
      std::this_thread::yield();
    }
  }

  std::vector<clock::time_point> returned_;  // each written by its thread, during a round
  std::atomic<std::size_t> back_{0};
  std::mutex mutex_;
  std::condition_variable gate_, progress_;
  std::vector<thread_state> states_;  // fixed when the herd has been made
  // Guarded by mutex_.
  std::function<void()> follow_;
  std::size_t round_ = 0, entered_ = 0;
  bool over_ = false;

  std::vector<std::thread> threads_;  // last: they use the others
};

}  // namespace bench

#endif  // SINGLEFLIGHT_BENCH_HERD_HPP
