// SPDX-License-Identifier: MIT
#ifndef SINGLEFLIGHT_BENCH_RESOURCE_HPP
#define SINGLEFLIGHT_BENCH_RESOURCE_HPP

#include <chrono>
#include <condition_variable>
#include <cstddef>
#include <mutex>
#include <thread>

namespace bench {

/// A resource of limited capacity, such as a database: a number of connections, each of which takes
/// its time for a query. A caller that finds none free waits.
class resource {
 public:
  static constexpr std::size_t slots = 8;
  static constexpr std::chrono::milliseconds service_time{2};

  void query() {
    {
      std::unique_lock lock(mutex_);
      freed_.wait(lock, [this] { return free_ > 0; });
      --free_;
    }
    std::this_thread::sleep_for(service_time);
    const std::lock_guard lock(mutex_);
    ++free_;
    freed_.notify_one();
  }

 private:
  std::mutex mutex_;
  std::condition_variable freed_;
  std::size_t free_ = slots;
};

}  // namespace bench

#endif  // SINGLEFLIGHT_BENCH_RESOURCE_HPP
