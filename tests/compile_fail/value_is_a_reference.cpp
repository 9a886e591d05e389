// SPDX-License-Identifier: MIT
// expect: Value must not be a reference
#include <singleflight/group.hpp>

singleflight::group<int, int&> g;
