// SPDX-License-Identifier: MIT
#include "counted.hpp"

#include <pthread.h>

#include "../tests/replaced_new.hpp"

namespace {
thread_local std::uint64_t mutexes_of_this_thread = 0;
}

namespace bench {
counts counts_of_this_thread() noexcept {
  const auto [blocks, bytes] = support::allocated_by_this_thread;
  return {.allocations = blocks, .bytes = bytes, .mutexes = mutexes_of_this_thread};
}
}  // namespace bench

// NOLINTBEGIN(bugprone-reserved-identifier,readability-identifier-naming): the linker's names
extern "C" int __real_pthread_mutex_lock(pthread_mutex_t* mutex);
extern "C" int __wrap_pthread_mutex_lock(pthread_mutex_t* mutex) {
  ++mutexes_of_this_thread;
  return __real_pthread_mutex_lock(mutex);
}
// NOLINTEND(bugprone-reserved-identifier,readability-identifier-naming)
