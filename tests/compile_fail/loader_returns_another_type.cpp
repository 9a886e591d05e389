// SPDX-License-Identifier: MIT
// expect: what the loader returns must convert
#include <singleflight/group.hpp>
#include <string>

void load(singleflight::group<int, int>& g) {
  (void)g.do_call(1, [] { return std::string(); });
}
