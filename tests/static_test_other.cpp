// SPDX-License-Identifier: MIT
// The other translation unit of static_test.cpp.

#include <singleflight/group.hpp>

namespace other_unit {

singleflight::group<int, int>& flights();
int loaded_before_main();
void lead_own_key_again();

singleflight::group<int, int>& flights() {
  static singleflight::group<int, int> made_at_first_use;
  return made_at_first_use;
}

namespace {
singleflight::group<int, int> own_flights;
const int loaded = own_flights.do_call(1, [] { return 44; });
}  // namespace

int loaded_before_main() { return loaded; }

void lead_own_key_again() {
  (void)own_flights.do_call(1, [] { return *own_flights.do_call(1, [] { return 0; }); });
}

}  // namespace other_unit
