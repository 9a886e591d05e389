// SPDX-License-Identifier: MIT
// Counts the memory that a program allocates, and lets a test refuse it. A program that is linked
// with replaced_new.cpp has this: that file replaces operator new.
#ifndef SINGLEFLIGHT_TESTS_REPLACED_NEW_HPP
#define SINGLEFLIGHT_TESTS_REPLACED_NEW_HPP

#include <atomic>
#include <cstdint>

#include "sanitizers.hpp"

// The runtime of clang's ThreadSanitizer has an operator new that cannot be replaced, and on Windows
// each DLL keeps its own: memory would be allocated by one and freed by the other.
#if (defined(__clang__) && defined(SINGLEFLIGHT_TESTS_TSAN)) || defined(_WIN32)
#define SINGLEFLIGHT_TESTS_KEEP_NEW
#endif

namespace support {

#if defined(SINGLEFLIGHT_TESTS_KEEP_NEW)
inline constexpr bool replaces_new = false;  // nothing is counted or refused
#else
inline constexpr bool replaces_new = true;
#endif

/// Asked at each allocation of this thread, if it is not null. Must not allocate.
inline thread_local bool (*grants_allocation)() noexcept = nullptr;

struct allocation_counts {
  std::uint64_t blocks = 0;
  std::uint64_t bytes = 0;
};

/// Memory that this thread has allocated since it began.
inline thread_local allocation_counts allocated_by_this_thread;

/// Bytes that all threads have allocated and not freed.
inline std::atomic<std::int64_t> live_bytes{0};

}  // namespace support

#endif  // SINGLEFLIGHT_TESTS_REPLACED_NEW_HPP
