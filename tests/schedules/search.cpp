// SPDX-License-Identifier: MIT
#include "search.hpp"

#include <bit>
#include <utility>

#include "scheduler.hpp"

namespace schedules {
namespace {

[[nodiscard]] int first(thread_set set) noexcept { return std::countr_zero(set); }

[[nodiscard]] bool contains(thread_set set, int thread) noexcept {
  return thread >= 0 && (set & only(thread)) != 0;
}

[[nodiscard]] int stay_or_first(thread_set set, int ran) noexcept {
  return contains(set, ran) ? ran : first(set);
}

}  // namespace

int without_preemption(const moment& now) noexcept { return stay_or_first(now.enabled, now.ran); }

search::search(std::optional<int> most_preemptions, reduction how)
    : most_preemptions_(most_preemptions), how_(most_preemptions ? reduction::none : how) {
  path_.reserve(1024);
}

int search::choose(const moment& now) {
  if (redundant_) return without_preemption(now);
  if (depth_ > 0) {
    node& last = path_[depth_ - 1];
    last.steps[static_cast<std::size_t>(last.chosen)] = now.step;
  }
  if (depth_ == path_.size()) return open(now);
  const node& again = path_[depth_++];
  if (again.enabled != now.enabled || again.ran != now.ran) {
    scheduler::active()->fail("the same choices have led to another execution");
  }
  return again.chosen;
}

/// Returns: the first choice at a point where no execution has been.
int search::open(const moment& now) {
  node fresh;
  fresh.enabled = now.enabled;
  fresh.ran = now.ran;
  inherit(fresh);
  const thread_set awake = fresh.enabled & ~fresh.asleep;
  if (awake == 0) {
    redundant_ = true;
    return without_preemption(now);
  }
  fresh.chosen = stay_or_first(awake, fresh.ran);
  path_.push_back(fresh);
  ++depth_;
  return fresh.chosen;
}

/// Gives a new point what it knows from the one before: a step that was taken there, and that is
/// independent of the one taken since, would only lead to the same executions again.
void search::inherit(node& child) const {
  if (path_.empty()) return;
  const node& parent = path_.back();
  child.preemptions = parent.preemptions + preemption(parent, parent.chosen);
  if (how_ == reduction::none) return;
  const footprint taken = parent.steps[static_cast<std::size_t>(parent.chosen)];
  for (thread_set rest = (parent.done | parent.asleep) & ~only(parent.chosen); rest != 0;
       rest &= rest - 1) {
    const auto t = static_cast<std::size_t>(first(rest));
    if (conflict(parent.steps[t], taken)) continue;
    child.asleep |= only(static_cast<int>(t));
    child.steps[t] = parent.steps[t];
  }
  if ((child.asleep & ~child.enabled) != 0) {
    scheduler::active()->fail("a step was thought to be independent, and has disabled another");
  }
}

int search::preemption(const node& n, int choice) noexcept {
  return choice != n.ran && contains(n.enabled, n.ran) ? 1 : 0;
}

thread_set search::candidates(const node& n) const noexcept {
  thread_set left = n.enabled & ~n.done & ~n.asleep;
  if (most_preemptions_ && n.preemptions >= *most_preemptions_ && contains(n.enabled, n.ran)) {
    left &= only(n.ran);
  }
  return left;
}

bool search::next() {
  depth_ = 0;
  redundant_ = false;
  for (; !path_.empty(); path_.pop_back()) {
    node& last = path_.back();
    last.done |= only(last.chosen);
    if (const thread_set left = candidates(last); left != 0) {
      last.chosen = first(left);
      return true;
    }
  }
  return false;
}

int replay::choose(const moment& now) {
  const bool alone = std::has_single_bit(now.enabled);
  if (alone || at_ == choices_.size()) return without_preemption(now);
  const int wanted = choices_[at_++] - '0';
  if (!contains(now.enabled, wanted)) {
    scheduler::active()->fail("this is a schedule of other code or of another scenario");
  }
  return wanted;
}

}  // namespace schedules
