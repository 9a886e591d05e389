// SPDX-License-Identifier: MIT
#ifndef SINGLEFLIGHT_DETAIL_KEEP_ALIVE_HPP
#define SINGLEFLIGHT_DETAIL_KEEP_ALIVE_HPP

#include <atomic>
#include <cstdint>
#include <utility>

#include "config.hpp"

namespace singleflight::inline SINGLEFLIGHT_ABI::detail {

/// Memory that is freed when nobody needs it any more: the shards of a group, which asynchronous
/// calls may outlive the group with.
class counted_block {
 public:
  counted_block(const counted_block&) = delete;  // pointed at
  counted_block& operator=(const counted_block&) = delete;

  /// Says that the group is gone.
  void close() noexcept { closed_.store(true, std::memory_order_relaxed); }

 protected:
  counted_block() = default;
  ~counted_block() = default;

 private:
  friend class block_ptr;

  virtual void free() noexcept = 0;

  std::atomic<std::uint32_t> users_ = 0;
  std::atomic<bool> closed_ = false;
};

/// One user of such a block.
class block_ptr {
 public:
  block_ptr() = default;
  explicit block_ptr(counted_block& block) noexcept : block_(&block) {
    block_->users_.fetch_add(1, std::memory_order_relaxed);
  }
  block_ptr(const block_ptr& other) noexcept : block_(other.block_) {
    if (block_ != nullptr) block_->users_.fetch_add(1, std::memory_order_relaxed);
  }
  block_ptr& operator=(block_ptr other) noexcept {
    std::swap(block_, other.block_);
    return *this;
  }
  ~block_ptr() {
    if (block_ == nullptr || block_->users_.fetch_sub(1, std::memory_order_acq_rel) > 1) return;
    block_->free();
  }

  [[nodiscard]] explicit operator bool() const noexcept { return block_ != nullptr; }

  /// Returns: whether the group is gone.
  [[nodiscard]] bool closed() const noexcept {
    return block_->closed_.load(std::memory_order_relaxed);
  }

  /// Lets the block live for ever.
  void leak() noexcept { block_ = nullptr; }

 private:
  counted_block* block_ = nullptr;
};

}  // namespace singleflight::inline SINGLEFLIGHT_ABI::detail

#endif  // SINGLEFLIGHT_DETAIL_KEEP_ALIVE_HPP
