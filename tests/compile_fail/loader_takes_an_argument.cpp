// SPDX-License-Identifier: MIT
// expect: the loader must be callable with nothing, the key
#include <singleflight/group.hpp>

void load(singleflight::group<int, int>& g) {
  (void)g.do_call(1, [](int key, int other) { return key + other; });
}
