// SPDX-License-Identifier: MIT
#ifndef SINGLEFLIGHT_TESTS_SCHEDULES_ALLOCATIONS_HPP
#define SINGLEFLIGHT_TESTS_SCHEDULES_ALLOCATIONS_HPP

#include <cstddef>

namespace schedules {

/// How many memory blocks `operator new` has given out and not got back. No thread but one asks.
[[nodiscard]] std::ptrdiff_t blocks_alive() noexcept;

}  // namespace schedules

#endif  // SINGLEFLIGHT_TESTS_SCHEDULES_ALLOCATIONS_HPP
