// SPDX-License-Identifier: MIT
// Virtual threads and what they wait for: mutexes, condition variables, futexes, time.
#ifndef SINGLEFLIGHT_TESTS_SCHEDULES_SCHEDULER_HPP
#define SINGLEFLIGHT_TESTS_SCHEDULES_SCHEDULER_HPP

#include <pthread.h>

#include <array>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "fibers.hpp"
#include "strategy.hpp"

namespace schedules {

/// Sees the code under test from inside its critical sections.
class observer {
 public:
  observer() = default;
  observer(const observer&) = delete;
  observer& operator=(const observer&) = delete;
  virtual ~observer() = default;

  /// The thread that runs is about to release this mutex.
  virtual void before_unlock(const void* mutex) = 0;

  /// Returns: what the thread that runs may touch, until its next scheduling point, without the
  /// scheduler noticing.
  [[nodiscard]] virtual footprint outside_critical_sections() = 0;

  /// The thread that runs is about to sleep.
  virtual void before_sleeping() = 0;

  /// The thread that runs is about to make a future ready.
  virtual void before_publishing() = 0;
};

/// Runs threads as fibers, one step at a time. A step ends at a scheduling point: before a mutex is
/// locked, after it has been unlocked, where a thread blocks or wakes others, where it ends, and
/// where the test says so. There a strategy chooses the thread that goes on. So an execution
/// depends on nothing but its choices, and can be repeated.
///
/// interpose.cpp calls the members below `active()` instead of the system's functions.
class scheduler {
 public:
  using clock = std::chrono::steady_clock;
  using failure_handler = std::function<void(std::string_view what, const schedule& choices)>;

  /// The handler of failures must not return, since the fibers cannot be unwound.
  explicit scheduler(failure_handler on_failure);

  /// Adds a thread to the next execution.
  void add(std::function<void()> body);

  /// Names a mutex that exists before the threads do, so that critical sections of different ones
  /// are known to be independent. All other mutexes count as one, which null names; if it has no name,
  /// it is among the other objects.
  void know(const void* mutex, const char* name);

  /// Gives each thread values of its own of these thread-local words of the code under test.
  static void keep(std::size_t& first, std::size_t& second) noexcept {
    the_fibers().keep(first, second);
  }

  /// Runs the threads to their ends, and forgets them and the mutexes.
  void run(strategy& decides, observer& sees);

  /// Turns the printing of steps on or off.
  void trace(bool on) noexcept { tracing_ = on; }
  [[nodiscard]] bool tracing() const noexcept { return tracing_; }

  /// The scheduler that runs on this thread of the system, or null.
  [[nodiscard]] static scheduler* active() noexcept { return active_; }

  // --- For the threads ---------------------------------------------------------------------------

  [[nodiscard]] int current() const noexcept { return current_; }
  [[nodiscard]] const schedule& choices() const noexcept { return choices_; }

  /// Returns: whether that thread holds a known mutex.
  [[nodiscard]] bool in_critical_section(int which) const noexcept {
    return threads_[static_cast<std::size_t>(which)].holds != 0;
  }

  /// Makes a scheduling point.
  void point(const char* where);

  /// Blocks until the condition holds. It is asked at each scheduling point, and changes nothing.
  void await(const std::function<bool()>& condition);

  /// Advances the time.
  void advance(clock::duration time);
  [[nodiscard]] clock::time_point now() noexcept;

  /// The step that is being made touches this.
  void touch(footprint what) noexcept { step_ |= what; }

  [[noreturn]] void fail(std::string_view what);

  // --- Replacing the system's functions
  // ----------------------------------------------------------------

  void lock(pthread_mutex_t& mutex);
  void unlock(pthread_mutex_t& mutex);
  /// Returns: whether it was notified, rather than out of time.
  bool wait(const void* condition, pthread_mutex_t& mutex, clock::time_point until);
  /// Returns: whether it was woken or did not sleep at all, rather than out of time.
  bool futex_wait(const void* word, bool as_expected, clock::time_point until);
  void wake_one(const void* address);
  void wake_all(const void* address);
  void publishing() { sees_->before_publishing(); }

 private:
  /// A thread and the conditions under which it can go on. No thread runs while another decides, so
  /// they do not change meanwhile.
  struct thread {
    std::function<void()> body;
    bool finished = true;
    const void* asleep_on = nullptr;  // the condition variable or futex; null when woken
    clock::time_point until = clock::time_point::max();  // it sleeps no longer than that
    pthread_mutex_t* wants = nullptr;                    // the mutex that it locks next
    const std::function<bool()>* condition = nullptr;    // of `await`
    std::uint32_t holds = 0;                             // known mutexes
    const char* where = "start";
    const void* object = nullptr;
  };

  static void run_threads(std::size_t fiber);
  [[nodiscard]] static fibers& the_fibers();
  static thread_local scheduler* active_;

  [[nodiscard]] thread& self() noexcept { return threads_[static_cast<std::size_t>(current_)]; }
  [[nodiscard]] bool enabled(const thread& t) const;
  [[nodiscard]] std::uint32_t bit_of(const void* mutex) const noexcept;
  void yield(const char* where, const void* object = nullptr);
  int decide();
  void begin_step();
  void acquire(pthread_mutex_t& mutex) noexcept;
  void release(pthread_mutex_t& mutex);
  void finish();
  [[nodiscard]] std::string describe(const thread& t) const;

  failure_handler on_failure_;
  std::array<thread, max_threads> threads_;
  std::size_t count_ = 0;
  std::vector<std::pair<const void*, const char*>> known_;
  strategy* decides_ = nullptr;
  observer* sees_ = nullptr;
  clock::time_point now_;
  int current_ = -1;
  footprint step_;
  std::size_t steps_ = 0;
  schedule choices_;
  bool tracing_ = false;
};

}  // namespace schedules

#endif  // SINGLEFLIGHT_TESTS_SCHEDULES_SCHEDULER_HPP
