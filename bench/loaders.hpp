// SPDX-License-Identifier: MIT
#ifndef SINGLEFLIGHT_BENCH_LOADERS_HPP
#define SINGLEFLIGHT_BENCH_LOADERS_HPP

#include <array>
#include <chrono>
#include <thread>

namespace bench {

/// A loader that returns at once, keeps a processor busy, or sleeps as if it waited for a database.
struct loader {
  enum class way { busy, asleep };

  const char* name;
  std::chrono::microseconds time;
  way spends_it;

  void operator()() const {
    if (time == std::chrono::microseconds::zero()) return;
    if (spends_it == way::asleep) {
      std::this_thread::sleep_for(time);
      return;
    }
    const auto end = std::chrono::steady_clock::now() + time;
    while (std::chrono::steady_clock::now() < end) {
    }
  }
};

/// There is no sleep of 10 µs, since the kernel would add 50 µs to it.
inline constexpr std::array loaders = {
    loader{"none", std::chrono::microseconds(0), loader::way::busy},
    loader{"10us_busy", std::chrono::microseconds(10), loader::way::busy},
    loader{"1ms_busy", std::chrono::microseconds(1'000), loader::way::busy},
    loader{"1ms_asleep", std::chrono::microseconds(1'000), loader::way::asleep},
    loader{"10ms_asleep", std::chrono::microseconds(10'000), loader::way::asleep},
};

}  // namespace bench

#endif  // SINGLEFLIGHT_BENCH_LOADERS_HPP
