// SPDX-License-Identifier: MIT
#ifndef SINGLEFLIGHT_BENCH_CONTEST_HPP
#define SINGLEFLIGHT_BENCH_CONTEST_HPP

#include <atomic>
#include <chrono>
#include <cstddef>
#include <latch>
#include <thread>
#include <vector>

namespace bench {

/// Runs `body(i, stop)` on n threads that begin together, and tells them to stop after `time`.
/// Returns: the time from the start until the last thread has stopped.
template <class Body>
std::chrono::duration<double> contest(std::size_t n, std::chrono::duration<double> time,
                                      const Body& body) {
  std::latch ready(static_cast<std::ptrdiff_t>(n) + 1);
  std::atomic<bool> stop{false};
  std::vector<std::thread> threads;
  threads.reserve(n);
  for (std::size_t i = 0; i < n; ++i) {
    threads.emplace_back([&, i] {
      ready.arrive_and_wait();
      body(i, stop);
    });
  }
  ready.arrive_and_wait();
  const auto began = std::chrono::steady_clock::now();
  std::this_thread::sleep_for(time);
  stop.store(true);
  for (std::thread& thread : threads) thread.join();
  return std::chrono::steady_clock::now() - began;
}

}  // namespace bench

#endif  // SINGLEFLIGHT_BENCH_CONTEST_HPP
