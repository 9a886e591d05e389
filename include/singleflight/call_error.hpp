// SPDX-License-Identifier: MIT
#ifndef SINGLEFLIGHT_CALL_ERROR_HPP
#define SINGLEFLIGHT_CALL_ERROR_HPP

#include <system_error>

// MSVC says by _CPPUNWIND what the others say by __cpp_exceptions.
#if !defined(__cpp_exceptions) && !defined(_CPPUNWIND)
#error "singleflight needs exceptions: compile without -fno-exceptions (MSVC: with /EHsc)"
#endif

namespace singleflight::inline v1 {

/// Why a caller got no result although no loader threw.
///
/// A loader's own exceptions reach every caller as they are, `std::system_error`s included, so the
/// type tells the two apart: a `call_error` always comes from the group. Its codes are standard:
///
/// | `code()` compares equal to                   | this caller                                      |
/// |-----------------------------------------------|--------------------------------------------------|
/// | `std::errc::timed_out`                        | left at its deadline                             |
/// | `std::errc::operation_canceled`               | left at its stop request                         |
/// | `std::errc::resource_deadlock_would_occur`    | would have waited for itself                     |
/// | `std::errc::resource_unavailable_try_again`   | found `group_options::max_waiters` followers     |
/// | `std::errc::owner_dead`                       | waited for work that ended with no result        |
class call_error : public std::system_error {
 public:
  /// `what()` is `reason`, then the text of `code`.
  call_error(std::errc code, const char* reason)
      : std::system_error(std::make_error_code(code), reason) {}
};

}  // namespace singleflight::inline v1

#endif  // SINGLEFLIGHT_CALL_ERROR_HPP
