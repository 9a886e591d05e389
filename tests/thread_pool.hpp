// SPDX-License-Identifier: MIT
#ifndef SINGLEFLIGHT_TESTS_THREAD_POOL_HPP
#define SINGLEFLIGHT_TESTS_THREAD_POOL_HPP

#include <condition_variable>
#include <deque>
#include <functional>
#include <mutex>
#include <thread>
#include <utility>
#include <vector>

namespace support {

/// Threads that run tasks in the order in which they were posted. The destructor runs what is queued.
class thread_pool {
 public:
  explicit thread_pool(int threads) {
    for (int i = 0; i < threads; ++i) threads_.emplace_back([this] { work(); });
  }
  thread_pool(const thread_pool&) = delete;
  thread_pool& operator=(const thread_pool&) = delete;
  ~thread_pool() {
    {
      const std::lock_guard lock(mutex_);
      closed_ = true;
    }
    changed_.notify_all();
    for (std::thread& t : threads_) t.join();
  }

  void post(std::function<void()> task) {
    {
      const std::lock_guard lock(mutex_);
      tasks_.push_back(std::move(task));
    }
    changed_.notify_one();
  }
  /// Runs the first of the queued tasks on this thread, if there is one.
  void help() {
    std::unique_lock lock(mutex_);
    if (!tasks_.empty()) run_first(lock);
  }

 private:
  void work() {
    for (std::unique_lock lock(mutex_);;) {
      changed_.wait(lock, [this] { return closed_ || !tasks_.empty(); });
      if (tasks_.empty()) return;
      run_first(lock);
      lock.lock();
    }
  }

  /// Releases the lock.
  void run_first(std::unique_lock<std::mutex>& lock) {
    const auto task = std::move(tasks_.front());
    tasks_.pop_front();
    lock.unlock();
    task();
  }

  std::mutex mutex_;
  std::condition_variable changed_;
  std::deque<std::function<void()>> tasks_;  // guarded by mutex_
  bool closed_ = false;                      // guarded by mutex_
  std::vector<std::thread> threads_;
};

}  // namespace support

#endif  // SINGLEFLIGHT_TESTS_THREAD_POOL_HPP
