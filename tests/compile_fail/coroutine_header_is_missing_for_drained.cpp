// SPDX-License-Identifier: MIT
// expect: include_singleflight_coroutine_hpp
#include <singleflight/group.hpp>

void end(singleflight::group<int, int>& g) { (void)g.drained(); }
