// SPDX-License-Identifier: MIT
#ifndef SINGLEFLIGHT_TESTS_SCHEDULES_ALLOCATIONS_HPP
#define SINGLEFLIGHT_TESTS_SCHEDULES_ALLOCATIONS_HPP

#include <cstddef>

namespace schedules {

/// How many memory blocks `operator new` has given out to this thread and not got back. Nothing
/// under AddressSanitizer, which finds leaks itself and does not like its `operator new` replaced.
[[nodiscard]] std::ptrdiff_t blocks_alive() noexcept;

}  // namespace schedules

#endif  // SINGLEFLIGHT_TESTS_SCHEDULES_ALLOCATIONS_HPP
