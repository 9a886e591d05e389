// SPDX-License-Identifier: MIT
// Half of a program: PART_ONE gives options to the other half, which reads them. WITHOUT_STOP_TOKEN
// stands for a standard library that has none.
#include <thread>
#include <version>

#if defined(WITHOUT_STOP_TOKEN)
#undef __cpp_lib_jthread
#endif

#include <singleflight/options.hpp>

std::size_t attempts_of(const singleflight::call_options& options);

#if defined(PART_ONE)
int main() { return attempts_of({.attempts = 3}) == 3 ? 0 : 1; }
#else
std::size_t attempts_of(const singleflight::call_options& options) { return options.attempts; }
#endif
