// SPDX-License-Identifier: MIT
// expect: the key is not convertible to Key
#include <singleflight/group.hpp>
#include <string>

void load(singleflight::group<std::string, int>& g) {
  (void)g.do_call(42, [] { return 42; });
}
