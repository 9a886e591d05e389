// SPDX-License-Identifier: MIT
// All the ways in which this thread can be the one that runs a loader's stop callbacks.
#ifndef SINGLEFLIGHT_TESTS_LAST_TO_LEAVE_HPP
#define SINGLEFLIGHT_TESTS_LAST_TO_LEAVE_HPP

#include <gtest/gtest.h>
#if !defined(_WIN32)
#include <pthread.h>
#endif

#include <atomic>
#include <chrono>
#include <functional>
#include <singleflight/group.hpp>
#include <thread>
#include <utility>
#include <version>

#if defined(__cpp_lib_jthread)
#include <stop_token>
#endif

#include "executors.hpp"
#include "support.hpp"

namespace support {

/// How long a caller with a deadline or `max_age` waits before it leaves.
using patience = std::chrono::milliseconds;

/// Tries `attempt(patience)` with ever more patience until it returns true.
template <class Attempt>
void try_with_patience(const Attempt& attempt) {
  for (patience time(20); time < std::chrono::seconds(20); time *= 2) {
    if (attempt(time) || testing::Test::HasFailure()) return;
  }
  FAIL() << "was never quick enough";
}

#if defined(__cpp_lib_jthread)

/// A call for key 1 whose loader has a stop callback.
struct stoppable_call {
  std::function<void()> callback;
  std::function<void()> callback_of_another_thread = [] {
  };                                                        // if this one was not the last to leave
  std::function<void(std::stop_token)> load = [](auto) {};  // before the loader waits for the stop
  std::function<bool()> may_leave = [] { return true; };    // when the other threads go on
};

/// Has the thread that calls a member be the one that runs the callback of such a call. One that leaves
/// at a time may leave too early: then another thread runs the callback.
template <class Group>
class last_to_leave {
 public:
  last_to_leave(Group& g, stoppable_call call) : g_(g), call_(std::move(call)) {}

  void as_a_follower_that_is_stopped(patience) {
    follow([&](std::stop_token stop) { leave({.stop = stop}); });
  }

  void as_a_follower_at_its_deadline(patience time) {
    follow([&](const std::stop_token&) {
      while (g_.stats().joined == 0) {  // one that is held up until then tries again
        leave({.deadline = std::chrono::steady_clock::now() + time});
      }
    });
  }

  /// The group's `max_age` is to be as long as the patience.
  void as_a_follower_at_max_age(patience) {
    follow([&](const std::stop_token&) { (void)g_.do_call(1, [] { return 2; }); });
  }

#if defined(SINGLEFLIGHT_TESTS_THREAD_EXIT_UNWINDS)
  /// This thread ends here.
  void as_a_follower_that_is_cancelled(patience) {
    follow([&](const std::stop_token& stop) {
      const std::stop_source never;  // whose token has the follower wait where it can be cancelled
      const std::stop_callback cancel(stop, [me = pthread_self()] { pthread_cancel(me); });
      (void)g_.do_call(1, {.stop = never.get_token()}, [] { return 2; });
    });
  }
#endif

  void as_the_first_caller(patience) {
    runner_ = std::this_thread::get_id();
    others_.start([&] {
      support::await([&] { return runs_ && call_.may_leave(); }, "the loader");
      follower_.request_stop();
    });
    try {
      (void)g_.do_call_on(1, elsewhere_, {.stop = follower_.get_token()},
                          [&](std::stop_token nobody_waits) { return load(nobody_waits); });
      ADD_FAILURE() << "did not leave";
    } catch (const singleflight::call_error&) {
    }
  }

  void by_stopping_the_leader(patience) {
    runner_ = std::this_thread::get_id();
    lead();
    support::await(call_.may_leave, "the call");
    leader_.request_stop();
  }

 private:
  int load(std::stop_token nobody_waits) {
    const std::stop_callback told(nobody_waits, [this] {
      std::this_thread::get_id() == runner_ ? call_.callback() : call_.callback_of_another_thread();
    });
    runs_ = true;
    call_.load(nobody_waits);
    support::await([&] { return nobody_waits.stop_requested(); }, "the last caller to leave");
    return 1;
  }

  void lead() {
    others_.start([this] {
      (void)g_.do_call(1, {.stop = leader_.get_token()},
                       [this](std::stop_token nobody_waits) { return load(nobody_waits); });
    });
    support::await([this] { return runs_.load(); }, "the loader to run");
  }

  /// Has this thread follow the call by `ask(stop)`, and the leader withdraw before the stop.
  template <class Ask>
  void follow(const Ask& ask) {
    runner_ = std::this_thread::get_id();
    lead();
    others_.start([this] {
      support::await([&] { return has_come() && call_.may_leave(); }, "the follower");
      leader_.request_stop();
      follower_.request_stop();
    });
    ask(follower_.get_token());
  }

  /// Whether the follower has joined the call, or found it too old already.
  [[nodiscard]] bool has_come() const {
    const auto stats = g_.stats();
    return stats.joined + stats.superseded > 0;
  }

  void leave(const singleflight::call_options& options) {
    try {
      (void)g_.do_call(1, options, [] { return 2; });
      ADD_FAILURE() << "did not leave";
    } catch (const singleflight::call_error&) {
    }
  }

  Group& g_;
  const stoppable_call call_;
  std::thread::id runner_;
  std::stop_source leader_, follower_;
  std::atomic<bool> runs_{false};
  thread_executor elsewhere_;
  threads others_;
};

#endif

}  // namespace support

#endif  // SINGLEFLIGHT_TESTS_LAST_TO_LEAVE_HPP
