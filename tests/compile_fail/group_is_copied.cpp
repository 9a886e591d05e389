// SPDX-License-Identifier: MIT
// expect: deleted
#include <singleflight/group.hpp>

void copy(const singleflight::group<int, int>& g) { singleflight::group<int, int> other(g); }
