// SPDX-License-Identifier: MIT
// expect: what fn returns must convert to the group's Value
#include <singleflight/group.hpp>
#include <utility>

void end(singleflight::leader<void> lead) {
  std::move(lead).set_from([] { return 42; });
}
