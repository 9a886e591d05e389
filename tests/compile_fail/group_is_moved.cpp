// SPDX-License-Identifier: MIT
// expect: deleted
#include <singleflight/group.hpp>
#include <utility>

void move(singleflight::group<int, int>& g) { singleflight::group<int, int> other(std::move(g)); }
