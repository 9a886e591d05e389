// SPDX-License-Identifier: MIT
// expect: Key is narrower than this key
#include <singleflight/group.hpp>

void load(singleflight::group<int, int>& g, double id) {
  (void)g.do_call(id, [] { return 42; });
}
