// SPDX-License-Identifier: MIT
// expect: Hash cannot hash a Key
#include <singleflight/group.hpp>

struct key {
  bool operator==(const key&) const = default;
};

singleflight::group<key, int> g;
