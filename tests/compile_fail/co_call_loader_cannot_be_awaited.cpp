// SPDX-License-Identifier: MIT
// expect: must convert to the group's Value or be something that a coroutine can await
#include <singleflight/coroutine.hpp>

struct row {};

void load(singleflight::group<int, int>& g) {
  (void)g.co_call(1, singleflight::resume_inline, [] { return row(); });
}
