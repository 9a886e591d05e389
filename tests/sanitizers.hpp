// SPDX-License-Identifier: MIT
// Macros for the sanitizers that a program is built with: g++ and clang++ have different ones.
#ifndef SINGLEFLIGHT_TESTS_SANITIZERS_HPP
#define SINGLEFLIGHT_TESTS_SANITIZERS_HPP

#if defined(__SANITIZE_ADDRESS__)
#define SINGLEFLIGHT_TESTS_ASAN
#endif
#if defined(__SANITIZE_THREAD__)
#define SINGLEFLIGHT_TESTS_TSAN
#endif
#if defined(__clang__)
#if __has_feature(address_sanitizer)
#define SINGLEFLIGHT_TESTS_ASAN
#endif
#if __has_feature(thread_sanitizer)
#define SINGLEFLIGHT_TESTS_TSAN
#endif
#endif

#if defined(SINGLEFLIGHT_TESTS_ASAN) || defined(SINGLEFLIGHT_TESTS_TSAN)
#define SINGLEFLIGHT_TESTS_SANITIZED
#endif

#endif  // SINGLEFLIGHT_TESTS_SANITIZERS_HPP
