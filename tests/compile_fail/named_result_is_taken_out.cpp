// SPDX-License-Identifier: MIT
// expect: deleted function
#include <singleflight/group.hpp>
#include <string>

std::string load(singleflight::group<int, std::string>& g) {
  auto result = g.do_call(1, [] { return "forty-two"; });
  std::string value = result;
  return value;
}
