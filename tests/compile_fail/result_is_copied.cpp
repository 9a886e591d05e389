// SPDX-License-Identifier: MIT
// expect: deleted
#include <singleflight/group.hpp>

singleflight::result<int> copy(const singleflight::result<int>& r) { return r; }
