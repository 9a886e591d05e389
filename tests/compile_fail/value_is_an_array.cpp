// SPDX-License-Identifier: MIT
// expect: Value must be void or an object type
#include <singleflight/group.hpp>

singleflight::group<int, int[3]> g;
