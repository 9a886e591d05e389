// SPDX-License-Identifier: MIT
// expect: say where the coroutine is resumed: co_call.key, on, load
#include <singleflight/coroutine.hpp>

void load(singleflight::group<int, int>& g) {
  (void)g.co_call(1, [] { return 42; });
}
