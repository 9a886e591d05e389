// SPDX-License-Identifier: MIT
// A caller without a result gets an error with a sentence that says what happened.

#include <gtest/gtest.h>
#if !defined(_WIN32)
#include <pthread.h>
#endif

#include <chrono>
#include <exception>
#include <functional>
#include <singleflight/group.hpp>
#include <string>
#include <system_error>
#include <version>

#include "support.hpp"

#if defined(__cpp_lib_jthread)
#include <stop_token>
#endif

namespace {

using singleflight::call_error;
using singleflight::call_options;
using singleflight::group;

/// Expects `enter` to be refused: `what()` is the sentence, then the text of the code. Returns the
/// refusal, for a test in which another thread has it, too.
std::exception_ptr expect_refused(std::errc code, const std::string& sentence,
                                  const std::function<void()>& enter) {
  try {
    enter();
    ADD_FAILURE() << "was not refused";
  } catch (const call_error& error) {
    EXPECT_EQ(error.code(), code);
    EXPECT_EQ(error.what(),
              "singleflight: " + sentence + ": " + std::make_error_code(code).message());
    return std::current_exception();
  }
  return nullptr;
}

TEST(Refusal, OfALateCallerNamesTheDeadline) {
  group<int, int> g;
  expect_refused(std::errc::timed_out, "the deadline passed before the call ended", [&] {
    (void)g.do_call(1, call_options{.deadline = std::chrono::steady_clock::time_point()},
                    [] { return 42; });
  });
}

#if defined(__cpp_lib_jthread)

TEST(Refusal, OfAStoppedCallerNamesTheStopRequest) {
  group<int, int> g;
  std::stop_source stop;
  stop.request_stop();
  expect_refused(
      std::errc::operation_canceled, "the caller was told to stop before the call ended",
      [&] { (void)g.do_call(1, call_options{.stop = stop.get_token()}, [] { return 42; }); });
}

#endif

TEST(Refusal, OfACircleNamesTheLoader) {
  group<int, int> g;
  expect_refused(std::errc::resource_deadlock_would_occur,
                 "deadlock: this loader asks, directly or through others, for a key whose call "
                 "waits for it",
                 [&] { (void)g.do_call(1, [&] { return *g.do_call(1, [] { return 42; }); }); });
}

TEST(Refusal, OfOneFollowerTooManyNamesTheOption) {
  group<int, int> g({.max_waiters = 0});
  (void)g.do_call(1, [&] {
    support::threads(1, [&](std::size_t) {
      expect_refused(std::errc::resource_unavailable_try_again,
                     "the call has group_options::max_waiters followers already",
                     [&] { (void)g.do_call(1, [] { return 0; }); });
    });
    return 42;
  });
}

TEST(Refusal, OfACallThatNobodyRanNamesTheExecutor) {
  group<int, int> g;
  expect_refused(std::errc::owner_dead, "the executor dropped the loader without running it", [&] {
    (void)g.do_call_on(
        1, [](const auto&) {}, {}, [] { return 42; });
  });
}

#if defined(SINGLEFLIGHT_TESTS_THREAD_EXIT_UNWINDS)
TEST(Refusal, OfACallWhoseThreadHasEndedNamesTheThread) {
  group<int, int> g;
  // Kept until the leader's thread has ended: ThreadSanitizer does not see who lets go of it last.
  std::exception_ptr refusal;
  support::threads leader;
  leader.start([&] {
    (void)g.do_call(1, [&]() -> int {
      support::await_followers(g, 1);
      pthread_exit(nullptr);
    });
  });
  support::await([&] { return g.stats().led == 1; }, "the call");
  refusal = expect_refused(std::errc::owner_dead, "the leader's thread ended before its call did",
                           [&] { (void)g.do_call(1, [] { return 0; }); });
}
#endif

}  // namespace
