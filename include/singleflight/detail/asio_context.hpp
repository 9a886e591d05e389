// SPDX-License-Identifier: MIT
#ifndef SINGLEFLIGHT_DETAIL_ASIO_CONTEXT_HPP
#define SINGLEFLIGHT_DETAIL_ASIO_CONTEXT_HPP

#include <condition_variable>
#include <cstddef>
#include <memory>
#include <mutex>
#include <utility>

#include "config.hpp"
#include "mutex.hpp"

// The operations that wait in an execution context of Asio. A call may end after the context is
// gone, so the context drops them when it is destroyed, as it does with those of sockets and
// timers.
namespace singleflight::inline SINGLEFLIGHT_ABI::detail {

class context_members;
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
  [[nodiscard]] bool join(std::shared_ptr<context_members> all) noexcept;

  /// Returns: false if the context has ended it. The context may go at once.
  [[nodiscard]] bool leave() noexcept;

  /// As `leave`. If it returns true, the context stays until `end_post`, so that what the operation
  /// holds of it can be used, or destroyed.
  [[nodiscard]] bool leave_to_post() noexcept;
  void end_post() noexcept;

  [[nodiscard]] const std::shared_ptr<context_members>& all() const noexcept { return all_; }

 private:
  friend class context_members;

  context_member& member_;
  std::shared_ptr<context_members> all_;  // fixed while it is a member
  // Guarded by the mutex of the members.
  membership* next_ = nullptr;
  membership** link_ = nullptr;  // what points at this one; null: it is no member
};

/// The members of one context. Outlives the context as long as somebody has it.
class context_members {
 public:
  context_members() = default;
  context_members(const context_members&) = delete;  // linked by address
  context_members& operator=(const context_members&) = delete;
  ~context_members() = default;

  // What a membership does: see there.

  [[nodiscard]] bool add(membership& m) noexcept {
    const lock guard(mutex_);
    if (closed_) return false;
    link(m);
    return true;
  }

  [[nodiscard]] bool remove(membership& m) noexcept {
    const lock guard(mutex_);
    return unlink(m);
  }

  [[nodiscard]] bool remove_to_post(membership& m) noexcept {
    const lock guard(mutex_);
    if (!unlink(m)) return false;
    ++posting_;
    return true;
  }

  /// Keeps the context, and its members, until `end_post`. Returns: false if it is being destroyed.
  [[nodiscard]] bool begin_post() noexcept {
    const lock guard(mutex_);
    if (closed_) return false;
    ++posting_;
    return true;
  }

  /// To be called after `begin_post`, or when an operation that has left to post has posted.
  void end_post() noexcept {
    const lock guard(mutex_);
    if (--posting_ == 0) posted_.notify_one();
  }

  /// Drops the members. Blocks: while other threads use the context.
  void close() noexcept {
    admit_no_more();
    await_posts();
    while (const std::shared_ptr<membership> ended = end_one()) {
      ended->member_.context_gone(*ended);
    }
    await_posts();
  }

 private:
  void admit_no_more() noexcept {
    const lock guard(mutex_);
    closed_ = true;
  }

  /// Returns: a membership that it has ended, with its member; null if there is none.
  [[nodiscard]] std::shared_ptr<membership> end_one() noexcept {
    const lock guard(mutex_);
    if (first_ == nullptr) return nullptr;
    membership& m = *first_;
    static_cast<void>(unlink(m));
    return std::shared_ptr<membership>(m.member_.keep(), &m);
  }

  void await_posts() noexcept SINGLEFLIGHT_NOT_ANALYSED {
    std::unique_lock guard(mutex_.standard());
    posted_.wait(guard, [this]() SINGLEFLIGHT_NOT_ANALYSED { return posting_ == 0; });
  }

  void link(membership& m) noexcept SINGLEFLIGHT_REQUIRES(mutex_) {
    m.next_ = first_;
    if (first_ != nullptr) first_->link_ = &m.next_;
    m.link_ = &first_;
    first_ = &m;
  }

  [[nodiscard]] bool unlink(membership& m) noexcept SINGLEFLIGHT_REQUIRES(mutex_) {
    if (m.link_ == nullptr) return false;
    *m.link_ = m.next_;
    if (m.next_ != nullptr) m.next_->link_ = m.link_;
    m.link_ = nullptr;
    return true;
  }

  detail::mutex mutex_;
  std::condition_variable posted_;
  membership* first_ SINGLEFLIGHT_GUARDED_BY(mutex_) = nullptr;
  std::size_t posting_ SINGLEFLIGHT_GUARDED_BY(mutex_) = 0;
  bool closed_ SINGLEFLIGHT_GUARDED_BY(mutex_) = false;
};

inline bool membership::join(std::shared_ptr<context_members> all) noexcept {
  all_ = std::move(all);
  return all_ == nullptr || all_->add(*this);
}
inline bool membership::leave() noexcept { return all_ == nullptr || all_->remove(*this); }
inline bool membership::leave_to_post() noexcept {
  return all_ == nullptr || all_->remove_to_post(*this);
}
inline void membership::end_post() noexcept {
  if (all_ != nullptr) all_->end_post();
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
