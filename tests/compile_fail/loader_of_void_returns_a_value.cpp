// SPDX-License-Identifier: MIT
// expect: what the loader returns must convert
#include <singleflight/group.hpp>

void load(singleflight::group<int, void>& g) {
  g.do_call(1, [] { return 42; });
}
