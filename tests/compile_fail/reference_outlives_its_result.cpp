// SPDX-License-Identifier: MIT
// compiler: Clang
// flags: -Werror=return-stack-address
// expect: (address of|reference to) stack memory
#include <singleflight/group.hpp>
#include <string>

const std::string& load(singleflight::group<int, std::string>& g) {
  auto result = g.do_call(1, [] { return "forty-two"; });
  return *result;
}
