// SPDX-License-Identifier: MIT
#include "replaced_new.hpp"

#if !defined(SINGLEFLIGHT_TESTS_KEEP_NEW)

#include <algorithm>
#include <cstddef>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <new>

namespace {

/// Stands in front of each block.
struct header {
  void* start;  // of what malloc returned
  std::size_t size;
};

// Relaxed: anything stronger would order the threads, and hide from ThreadSanitizer what the code
// under test does not order.
void count_live(std::int64_t bytes) noexcept {
  support::live_bytes.fetch_add(bytes, std::memory_order_relaxed);
}

void* allocate(std::size_t size, std::size_t alignment) noexcept {
  if (support::grants_allocation != nullptr && !support::grants_allocation()) return nullptr;
  alignment = std::max(alignment, std::size_t{__STDCPP_DEFAULT_NEW_ALIGNMENT__});
  std::size_t space = alignment + size;
  void* const start = std::malloc(sizeof(header) + space);
  if (start == nullptr) return nullptr;
  void* p = static_cast<std::byte*>(start) + sizeof(header);
  std::align(alignment, size, p, space);
  ::new (static_cast<header*>(p) - 1) header{start, size};
  ++support::allocated_by_this_thread.blocks;
  support::allocated_by_this_thread.bytes += size;
  count_live(static_cast<std::int64_t>(size));
  return p;
}

void* allocate_or_throw(std::size_t size, std::size_t alignment) {
  for (;;) {
    if (void* p = allocate(size, alignment)) return p;
    const std::new_handler handler = std::get_new_handler();
    if (handler == nullptr) throw std::bad_alloc();
    handler();
  }
}

constexpr auto unknown = static_cast<std::size_t>(-1);

// `size`: what it is said to be where it is freed. Inlined, it would have g++ warn that memory of
// operator new is freed (-Wmismatched-new-delete).
[[gnu::noinline]] void release(void* p, std::size_t size = unknown) noexcept {
  if (p == nullptr) return;
  const header block = *(static_cast<header*>(p) - 1);
  if (size != unknown && size != block.size) std::abort();
  count_live(-static_cast<std::int64_t>(block.size));
  std::memset(p, 0xDD, block.size);  // who still uses it is to fail
  std::free(block.start);
}

constexpr std::size_t unaligned = 1;

}  // namespace

void* operator new(std::size_t n) { return allocate_or_throw(n, unaligned); }
void* operator new(std::size_t n, std::align_val_t a) {
  return allocate_or_throw(n, static_cast<std::size_t>(a));
}
void* operator new(std::size_t n, const std::nothrow_t&) noexcept { return allocate(n, unaligned); }
void* operator new(std::size_t n, std::align_val_t a, const std::nothrow_t&) noexcept {
  return allocate(n, static_cast<std::size_t>(a));
}
void* operator new[](std::size_t n) { return allocate_or_throw(n, unaligned); }
void* operator new[](std::size_t n, std::align_val_t a) {
  return allocate_or_throw(n, static_cast<std::size_t>(a));
}
void* operator new[](std::size_t n, const std::nothrow_t&) noexcept {
  return allocate(n, unaligned);
}
void* operator new[](std::size_t n, std::align_val_t a, const std::nothrow_t&) noexcept {
  return allocate(n, static_cast<std::size_t>(a));
}
void operator delete(void* p) noexcept { release(p); }
void operator delete(void* p, std::size_t n) noexcept { release(p, n); }
void operator delete(void* p, std::align_val_t) noexcept { release(p); }
void operator delete(void* p, std::size_t n, std::align_val_t) noexcept { release(p, n); }
void operator delete(void* p, const std::nothrow_t&) noexcept { release(p); }
void operator delete(void* p, std::align_val_t, const std::nothrow_t&) noexcept { release(p); }
void operator delete[](void* p) noexcept { release(p); }
void operator delete[](void* p, std::size_t n) noexcept { release(p, n); }
void operator delete[](void* p, std::align_val_t) noexcept { release(p); }
void operator delete[](void* p, std::size_t n, std::align_val_t) noexcept { release(p, n); }
void operator delete[](void* p, const std::nothrow_t&) noexcept { release(p); }
void operator delete[](void* p, std::align_val_t, const std::nothrow_t&) noexcept { release(p); }

#endif
