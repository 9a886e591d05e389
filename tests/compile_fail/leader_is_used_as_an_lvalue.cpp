// SPDX-License-Identifier: MIT
// expect: (discards qualifiers|no matching member function)
#include <singleflight/group.hpp>

void end(singleflight::leader<int>& lead) { lead.set_value(1); }
