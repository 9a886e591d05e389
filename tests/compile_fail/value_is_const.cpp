// SPDX-License-Identifier: MIT
// expect: Value must be void or an object type
#include <singleflight/group.hpp>

singleflight::group<int, const int> g;
