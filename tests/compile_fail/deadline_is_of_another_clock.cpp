// SPDX-License-Identifier: MIT
// expect: a deadline is a time of std::chrono::steady_clock
#include <chrono>
#include <singleflight/group.hpp>

void load(singleflight::group<int, int>& g) {
  (void)g.do_call(1, {.deadline = std::chrono::system_clock::now()}, [] { return 42; });
}
