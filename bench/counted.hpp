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

/// Returns: what this thread has done since it began. counted.cpp, which a program links to have
/// this, replaces operator new; the program is linked with -Wl,--wrap=pthread_mutex_lock.
[[nodiscard]] counts counts_of_this_thread() noexcept;

}  // namespace bench

#endif  // SINGLEFLIGHT_BENCH_COUNTED_HPP
