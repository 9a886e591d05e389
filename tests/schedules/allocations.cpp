// SPDX-License-Identifier: MIT
#include "allocations.hpp"

#include <cstdlib>
#include <new>

#include "sanitizer.hpp"

#if SCHEDULES_ASAN

std::ptrdiff_t schedules::blocks_alive() noexcept { return 0; }

#else

namespace {

thread_local std::ptrdiff_t blocks = 0;

void* take(void* block) {
  if (block == nullptr) throw std::bad_alloc();
  ++blocks;
  return block;
}

void give_back(void* block) noexcept {
  if (block != nullptr) --blocks;
  std::free(block);
}

}  // namespace

std::ptrdiff_t schedules::blocks_alive() noexcept { return blocks; }

void* operator new(std::size_t size) { return take(std::malloc(size)); }
void* operator new(std::size_t size, std::align_val_t alignment) {
  const auto step = static_cast<std::size_t>(alignment);
  return take(std::aligned_alloc(step, (size + step - 1) / step * step));
}
void operator delete(void* block) noexcept { give_back(block); }
void operator delete(void* block, std::size_t) noexcept { give_back(block); }
void operator delete(void* block, std::align_val_t) noexcept { give_back(block); }
void operator delete(void* block, std::size_t, std::align_val_t) noexcept { give_back(block); }

#endif  // SCHEDULES_ASAN
