// SPDX-License-Identifier: MIT
// expect: the loader must be callable with nothing, the key
#include <singleflight/coroutine.hpp>

void load(singleflight::group<int, int>& g) {
  (void)g.co_call(1, singleflight::resume_inline, [](int key, int other) { return key + other; });
}
