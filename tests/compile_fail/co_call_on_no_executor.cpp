// SPDX-License-Identifier: MIT
// expect: say where the caller is resumed: by an executor
#include <singleflight/coroutine.hpp>

void load(singleflight::group<int, int>& g) {
  (void)g.co_call(1, 42, [] { return 42; });
}
