// SPDX-License-Identifier: MIT
// expect: a deadline is a point in time; for a time from now write .timeout = 50ms
#include <chrono>
#include <singleflight/group.hpp>

void load(singleflight::group<int, int>& g) {
  (void)g.do_call(1, {.deadline = std::chrono::milliseconds(50)}, [] { return 42; });
}
