// SPDX-License-Identifier: MIT
// expect: this key is no Key
#include <singleflight/group.hpp>
#include <string>

void load(singleflight::group<std::string, int>& g) {
  (void)g.do_call(42, [] { return 42; });
}
