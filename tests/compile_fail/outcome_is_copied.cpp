// SPDX-License-Identifier: MIT
// expect: deleted
#include <singleflight/outcome.hpp>

singleflight::outcome<int> copy(const singleflight::outcome<int>& o) { return o; }
