// SPDX-License-Identifier: MIT
// Makes one use of something fail that a group uses: the first, the second and so on, until an
// operation no longer gets as far.
#ifndef SINGLEFLIGHT_TESTS_FAULTS_INJECTOR_HPP
#define SINGLEFLIGHT_TESTS_FAULTS_INJECTOR_HPP

#include <pthread.h>

#include <atomic>
#include <cstddef>
#include <exception>
#include <utility>

#include "../replaced_new.hpp"

namespace faults {

/// What a group uses and did not write.
enum class point {
  allocation,
  hash,
  equality,
  key_copy,
  key_move,
  value_copy,
  value_move,
  loader,
  loader_copy,
  executor,
  nothing
};

inline const char* name(point p) {
  static constexpr const char* names[] = {"allocation",  "hash",       "equality",   "key_copy",
                                          "key_move",    "value_copy", "value_move", "loader",
                                          "loader_copy", "executor",   "nothing"};
  return names[static_cast<std::size_t>(p)];
}

/// How it fails.
enum class effect {
  throws,         // once; an allocation, std::bad_alloc
  keeps_failing,  // from that use on
  ends_thread,    // by pthread_exit: forced unwinding
};

inline const char* name(effect e) {
  static constexpr const char* names[] = {"throws", "keeps_failing", "ends_thread"};
  return names[static_cast<std::size_t>(e)];
}

/// What a failing use throws, but for an allocation.
struct fault : std::exception {
  [[nodiscard]] const char* what() const noexcept override { return "a fault of the test"; }
};

/// Which use of which point fails, in the threads that carry the plan.
class plan {
 public:
  plan(point where, effect how, std::size_t nth) : where_(where), how_(how), nth_(nth) {}

  [[nodiscard]] point where() const noexcept { return where_; }
  [[nodiscard]] effect how() const noexcept { return how_; }
  [[nodiscard]] std::size_t failures() const noexcept { return failures_; }

  /// Counts a use. Returns: whether it is to fail.
  [[nodiscard]] bool fails(point used) noexcept {
    if (used != where_) return false;
    const std::size_t use = ++uses_;
    if (use != nth_ && !(use > nth_ && how_ == effect::keeps_failing)) return false;
    ++failures_;
    return true;
  }

 private:
  const point where_;
  const effect how_;
  const std::size_t nth_;
  std::atomic<std::size_t> uses_{0};
  std::atomic<std::size_t> failures_{0};
};

inline thread_local plan* carried = nullptr;

/// While it lives, this thread carries the plan, or none.
class carrying {
 public:
  explicit carrying(plan* p) noexcept : before_(std::exchange(carried, p)) {
    support::grants_allocation = &grants;
  }
  carrying(const carrying&) = delete;
  carrying& operator=(const carrying&) = delete;
  ~carrying() { carried = before_; }

 private:
  static bool grants() noexcept { return carried == nullptr || !carried->fails(point::allocation); }

  plan* before_;
};

/// Uses a point other than an allocation.
inline void use(point p) {
  if (carried == nullptr || !carried->fails(p)) return;
  if (carried->how() == effect::ends_thread) pthread_exit(nullptr);
  throw fault();
}

}  // namespace faults

#endif  // SINGLEFLIGHT_TESTS_FAULTS_INJECTOR_HPP
