// SPDX-License-Identifier: MIT
// expect: KeyEqual cannot compare two Keys
#include <functional>
#include <singleflight/group.hpp>

struct equal {
  bool operator()(int, int);
};

singleflight::group<int, int, std::hash<int>, equal> g;
