// SPDX-License-Identifier: MIT
#include "counted.hpp"

#include <pthread.h>

#include <cstddef>
#include <cstdlib>
#include <new>

namespace {

thread_local bench::counts of_this_thread;

void count_allocation(std::size_t size) noexcept {
  ++of_this_thread.allocations;
  of_this_thread.bytes += size;
}

[[gnu::noinline]]  // else gcc 12 inlines half of a pair and warns that new is freed by free
void release(void* p) noexcept {
  std::free(p);
}

}  // namespace

namespace bench {
counts counts_of_this_thread() noexcept { return of_this_thread; }
}  // namespace bench

// The forms that are not here call one of these.
void* operator new(std::size_t size) {
  count_allocation(size);
  if (void* p = std::malloc(size > 0 ? size : 1)) return p;
  throw std::bad_alloc();
}
void* operator new(std::size_t size, std::align_val_t alignment) {
  count_allocation(size);
  const auto unit = static_cast<std::size_t>(alignment);
  if (void* p = std::aligned_alloc(unit, (size + unit - 1) / unit * unit)) return p;
  throw std::bad_alloc();
}
void operator delete(void* p) noexcept { release(p); }
void operator delete(void* p, std::size_t /*size*/) noexcept { release(p); }
void operator delete(void* p, std::align_val_t /*alignment*/) noexcept { release(p); }
void operator delete(void* p, std::size_t /*size*/, std::align_val_t /*alignment*/) noexcept {
  release(p);
}

// NOLINTBEGIN(bugprone-reserved-identifier,readability-identifier-naming): the linker's names
extern "C" int __real_pthread_mutex_lock(pthread_mutex_t* mutex);
extern "C" int __wrap_pthread_mutex_lock(pthread_mutex_t* mutex) {
  ++of_this_thread.mutexes;
  return __real_pthread_mutex_lock(mutex);
}
// NOLINTEND(bugprone-reserved-identifier,readability-identifier-naming)
