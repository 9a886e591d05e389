// SPDX-License-Identifier: MIT
#ifndef SINGLEFLIGHT_CALL_ERROR_HPP
#define SINGLEFLIGHT_CALL_ERROR_HPP

#include <exception>
#include <system_error>

#include "detail/config.hpp"

namespace singleflight::inline SINGLEFLIGHT_ABI {

/// Says why a caller got no result although no loader threw.
///
/// A loader's own exceptions reach every caller as they are, `std::system_error`s included, so the
/// type tells the two apart: a `call_error` always comes from a group. It may come from another
/// group or call than the one that was asked: a loader that lets the `call_error` of an inner call
/// pass fails with it, and its callers get it as they get any exception of a loader.
///
/// | `code()` compares equal to                  | the caller                                        |
/// |---------------------------------------------|---------------------------------------------------|
/// | `std::errc::timed_out`                      | left at its deadline                              |
/// | `std::errc::operation_canceled`             | left at its stop request                          |
/// | `std::errc::resource_deadlock_would_occur`  | would have waited for itself                      |
/// | `std::errc::resource_unavailable_try_again` | found `group_options::max_waiters` followers      |
/// | `std::errc::owner_dead`                     | waited for work that ended without a result       |
/// | `std::errc::no_such_file_or_directory`      | wanted a key that a bulk loader did not settle    |
class SINGLEFLIGHT_DETAIL_ONE_PER_PROCESS call_error : public std::system_error {
 public:
  /// `what()` is `sentence`, then the text of `code`.
  call_error(std::errc code, const char* sentence)
      : std::system_error(std::make_error_code(code), sentence) {}
};

namespace detail {

/// Why a caller gets no result of a call.
enum class reason {
  deadline,       // its own passed
  stop,           // it was told to stop
  circle,         // its wait would never end
  full,           // the call has as many followers as it may have
  newer_call,     // it goes on to a newer call; the one reason that no caller is told
  caller_gone,    // it was destroyed while it waited, or its thread was cancelled: is told nothing
  leader_exited,  // the leader's thread ended inside the loader
  task_dropped,   // the executor dropped the loader
  leader_gone,    // its `leader` was destroyed
  nobody_waits,   // all callers had left before the loader could begin
  no_value,       // the bulk loader did not settle its key
  lost_in_fork,   // another thread led it when this process was forked
};

struct explanation {
  std::errc code;
  const char* sentence;
};

/// The one table of codes and sentences.
[[nodiscard]] constexpr explanation explain(reason why) noexcept {
  switch (why) {
    case reason::deadline:
      return {std::errc::timed_out, "singleflight: the deadline passed before the call ended"};
    case reason::stop:
      return {std::errc::operation_canceled,
              "singleflight: the caller was told to stop before the call ended"};
    case reason::circle:
      return {std::errc::resource_deadlock_would_occur,
              "singleflight: deadlock: this loader asks, directly or through others, for a key "
              "whose call waits for it"};
    case reason::full:
      return {std::errc::resource_unavailable_try_again,
              "singleflight: the call has group_options::max_waiters followers already"};
    case reason::task_dropped:
      return {std::errc::owner_dead,
              "singleflight: the executor dropped the loader without running it"};
    case reason::leader_gone:
      return {std::errc::owner_dead,
              "singleflight: the call's leader was destroyed before it ended the call"};
    case reason::nobody_waits:
      return {std::errc::operation_canceled,
              "singleflight: all callers left before the loader began"};
    case reason::no_value:
      return {std::errc::no_such_file_or_directory,
              "singleflight: the loader gave no value for this key"};
    case reason::lost_in_fork:
      return {std::errc::owner_dead,
              "singleflight: the call was in flight in the parent process, whose threads a forked "
              "child lacks"};
    case reason::caller_gone:
    case reason::leader_exited:
    case reason::newer_call:
      break;
  }
  return {std::errc::owner_dead, "singleflight: the leader's thread ended before its call did"};
}

[[noreturn]] inline void throw_call_error(reason why) {
  const explanation text = explain(why);
  throw call_error(text.code, text.sentence);
}

/// Returns: the `call_error`, or a `std::bad_alloc` if there is no memory for its text.
[[nodiscard]] inline std::exception_ptr make_call_error(reason why) noexcept {
  try {
    throw_call_error(why);
  } catch (...) {
    return std::current_exception();
  }
}

/// Returns: the exception being handled. Forced unwinding (pthread_exit, cancellation) is none and
/// has no exception_ptr.
[[nodiscard]] inline std::exception_ptr current_failure() noexcept {
  if (std::exception_ptr thrown = std::current_exception()) return thrown;
  return make_call_error(reason::leader_exited);
}

}  // namespace detail
}  // namespace singleflight::inline SINGLEFLIGHT_ABI

#endif  // SINGLEFLIGHT_CALL_ERROR_HPP
