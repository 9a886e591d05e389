// SPDX-License-Identifier: MIT
#ifndef SINGLEFLIGHT_DETAIL_CONFIG_HPP
#define SINGLEFLIGHT_DETAIL_CONFIG_HPP

#include <version>

// What differs between compilers and standard libraries, each as one macro.

// MSVC says by _CPPUNWIND what the others say by __cpp_exceptions.
#if !defined(__cpp_exceptions) && !defined(_CPPUNWIND)
#error "singleflight needs exceptions: compile without -fno-exceptions (MSVC: with /EHsc)"
#endif

#if defined(__GLIBCXX__) && !defined(_GLIBCXX_HAS_GTHREADS)
#error "singleflight needs std::mutex: with MinGW, use the posix thread model"
#endif

/// The inline namespace. `call_options` has another layout where the standard library lacks
/// <stop_token> (libc++ before 20), so that code of both kinds must not link with each other.
#if defined(__cpp_lib_jthread)
#define SINGLEFLIGHT_ABI v1
#else
#define SINGLEFLIGHT_ABI v1_without_stop_token
#endif

/// For what must be one in a whole process, also where shared objects are built with
/// -fvisibility=hidden.
#if defined(__GNUC__) && !defined(_WIN32)
#define SINGLEFLIGHT_DETAIL_ONE_PER_PROCESS __attribute__((visibility("default")))
#else
#define SINGLEFLIGHT_DETAIL_ONE_PER_PROCESS
#endif

/// For what each program and shared object has for itself, so that it ends with it.
#if defined(__GNUC__) && !defined(_WIN32)
#define SINGLEFLIGHT_DETAIL_ONE_PER_IMAGE __attribute__((visibility("hidden")))
#else
#define SINGLEFLIGHT_DETAIL_ONE_PER_IMAGE
#endif

/// For what must not be compiled into its caller.
#if defined(_MSC_VER)
#define SINGLEFLIGHT_DETAIL_NOINLINE __declspec(noinline)
#else
#define SINGLEFLIGHT_DETAIL_NOINLINE __attribute__((noinline))
#endif

/// Has clang warn where what a member function returns outlives the object that it belongs to.
#if defined(__clang__)
#define SINGLEFLIGHT_DETAIL_LIFETIMEBOUND [[clang::lifetimebound]]
#else
#define SINGLEFLIGHT_DETAIL_LIFETIMEBOUND
#endif

/// [[no_unique_address]], which has no effect under Microsoft's ABI, and its other name there.
#if defined(_MSC_VER)
#define SINGLEFLIGHT_DETAIL_NO_UNIQUE_ADDRESS [[msvc::no_unique_address]]
#else
#define SINGLEFLIGHT_DETAIL_NO_UNIQUE_ADDRESS [[no_unique_address]]
#endif

#endif  // SINGLEFLIGHT_DETAIL_CONFIG_HPP
