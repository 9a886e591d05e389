// SPDX-License-Identifier: MIT
// expect: Value is declared but not defined here
#include <singleflight/group.hpp>

struct row;
singleflight::group<int, row> g;
