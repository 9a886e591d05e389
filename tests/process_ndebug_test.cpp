// SPDX-License-Identifier: MIT
// As process_test.cpp, where assertions are off.
#if !defined(NDEBUG)
#define NDEBUG
#endif
#include "process_test.cpp"
