// SPDX-License-Identifier: MIT
#ifndef SINGLEFLIGHT_BENCH_COUNTED_HPP
#define SINGLEFLIGHT_BENCH_COUNTED_HPP

#include <cstdint>

namespace bench {

struct counts {
  std::uint64_t allocations = 0;
  std::uint64_t bytes = 0;
  std::uint64_t mutexes = 0;  // pthread mutexes locked; spin locks are not seen
};

/// Returns: what this thread has done since it began. A program that calls this is linked with
/// counted.cpp, tests/replaced_new.cpp and -Wl,--wrap=pthread_mutex_lock.
[[nodiscard]] counts counts_of_this_thread() noexcept;

}  // namespace bench

#endif  // SINGLEFLIGHT_BENCH_COUNTED_HPP
