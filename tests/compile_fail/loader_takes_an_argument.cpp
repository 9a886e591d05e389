// SPDX-License-Identifier: MIT
// expect: the loader must be callable with no argument
#include <singleflight/group.hpp>

void load(singleflight::group<int, int>& g) {
  (void)g.do_call(1, [](int key) { return key; });
}
