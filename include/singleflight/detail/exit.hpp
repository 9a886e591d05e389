// SPDX-License-Identifier: MIT
#ifndef SINGLEFLIGHT_DETAIL_EXIT_HPP
#define SINGLEFLIGHT_DETAIL_EXIT_HPP

#include <cstdint>
#include <cstdlib>
#include <cstring>

#include "config.hpp"

#if !defined(_WIN32) && __has_include(<dlfcn.h>)
#include <dlfcn.h>
#define SINGLEFLIGHT_DETAIL_HAS_DLADDR
#if !defined(__APPLE__)
#pragma weak dladdr  // in a library of its own before glibc 2.34, which a program may not link
#endif
#endif

#if defined(SINGLEFLIGHT_DETAIL_HAS_DLADDR) && __has_include(<unwind.h>)
#include <unwind.h>
#define SINGLEFLIGHT_DETAIL_HAS_BACKTRACE
#endif

// Tells the end of the process, which destroys static groups whatever still runs, from the mistake
// of destroying a group too early. Looked at only where a group is destroyed and calls are left.
namespace singleflight::inline SINGLEFLIGHT_ABI::detail {

/// Whether the thread_local objects of this thread are being destroyed. The thread that ends the
/// process destroys its own before the static objects.
inline constinit thread_local bool this_thread_ends = false;

/// Has `this_thread_ends` set when this thread ends or ends the process.
inline void watch_this_thread() {
  struct watch {
    ~watch() { this_thread_ends = true; }
  };
  static thread_local const watch at_the_end;
  static_cast<void>(&at_the_end);
}

/// Whether an object is in the static storage of a program or shared object.
[[nodiscard]] inline bool is_static([[maybe_unused]] const void* object) noexcept {
#if defined(SINGLEFLIGHT_DETAIL_HAS_DLADDR)
  Dl_info image;
  return &dladdr != nullptr && dladdr(object, &image) != 0;
#else
  return false;
#endif
}

/// Whether this thread is inside `std::exit`, which returning from main calls, too. Searches
/// the stack for `exit`: a flag that a handler of `atexit` sets would not do, since the handler may
/// run before or after the destructor of a group.
/// Returns: false where functions of the C library cannot be seen on the stack.
[[nodiscard]] inline bool is_in_exit() noexcept {
#if defined(SINGLEFLIGHT_DETAIL_HAS_BACKTRACE)
  constexpr auto look = [](_Unwind_Context* frame, void* found) {
    const std::uintptr_t start = _Unwind_GetRegionStart(frame);
    void* const function = reinterpret_cast<void*>(start);  // NOLINT(performance-no-int-to-ptr)
    Dl_info symbol{};
    const bool is_exit =
        function == reinterpret_cast<void*>(&std::exit) ||
        (&dladdr != nullptr && dladdr(function, &symbol) != 0 && symbol.dli_sname != nullptr &&
         std::strcmp(symbol.dli_sname, "exit") == 0 && symbol.dli_saddr == function);
    if (!is_exit) return _URC_NO_REASON;
    *static_cast<bool*>(found) = true;
    return _URC_END_OF_STACK;
  };
  bool found = false;
  _Unwind_Backtrace(look, &found);
  return found;
#else
  return false;
#endif
}

/// Whether an object may be destroyed because the process ends or a shared object is unloaded.
[[nodiscard]] inline bool may_be_destroyed_by_exit(const void* object) noexcept {
  return this_thread_ends || is_static(object) || is_in_exit();
}

}  // namespace singleflight::inline SINGLEFLIGHT_ABI::detail

#undef SINGLEFLIGHT_DETAIL_HAS_DLADDR
#undef SINGLEFLIGHT_DETAIL_HAS_BACKTRACE

#endif  // SINGLEFLIGHT_DETAIL_EXIT_HPP
