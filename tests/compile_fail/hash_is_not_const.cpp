// SPDX-License-Identifier: MIT
// expect: Hash cannot hash a Key
#include <cstddef>
#include <singleflight/group.hpp>

struct hash {
  std::size_t operator()(int);
};

singleflight::group<int, int, hash> g;
