// SPDX-License-Identifier: MIT
#include "scheduler.hpp"

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <utility>

namespace schedules {
namespace {

constexpr std::size_t most_steps = 10'000;  // far more than any execution that ends

// A mutex's state is kept where glibc keeps it, so that it needs no look-up and dies with the mutex.
[[nodiscard]] int& holder(pthread_mutex_t& mutex) noexcept { return mutex.__data.__owner; }

}  // namespace

thread_local scheduler* scheduler::active_ = nullptr;

scheduler::scheduler(failure_handler on_failure) : on_failure_(std::move(on_failure)) {
  (void)the_fibers();
  choices_.reserve(most_steps);  // memory that an execution leaves behind is an error
  known_.reserve(max_threads);
}

fibers& scheduler::the_fibers() {
  static auto* const immortal = new fibers(max_threads, run_threads);
  return *immortal;
}

void scheduler::add(std::function<void()> body) {
  if (count_ == max_threads) fail("a scenario has too many threads");
  threads_[count_++] = {.body = std::move(body), .finished = false};
}

void scheduler::know(const void* mutex, const char* name) { known_.emplace_back(mutex, name); }

std::uint32_t scheduler::bit_of(const void* mutex) const noexcept {
  for (std::size_t i = 0; i < known_.size(); ++i) {
    if (known_[i].first == mutex) return objects::mutex(i);
  }
  return mutex != nullptr ? bit_of(nullptr) : objects::others;
}

void scheduler::run(strategy& decides, observer& sees) {
  decides_ = &decides;
  sees_ = &sees;
  now_ = clock::time_point(std::chrono::hours(1));
  current_ = -1;
  step_ = {};
  steps_ = 0;
  choices_.clear();
  active_ = this;
  current_ = decide();
  begin_step();
  the_fibers().switch_to(static_cast<std::size_t>(current_));
  active_ = nullptr;
  count_ = 0;
  known_.clear();
}

void scheduler::run_threads(std::size_t fiber) {
  for (the_fibers().arrive();;) {
    active_->threads_[fiber].body();
    active_->finish();
  }
}

/// Leaves the thread that has ended for another, or for `run` if it was the last.
void scheduler::finish() {
  self().body = nullptr;
  self().finished = true;
  fibers& all = the_fibers();
  if (std::all_of(threads_.begin(), threads_.begin() + static_cast<std::ptrdiff_t>(count_),
                  [](const thread& t) { return t.finished; })) {
    all.switch_to(all.main_stack());
    return;
  }
  current_ = decide();
  begin_step();
  all.switch_to(static_cast<std::size_t>(current_));
}

bool scheduler::enabled(const thread& t) const {
  if (t.finished) return false;
  if (t.asleep_on != nullptr && now_ < t.until) return false;
  if (t.wants != nullptr && holder(*t.wants) != 0) return false;
  return t.condition == nullptr || (*t.condition)();
}

/// Returns: the thread to go on.
int scheduler::decide() {
  moment here{.ran = current_, .step = step_};
  for (std::size_t i = 0; i < count_; ++i) {
    if (enabled(threads_[i])) here.enabled |= only(static_cast<int>(i));
  }
  if (here.enabled == 0) fail("nobody can go on, and not all have come back");
  if (++steps_ > most_steps) fail("the threads do not come to an end");
  const int next = decides_->choose(here);
  if ((here.enabled & (here.enabled - 1)) != 0) choices_ += static_cast<char>('0' + next);
  return next;
}

/// Begins the step of the thread that goes on, which lasts until the next point.
void scheduler::begin_step() {
  const thread& me = self();
  const bool critical_section = me.wants != nullptr || me.holds != 0;
  step_ = critical_section ? footprint() : sees_->outside_critical_sections();
  step_.writes |= me.holds;
  if (tracing_) std::printf("  thread %d: %s\n", current_, describe(me).c_str());
}

/// A scheduling point: returns when this thread is to go on.
void scheduler::yield(const char* where, const void* object) {
  thread& me = self();
  me.where = where;
  me.object = object;
  const int next = decide();
  if (next != std::exchange(current_, next)) {
    begin_step();
    the_fibers().switch_to(static_cast<std::size_t>(next));
  } else {
    begin_step();
  }
}

void scheduler::point(const char* where) { yield(where); }

void scheduler::await(const std::function<bool()>& condition) {
  self().condition = &condition;
  yield("await");
  self().condition = nullptr;
}

void scheduler::advance(clock::duration by) {
  touch({.writes = objects::time});
  now_ += by;
  yield("after time has passed");
}

scheduler::clock::time_point scheduler::now() noexcept {
  touch({.reads = objects::time});
  return now_;
}

void scheduler::lock(pthread_mutex_t& mutex) {
  thread& me = self();
  if (holder(mutex) == current_ + 1) fail("a thread locks a mutex that it holds");
  me.wants = &mutex;
  yield("lock", &mutex);
  me.wants = nullptr;
  acquire(mutex);
}

void scheduler::unlock(pthread_mutex_t& mutex) {
  release(mutex);
  yield("after unlock", &mutex);
}

void scheduler::acquire(pthread_mutex_t& mutex) noexcept {
  holder(mutex) = current_ + 1;
  const std::uint32_t bit = bit_of(&mutex);
  self().holds |= bit;
  touch({.writes = bit});
}

void scheduler::release(pthread_mutex_t& mutex) {
  if (holder(mutex) != current_ + 1) fail("a thread unlocks a mutex that it does not hold");
  sees_->before_unlock(&mutex);
  holder(mutex) = 0;
  self().holds &= ~bit_of(&mutex);
}

bool scheduler::wait(const void* condition, pthread_mutex_t& mutex, clock::time_point until) {
  thread& me = self();
  sees_->before_sleeping();
  release(mutex);
  touch({.writes = objects::others});
  me.asleep_on = condition;
  me.until = until;
  me.wants = &mutex;
  yield("wait on a condition variable", condition);
  me.wants = nullptr;
  me.until = clock::time_point::max();
  acquire(mutex);
  touch({.reads = objects::time, .writes = objects::others});
  return std::exchange(me.asleep_on, nullptr) == nullptr;
}

bool scheduler::futex_wait(const void* word, bool as_expected, clock::time_point until) {
  if (!as_expected) return true;
  sees_->before_sleeping();
  thread& me = self();
  me.asleep_on = word;
  me.until = until;
  yield("wait in a future", word);
  if (std::exchange(me.until, clock::time_point::max()) != clock::time_point::max()) {
    touch({.reads = objects::time});
  }
  return std::exchange(me.asleep_on, nullptr) == nullptr;
}

/// Not a scheduling point: what follows in this thread, up to the next one, touches nothing but its
/// own.
void scheduler::wake_all(const void* address) {
  for (std::size_t i = 0; i < count_; ++i) {
    if (threads_[i].asleep_on == address) threads_[i].asleep_on = nullptr;
  }
}

void scheduler::wake_one(const void* address) {
  for (std::size_t i = 0; i < count_; ++i) {
    if (threads_[i].asleep_on != address) continue;
    threads_[i].asleep_on = nullptr;
    return;
  }
}

std::string scheduler::describe(const thread& t) const {
  std::string text = t.where;
  for (const auto& [mutex, name] : known_) {
    if (mutex == t.object) return text + " of " + name;
  }
  return text;
}

void scheduler::fail(std::string_view what) {
  active_ = nullptr;
  on_failure_(what, choices_);
  std::abort();  // the handler ends the process
}

}  // namespace schedules
