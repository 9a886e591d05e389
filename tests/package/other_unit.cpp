// SPDX-License-Identifier: MIT
#include <singleflight/group.hpp>
#include <string>

std::string ask(singleflight::group<std::string, std::string>& flights);

std::string ask(singleflight::group<std::string, std::string>& flights) {
  return flights.do_call("key", [] { return std::string("another answer"); });
}
