// SPDX-License-Identifier: MIT
// expect: keep the result: auto r = flights.do_call.key, fn.;
#include <singleflight/group.hpp>
#include <string>

std::size_t length(singleflight::group<int, std::string>& g) {
  return g.do_call(1, [] { return "forty-two"; })->size();
}
