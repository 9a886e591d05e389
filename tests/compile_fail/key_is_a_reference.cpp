// SPDX-License-Identifier: MIT
// expect: Key must be an object type
#include <singleflight/group.hpp>

singleflight::group<int&, int> g;
