// SPDX-License-Identifier: MIT
#ifndef SINGLEFLIGHT_TESTS_SCHEDULES_SANITIZER_HPP
#define SINGLEFLIGHT_TESTS_SCHEDULES_SANITIZER_HPP

// Whether AddressSanitizer is at work, which g++ and clang++ say in different ways.
#if defined(__SANITIZE_ADDRESS__)
#define SCHEDULES_ASAN 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define SCHEDULES_ASAN 1
#endif
#endif
#if !defined(SCHEDULES_ASAN)
#define SCHEDULES_ASAN 0
#endif

#endif  // SINGLEFLIGHT_TESTS_SCHEDULES_SANITIZER_HPP
