// SPDX-License-Identifier: MIT
// The strategies: every schedule, every one with few preemptions, or a given one.
#ifndef SINGLEFLIGHT_TESTS_SCHEDULES_SEARCH_HPP
#define SINGLEFLIGHT_TESTS_SCHEDULES_SEARCH_HPP

#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <vector>

#include "strategy.hpp"

namespace schedules {

/// Depth-first search by replay: each execution repeats the choices of the last one up to some
/// point, and there takes one that has not been taken.
///
/// Without a bound it is complete: it runs each schedule but those that differ from another only in
/// the order of steps next to each other that touch different objects. (Sleep sets: P. Godefroid,
/// Partial-Order Methods for the Verification of Concurrent Systems, 1996, chapter 5.)
///
/// With a bound it runs each schedule that takes a thread off that could have gone on at most that
/// often, since most errors need few such preemptions. (M. Musuvathi, S. Qadeer, Iterative context
/// bounding for systematic testing of multithreaded programs, PLDI 2007.) Bounds and sleep sets do
/// not go together: the schedule that stands for the others may need more preemptions than they.
class search : public strategy {
 public:
  enum class reduction { none, sleep_sets };

  search(std::optional<int> most_preemptions, reduction how);

  int choose(const moment& now) override;

  /// To be called after each execution. Returns: whether there is another one to run.
  bool next();

  /// Returns: whether the last execution could only have repeated another one in a different order,
  /// and was not pursued any further.
  [[nodiscard]] bool redundant() const noexcept { return redundant_; }

 private:
  /// One scheduling point of the execution.
  struct node {
    thread_set enabled = 0;
    thread_set done = 0;    // taken by earlier executions
    thread_set asleep = 0;  // taken in another order already
    int ran = -1;           // the thread that made the step before
    int chosen = -1;
    int preemptions = 0;                         // up to here
    std::array<footprint, max_threads> steps{};  // of the threads done and asleep
  };

  [[nodiscard]] static int preemption(const node& n, int choice) noexcept;
  [[nodiscard]] thread_set candidates(const node& n) const noexcept;
  void inherit(node& child) const;
  int open(const moment& now);

  const std::optional<int> most_preemptions_;
  const reduction how_;
  std::vector<node> path_;
  std::size_t depth_ = 0;
  bool redundant_ = false;
};

/// Repeats one schedule. Past its end the thread that runs goes on for as long as it can.
class replay : public strategy {
 public:
  explicit replay(schedule choices) : choices_(std::move(choices)) {}
  int choose(const moment& now) override;

 private:
  const schedule choices_;
  std::size_t at_ = 0;
};

/// Returns: the thread that ran if it can go on, else the first that can.
[[nodiscard]] int without_preemption(const moment& now) noexcept;

}  // namespace schedules

#endif  // SINGLEFLIGHT_TESTS_SCHEDULES_SEARCH_HPP
