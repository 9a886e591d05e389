// SPDX-License-Identifier: MIT
// expect: include_singleflight_coroutine_hpp
#include <singleflight/group.hpp>

void load(singleflight::group<int, int>& g) {
  (void)g.co_call(1, singleflight::resume_inline, [] { return 42; });
}
