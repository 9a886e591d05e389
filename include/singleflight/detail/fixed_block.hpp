// SPDX-License-Identifier: MIT
#ifndef SINGLEFLIGHT_DETAIL_FIXED_BLOCK_HPP
#define SINGLEFLIGHT_DETAIL_FIXED_BLOCK_HPP

#include <cstddef>
#include <memory>
#include <utility>

#include "assert.hpp"
#include "config.hpp"

namespace singleflight::inline SINGLEFLIGHT_ABI::detail {

/// Room for a number of objects that do not move, in one block of memory, which the first object
/// allocates.
template <class T>
class fixed_block {
 public:
  explicit fixed_block(std::size_t capacity) noexcept : capacity_(capacity) {}
  fixed_block(const fixed_block&) = delete;  // objects are linked by address
  fixed_block& operator=(const fixed_block&) = delete;
  ~fixed_block() {
    clear();
    if (first_ != nullptr) std::allocator<T>().deallocate(first_, capacity_);
  }

  /// Throws: `std::bad_alloc`, what the constructor throws, and then there is no new object.
  template <class... Args>
  T& emplace_back(Args&&... args) {
    SINGLEFLIGHT_ASSERT(size_ < capacity_, "a range must not have more keys than it says");
    if (first_ == nullptr) first_ = std::allocator<T>().allocate(capacity_);
    T* const made = std::construct_at(first_ + size_, std::forward<Args>(args)...);
    ++size_;
    return *made;
  }

  void pop_back() noexcept { std::destroy_at(first_ + --size_); }
  void clear() noexcept {
    while (size_ > 0) pop_back();
  }

  [[nodiscard]] std::size_t size() const noexcept { return size_; }
  [[nodiscard]] T* begin() noexcept { return first_; }
  [[nodiscard]] T* end() noexcept { return first_ + size_; }

 private:
  const std::size_t capacity_;
  std::size_t size_ = 0;
  T* first_ = nullptr;
};

}  // namespace singleflight::inline SINGLEFLIGHT_ABI::detail

#endif  // SINGLEFLIGHT_DETAIL_FIXED_BLOCK_HPP
