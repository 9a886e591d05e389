// SPDX-License-Identifier: MIT
#ifndef SINGLEFLIGHT_DETAIL_FORK_HPP
#define SINGLEFLIGHT_DETAIL_FORK_HPP

#include <cstddef>
#include <exception>
#include <memory>
#include <new>
#include <span>

#include "../call_error.hpp"
#include "call_map.hpp"
#include "config.hpp"
#include "keep_alive.hpp"
#include "mutex.hpp"
#include "owned_calls.hpp"
#include "wait_graph.hpp"

#if !defined(_WIN32) && __has_include(<pthread.h>)
#include <pthread.h>
#define SINGLEFLIGHT_DETAIL_HAS_FORK
#endif

// What happens to groups when the process forks. The child has a copy of all memory and one thread,
// the one that forked: it lacks those that held locks, led calls and waited for them. So a fork
// happens while the forking thread holds the lock of every shard, and the child forgets the others.
//
// Order of the locks: the list of groups, the shards, the owned calls. The code takes the lock of
// the owned calls inside that of a shard, too. The wait graph is not locked: a child begins with
// an empty one.
//
// Each program and shared object has a list and handlers of its own, which end with it: a handler
// never calls code that dlclose has unmapped.
namespace singleflight::inline SINGLEFLIGHT_ABI::detail {

class group_list;

/// What the list knows of a group.
class group_in_list {
 public:
  explicit group_in_list(group_list& all) noexcept : all_(all) {}
  group_in_list(const group_in_list&) = delete;  // linked by address
  group_in_list& operator=(const group_in_list&) = delete;

  virtual void lock_before_fork() noexcept = 0;
  virtual void unlock_in_parent() noexcept = 0;
  virtual void unlock_in_child(const std::exception_ptr& lost) noexcept = 0;

 protected:
  ~group_in_list() = default;

  /// To be called by the final class: a fork while only this base exists would call a pure virtual
  /// function.
  void enter_list() noexcept;
  void leave_list() noexcept;

 private:
  friend class group_list;

  group_list& all_;
  group_in_list* next_ = nullptr;   // guarded by the mutex of the list
  group_in_list** link_ = nullptr;  // likewise: what points at this one
};

/// The groups that one program or shared object has made.
class group_list {
 public:
#if defined(SINGLEFLIGHT_DETAIL_HAS_FORK)

  void add(group_in_list& g) noexcept {
    pthread_mutex_lock(&mutex_);
    g.next_ = first_;
    g.link_ = &first_;
    if (first_ != nullptr) first_->link_ = &g.next_;
    first_ = &g;
    pthread_mutex_unlock(&mutex_);
  }

  void remove(group_in_list& g) noexcept {
    pthread_mutex_lock(&mutex_);
    *g.link_ = g.next_;
    if (g.next_ != nullptr) g.next_->link_ = g.link_;
    pthread_mutex_unlock(&mutex_);
  }

  void before_fork() noexcept {
    pthread_mutex_lock(&mutex_);
    if (first_ != nullptr) static_cast<void>(lost());  // not in the child: it allocates
    for (group_in_list* g = first_; g != nullptr; g = g->next_) g->lock_before_fork();
  }

  void after_fork_in_parent() noexcept {
    for (group_in_list* g = first_; g != nullptr; g = g->next_) g->unlock_in_parent();
    pthread_mutex_unlock(&mutex_);
  }

  void after_fork_in_child() noexcept {
    the_wait_graph().renew_after_fork();
    for (group_in_list* g = first_; g != nullptr; g = g->next_) g->unlock_in_child(lost());
    pthread_mutex_unlock(&mutex_);
  }

 private:
  /// Returns: what holders of futures get in a child. Never destroyed, as the list.
  [[nodiscard]] static const std::exception_ptr& lost() noexcept {
    alignas(std::exception_ptr) static std::byte room[sizeof(std::exception_ptr)];
    static const std::exception_ptr& error =
        *::new (room) std::exception_ptr(make_call_error(reason::lost_in_fork));
    return error;
  }

  pthread_mutex_t mutex_ = PTHREAD_MUTEX_INITIALIZER;  // never destroyed: exit may destroy groups
  group_in_list* first_ = nullptr;                     // later than what was made before them

#else

  void add(group_in_list&) noexcept {}
  void remove(group_in_list&) noexcept {}

#endif
};

SINGLEFLIGHT_DETAIL_ONE_PER_IMAGE inline constinit group_list groups_of_this_image;

inline void group_in_list::enter_list() noexcept { all_.add(*this); }
inline void group_in_list::leave_list() noexcept { all_.remove(*this); }

#if defined(SINGLEFLIGHT_DETAIL_HAS_FORK)

/// Before main, and so before most other handlers: a handler that is registered later prepares
/// earlier, so that a lock which is held around calls of a group is taken before the group's.
SINGLEFLIGHT_DETAIL_ONE_PER_IMAGE inline const int handlers_of_forks = pthread_atfork(
    [] { groups_of_this_image.before_fork(); }, [] { groups_of_this_image.after_fork_in_parent(); },
    [] { groups_of_this_image.after_fork_in_child(); });

#endif

/// The head of a block of memory with the shards of a group: the group in the list, and its owned
/// calls.
template <class Key, class Value>
class registered_group final : public group_in_list, public counted_block {
 public:
  using shard = call_map<Key, Value>;

  /// Makes a block with that many shards, which frees itself when no `block_ptr` points at it.
  /// Returns: the first of the shards. Throws: `std::bad_alloc`.
  [[nodiscard]] static shard* make(std::size_t count) {
    constexpr std::size_t head_size = shards_of_head();
    shard* const first = memory().allocate(head_size + count) + head_size;
    try {
      std::uninitialized_default_construct_n(first, count);
    } catch (...) {
      memory().deallocate(first - head_size, head_size + count);
      throw;
    }
    ::new (static_cast<void*>(first - head_size)) registered_group({first, count});
    return first;
  }

  /// Returns: the head of the block that has these shards.
  [[nodiscard]] static registered_group& before(shard* first) noexcept {
    return *std::launder(reinterpret_cast<registered_group*>(first - shards_of_head()));
  }

  void lock_before_fork() noexcept override SINGLEFLIGHT_NOT_ANALYSED {
    for (auto& s : shards_) s.mutex.lock_before_fork();
    owned.lock_before_fork();
  }

  void unlock_in_parent() noexcept override SINGLEFLIGHT_NOT_ANALYSED {
    owned.unlock_after_fork();
    for (auto& s : shards_) s.mutex.unlock_after_fork();
  }

  void unlock_in_child(const std::exception_ptr& lost) noexcept override SINGLEFLIGHT_NOT_ANALYSED {
    owned.forget_other_threads();
    for (auto& s : shards_) {
      owned.remove_asynchronous(s.forget_other_threads(lost));
      s.mutex.renew_after_fork();
    }
  }

  owned_calls owned;

 private:
  // Not new[]: g++ for 32-bit ARM does not align what that makes.
  using memory = std::allocator<shard>;

  explicit registered_group(std::span<shard> shards) noexcept
      : group_in_list(groups_of_this_image), shards_(shards) {
    static_assert(alignof(registered_group) <= alignof(shard));
    enter_list();
  }
  ~registered_group() { leave_list(); }

  void free() noexcept override {
    const std::span<shard> all = shards_;
    this->~registered_group();
    std::destroy_n(all.data(), all.size());
    memory().deallocate(all.data() - shards_of_head(), shards_of_head() + all.size());
  }

  /// Returns: the room that the head of the block takes, in shards.
  [[nodiscard]] static constexpr std::size_t shards_of_head() noexcept {
    return (sizeof(registered_group) + sizeof(shard) - 1) / sizeof(shard);
  }

  const std::span<shard> shards_;
};

}  // namespace singleflight::inline SINGLEFLIGHT_ABI::detail

#undef SINGLEFLIGHT_DETAIL_HAS_FORK

#endif  // SINGLEFLIGHT_DETAIL_FORK_HPP
