// SPDX-License-Identifier: MIT
// expect: the options come before the loader: do_call.key, options, fn
#include <singleflight/group.hpp>

void load(singleflight::group<int, int>& g) {
  (void)g.do_call(1, [] { return 42; }, {.attempts = 2});
}
