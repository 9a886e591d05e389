// SPDX-License-Identifier: MIT
// expect: KeyEqual cannot compare two Keys
#include <cstddef>
#include <singleflight/group.hpp>

struct key {};
struct hash {
  std::size_t operator()(key) const;
};

singleflight::group<key, int, hash> g;
