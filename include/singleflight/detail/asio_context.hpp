// SPDX-License-Identifier: MIT
#ifndef SINGLEFLIGHT_DETAIL_ASIO_CONTEXT_HPP
#define SINGLEFLIGHT_DETAIL_ASIO_CONTEXT_HPP

#include <condition_variable>
#include <cstddef>
#include <memory>
#include <mutex>
#include <utility>

#include "config.hpp"

// The operations that wait in an execution context of Asio. A call may end after the context is
// gone, so the context drops them when it is destroyed, as it does with those of sockets and
// timers.
namespace singleflight::inline SINGLEFLIGHT_ABI::detail {

class membership;

class context_member {
 public:
  context_member() = default;
  context_member(const context_member&) = delete;
  context_member& operator=(const context_member&) = delete;

  /// The context is being destroyed. `of`: this one's membership in it, which is over.
  virtual void context_gone(const membership& of) noexcept = 0;
  [[nodiscard]] virtual std::shared_ptr<context_member> keep() noexcept = 0;

 protected:
  ~context_member() = default;
};

/// The members of one context. Outlives the context as long as somebody has it.
class context_members {
 public:
  context_members() = default;
  context_members(const context_members&) = delete;  // linked by address
  context_members& operator=(const context_members&) = delete;
  ~context_members() = default;

  /// Drops them. Blocks: while other threads give completions to the context.
  void close() noexcept;

  /// Keeps the context until `end_post`. Returns: false if it is being destroyed.
  [[nodiscard]] bool begin_post() noexcept {
    const std::lock_guard guard(mutex_);
    if (!closed_) ++posting_;
    return !closed_;
  }

  /// To be called after `begin_post`, or when an operation that has left to post has posted.
  void end_post() noexcept {
    const std::lock_guard guard(mutex_);
    if (--posting_ == 0 && closed_) posted_.notify_one();
  }

 private:
  friend class membership;

  std::mutex mutex_;
  std::condition_variable posted_;
  // Guarded by mutex_.
  membership* first_ = nullptr;
  std::size_t posting_ = 0;
  bool closed_ = false;
};

/// One operation's membership in a context. Whoever ends it, the operation or the end of the
/// context, has the right to what the operation holds of that context.
class membership {
 public:
  explicit membership(context_member& member) noexcept : member_(member) {}
  membership(const membership&) = delete;  // linked by address
  membership& operator=(const membership&) = delete;
  ~membership() = default;

  /// Returns: false if the context is being destroyed. Where there is no context, there is no end
  ///   of it.
  [[nodiscard]] bool join(std::shared_ptr<context_members> all) noexcept {
    all_ = std::move(all);
    if (all_ == nullptr) return true;
    const std::lock_guard guard(all_->mutex_);
    if (all_->closed_) return false;
    next_ = all_->first_;
    if (next_ != nullptr) next_->link_ = &next_;
    link_ = &all_->first_;
    all_->first_ = this;
    return true;
  }

  /// Returns: false if the context has ended it.
  [[nodiscard]] bool leave() noexcept {
    if (all_ == nullptr) return true;
    const std::lock_guard guard(all_->mutex_);
    return unlink();
  }

  /// As `leave`. If it returns true, the context stays until `end_post`.
  [[nodiscard]] bool leave_to_post() noexcept {
    if (all_ == nullptr) return true;
    const std::lock_guard guard(all_->mutex_);
    if (!unlink()) return false;
    ++all_->posting_;
    return true;
  }

  /// Returns: false if the context has ended it.
  [[nodiscard]] bool lasts() const noexcept {
    if (all_ == nullptr) return true;
    const std::lock_guard guard(all_->mutex_);
    return link_ != nullptr;
  }

  [[nodiscard]] const std::shared_ptr<context_members>& all() const noexcept { return all_; }

 private:
  friend class context_members;

  bool unlink() noexcept {
    if (link_ == nullptr) return false;
    *link_ = next_;
    if (next_ != nullptr) next_->link_ = link_;
    link_ = nullptr;
    return true;
  }

  context_member& member_;
  std::shared_ptr<context_members> all_;  // fixed while it is a member
  // Guarded by the mutex of the members.
  membership* next_ = nullptr;
  membership** link_ = nullptr;  // what points at this one; null: it is no member
};

inline void context_members::close() noexcept {
  std::unique_lock guard(mutex_);
  closed_ = true;
  while (membership* const m = first_) {
    const std::shared_ptr<context_member> kept = m->member_.keep();
    m->unlink();
    guard.unlock();
    kept->context_gone(*m);
    guard.lock();
  }
  posted_.wait(guard, [this] { return posting_ == 0; });
}

/// The service by which a context knows its members. `Asio`: see asio_operation.hpp.
template <class Asio>
class context_service final : public Asio::execution_context::service {
 public:
  inline static typename Asio::execution_context::id id;

  explicit context_service(typename Asio::execution_context& context)
      : Asio::execution_context::service(context), all_(std::make_shared<context_members>()) {}

  [[nodiscard]] const std::shared_ptr<context_members>& all() const noexcept { return all_; }

 private:
  void shutdown() noexcept override { all_->close(); }

  const std::shared_ptr<context_members> all_;
};

}  // namespace singleflight::inline SINGLEFLIGHT_ABI::detail

#endif  // SINGLEFLIGHT_DETAIL_ASIO_CONTEXT_HPP
