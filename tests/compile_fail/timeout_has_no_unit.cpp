// SPDX-License-Identifier: MIT
// expect: a duration has a unit: write 50ms
#include <singleflight/group.hpp>

void load(singleflight::group<int, int>& g) {
  (void)g.do_call(1, {.timeout = 50}, [] { return 42; });
}
