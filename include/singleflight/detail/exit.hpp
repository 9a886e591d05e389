// SPDX-License-Identifier: MIT
#ifndef SINGLEFLIGHT_DETAIL_EXIT_HPP
#define SINGLEFLIGHT_DETAIL_EXIT_HPP

#include "config.hpp"

#if !defined(_WIN32) && __has_include(<dlfcn.h>)
#include <dlfcn.h>
#define SINGLEFLIGHT_DETAIL_HAS_DLADDR
#if !defined(__APPLE__)
#pragma weak dladdr  // in a library of its own before glibc 2.34, which a program may not link
#endif
#endif

// Tells the end of the process, which destroys static groups whatever still runs, from the mistake
// of destroying a group too early.
namespace singleflight::inline SINGLEFLIGHT_ABI::detail {

/// Whether the thread_local objects of this thread have been destroyed. The thread that ends the
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

/// Whether an object may be destroyed because the process ends. Where the answer is sometimes wrong:
/// an object on the heap, if the process is ended by a thread that was never watched.
[[nodiscard]] inline bool may_be_destroyed_by_exit([[maybe_unused]] const void* object) noexcept {
  if (this_thread_ends) return true;
#if defined(SINGLEFLIGHT_DETAIL_HAS_DLADDR)
  if (&dladdr != nullptr) {
    Dl_info image;
    return dladdr(object, &image) != 0;  // in the static storage of a program or shared object
  }
#endif
  return false;
}

}  // namespace singleflight::inline SINGLEFLIGHT_ABI::detail

#undef SINGLEFLIGHT_DETAIL_HAS_DLADDR

#endif  // SINGLEFLIGHT_DETAIL_EXIT_HPP
