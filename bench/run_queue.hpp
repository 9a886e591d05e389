// SPDX-License-Identifier: MIT
#ifndef SINGLEFLIGHT_BENCH_RUN_QUEUE_HPP
#define SINGLEFLIGHT_BENCH_RUN_QUEUE_HPP

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <coroutine>
#include <cstddef>
#include <deque>
#include <functional>
#include <map>
#include <mutex>
#include <thread>
#include <utility>
#include <vector>

namespace bench {

/// Threads that run tasks in the order in which they were posted, and timers. It has one queue, one
/// mutex, and tasks as `std::function`. A thread looks for tasks for a while before it sleeps, as
/// in Go's scheduler.
class run_queue {
 public:
  using clock = std::chrono::steady_clock;
  using task = std::function<void()>;

  explicit run_queue(std::size_t threads) {
    threads_.reserve(threads);
    for (std::size_t i = 0; i < threads; ++i) threads_.emplace_back([this] { work(); });
  }
  run_queue(const run_queue&) = delete;  // its threads point at it
  run_queue& operator=(const run_queue&) = delete;
  /// Precondition: nothing is queued, and no timer runs.
  ~run_queue() {
    {
      const std::lock_guard lock(mutex_);
      closed_ = true;
      ++changes_;
    }
    changed_.notify_all();
    for (std::thread& thread : threads_) thread.join();
  }

  void post(task t) {
    bool wake = false;
    {
      const std::lock_guard lock(mutex_);
      tasks_.push_back(std::move(t));
      ++changes_;
      wake = asleep_ > 0;
    }
    if (wake) changed_.notify_one();
  }

  /// Returns: an executor for the library.
  [[nodiscard]] auto executor() {
    return [this](auto t) { post(std::move(t)); };
  }

  /// Returns: an awaitable. Its coroutine is resumed by one of the threads after this time.
  [[nodiscard]] auto sleep(clock::duration time) {
    struct awaiter {
      run_queue& queue;
      clock::time_point until;
      [[nodiscard]] bool await_ready() const noexcept { return false; }
      void await_suspend(std::coroutine_handle<> sleeper) const { queue.add_timer(until, sleeper); }
      void await_resume() const noexcept {}
    };
    return awaiter{*this, clock::now() + time};
  }

 private:
  void add_timer(clock::time_point at, std::coroutine_handle<> sleeper) {
    {
      const std::lock_guard lock(mutex_);
      timers_.emplace(at, sleeper);
      ++changes_;
    }
    changed_.notify_one();
  }

  void work() {
    for (std::unique_lock lock(mutex_);;) {
      if (!timers_.empty() && timers_.begin()->first <= clock::now()) {
        tasks_.emplace_back(timers_.extract(timers_.begin()).mapped());
      }
      if (!tasks_.empty()) {
        run_first(lock);
        lock.lock();
      } else if (closed_) {
        return;
      } else if (look_for_task(lock)) {
        continue;
      } else {
        sleep(lock);
      }
    }
  }

  void sleep(std::unique_lock<std::mutex>& lock) {
    ++asleep_;
    if (timers_.empty()) {
      changed_.wait(lock);
    } else {
      const clock::time_point next = timers_.begin()->first;  // not by reference into the map
      changed_.wait_until(lock, next);
    }
    --asleep_;
  }

  /// Releases the lock for a while. Returns: whether something has happened meanwhile.
  [[nodiscard]] bool look_for_task(std::unique_lock<std::mutex>& lock) {
    const std::size_t seen = changes_;
    lock.unlock();
    const auto end = clock::now() + std::chrono::microseconds(20);
    while (changes_.load(std::memory_order_relaxed) == seen && clock::now() < end) {
    }
    lock.lock();
    return changes_ != seen;
  }

  /// Releases the lock.
  void run_first(std::unique_lock<std::mutex>& lock) {
    const task first = std::move(tasks_.front());
    tasks_.pop_front();
    lock.unlock();
    first();
  }

  std::mutex mutex_;
  std::condition_variable changed_;
  // Guarded by mutex_.
  std::deque<task> tasks_;
  std::multimap<clock::time_point, std::coroutine_handle<>> timers_;
  bool closed_ = false;
  std::size_t asleep_ = 0;  // threads

  std::atomic<std::size_t> changes_{0};  // counts up under mutex_

  std::vector<std::thread> threads_;  // last: they use the others
};

}  // namespace bench

#endif  // SINGLEFLIGHT_BENCH_RUN_QUEUE_HPP
