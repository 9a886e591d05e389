// SPDX-License-Identifier: MIT
// expect: must convert to Key without loss
#include <singleflight/group.hpp>

void load(singleflight::group<int, int>& g) {
  (void)g.do_many({7}, [](auto& missing) { missing.set(7.5, 42); });
}
