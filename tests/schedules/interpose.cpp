// SPDX-License-Identifier: MIT
// Replaces functions of the system by the scheduler. While virtual threads run, the calls by which
// the library and the standard library's headers block and wake threads, and ask for the thread and
// for the time, come here. At all other times the system serves them.
//
// The C functions are wrapped by the linker, which changes the objects of this program and not
// the runtime libraries. The members of libstdc++ are defined here once more, and the
// program's own definition comes before the library's. What is inline in libstdc++ (the states of
// futures and stop tokens) consists of atomics, which are not replaced.

#include <bits/atomic_futex.h>
#include <linux/futex.h>
#include <pthread.h>
#include <sched.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <array>
#include <atomic>
#include <cerrno>
#include <chrono>
#include <condition_variable>
#include <cstdarg>
#include <ctime>
#include <mutex>

#include "scheduler.hpp"

namespace {

using schedules::scheduler;
using clock_type = std::chrono::steady_clock;

constexpr auto no_deadline = clock_type::time_point::max();

[[nodiscard]] clock_type::time_point at(std::chrono::seconds s, std::chrono::nanoseconds ns) {
  return clock_type::time_point(s + ns);
}

}  // namespace

// --- C functions ---------------------------------------------------------------------------------

extern "C" {

int __real_pthread_mutex_lock(pthread_mutex_t*);
int __real_pthread_mutex_trylock(pthread_mutex_t*);
int __real_pthread_mutex_unlock(pthread_mutex_t*);
int __real_pthread_cond_clockwait(pthread_cond_t*, pthread_mutex_t*, clockid_t, const timespec*);
int __real_pthread_once(pthread_once_t*, void (*)());
pthread_t __real_pthread_self();
int __real_sched_yield();
long __real_syscall(long, ...);

int __wrap_pthread_mutex_lock(pthread_mutex_t* mutex) {
  scheduler* const s = scheduler::active();
  if (s == nullptr) return __real_pthread_mutex_lock(mutex);
  s->lock(*mutex);
  return 0;
}

/// No scenario ends the process, so that each lock is released in the end.
int __wrap_pthread_mutex_trylock(pthread_mutex_t* mutex) {
  if (scheduler::active() == nullptr) return __real_pthread_mutex_trylock(mutex);
  return __wrap_pthread_mutex_lock(mutex);
}

int __wrap_pthread_mutex_unlock(pthread_mutex_t* mutex) {
  scheduler* const s = scheduler::active();
  if (s == nullptr) return __real_pthread_mutex_unlock(mutex);
  s->unlock(*mutex);
  return 0;
}

int __wrap_pthread_cond_clockwait(pthread_cond_t* condition, pthread_mutex_t* mutex,
                                  clockid_t clock, const timespec* until) {
  scheduler* const s = scheduler::active();
  if (s == nullptr) return __real_pthread_cond_clockwait(condition, mutex, clock, until);
  if (clock != CLOCK_MONOTONIC) s->fail("a wait by a clock that the scheduler does not have");
  const auto time =
      at(std::chrono::seconds(until->tv_sec), std::chrono::nanoseconds(until->tv_nsec));
  return s->wait(condition, *mutex, time) ? 0 : ETIMEDOUT;
}

/// A promise uses std::call_once so that it is satisfied only once.
int __wrap_pthread_once(pthread_once_t* once, void (*routine)()) {
  if (scheduler* const s = scheduler::active()) s->publishing();
  return __real_pthread_once(once, routine);
}

pthread_t __wrap_pthread_self() {
  scheduler* const s = scheduler::active();
  return s == nullptr ? __real_pthread_self() : static_cast<pthread_t>(s->current() + 1);
}

/// Only loops that spin for a while before they sleep call this, and these wait for another thread:
/// the sooner they sleep, the better.
int __wrap_sched_yield() { return scheduler::active() == nullptr ? __real_sched_yield() : 0; }

/// The futex calls of std::binary_semaphore, by which the destructor of a std::stop_callback waits
/// for the callback to end on another thread. Always reads six arguments, as the system's own
/// function does; AddressSanitizer would report that as an error.
__attribute__((no_sanitize_address)) long __wrap_syscall(long number, ...) {
  std::array<long, 6> given{};
  va_list list;
  va_start(list, number);
  for (long& argument : given) argument = va_arg(list, long);
  va_end(list);
  scheduler* const s = scheduler::active();
  if (s == nullptr || number != SYS_futex) {
    return __real_syscall(number, given[0], given[1], given[2], given[3], given[4], given[5]);
  }
  const auto* const word = reinterpret_cast<const int*>(given[0]);
  switch (static_cast<int>(given[1]) & FUTEX_CMD_MASK) {
    case FUTEX_WAIT:
      s->futex_wait(word, __atomic_load_n(word, __ATOMIC_SEQ_CST) == static_cast<int>(given[2]),
                    no_deadline);
      return 0;
    case FUTEX_WAKE:
      s->wake_all(word);
      return 0;
    default:
      s->fail("a futex operation that the scheduler does not have");
  }
}

}  // extern "C"

// --- Members of libstdc++ ------------------------------------------------------------------------

namespace std {

bool __atomic_futex_unsigned_base::_M_futex_wait_until_steady(unsigned* word, unsigned expected,
                                                              bool has_timeout, chrono::seconds s,
                                                              chrono::nanoseconds ns) {
  const bool as_expected = __atomic_load_n(word, __ATOMIC_SEQ_CST) == expected;
  scheduler* const active = scheduler::active();
  if (active != nullptr) {
    return active->futex_wait(word, as_expected, has_timeout ? at(s, ns) : no_deadline);
  }
  if (as_expected) abort();  // outside of executions every future is ready
  return true;
}

bool __atomic_futex_unsigned_base::_M_futex_wait_until(unsigned* word, unsigned expected,
                                                       bool has_timeout, chrono::seconds s,
                                                       chrono::nanoseconds ns) {
  if (has_timeout) abort();  // a wait by the system clock, which the library never uses
  return _M_futex_wait_until_steady(word, expected, false, s, ns);
}

void __atomic_futex_unsigned_base::_M_futex_notify_all(unsigned* word) {
  if (scheduler* const s = scheduler::active()) s->wake_all(word);
}

void condition_variable::wait(unique_lock<mutex>& lock) {
  scheduler* const s = scheduler::active();
  if (s == nullptr) abort();  // no thread could notify it
  s->wait(native_handle(), *lock.mutex()->native_handle(), no_deadline);
}

void condition_variable::notify_one() noexcept {
  scheduler* const s = scheduler::active();
  if (s == nullptr) return;
  s->touch({.writes = schedules::objects::others});
  s->wake_one(native_handle());
}

void condition_variable::notify_all() noexcept {
  scheduler* const s = scheduler::active();
  if (s == nullptr) return;
  s->touch({.writes = schedules::objects::others});
  s->wake_all(native_handle());
}

chrono::steady_clock::time_point chrono::steady_clock::now() noexcept {
  if (scheduler* const s = scheduler::active()) return s->now();
  timespec time{};
  clock_gettime(CLOCK_MONOTONIC, &time);
  return at(chrono::seconds(time.tv_sec), chrono::nanoseconds(time.tv_nsec));
}

}  // namespace std
