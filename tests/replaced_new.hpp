// SPDX-License-Identifier: MIT
// Says of each allocation whether it is granted, in a program that replaces operator new: one that
// is linked with replaced_new.cpp.
#ifndef SINGLEFLIGHT_TESTS_REPLACED_NEW_HPP
#define SINGLEFLIGHT_TESTS_REPLACED_NEW_HPP

#include <atomic>

#include "support.hpp"

namespace support {

#if defined(SINGLEFLIGHT_TESTS_KEEP_NEW)
inline constexpr bool replaces_new = false;
#else
inline constexpr bool replaces_new = true;
#endif

/// Asked at each allocation of this thread, if it is not null. Must not allocate.
inline thread_local bool (*grants_allocation)() noexcept = nullptr;

/// Allocations that have not been given back, of all threads.
inline std::atomic<long> live_allocations{0};

}  // namespace support

#endif  // SINGLEFLIGHT_TESTS_REPLACED_NEW_HPP
