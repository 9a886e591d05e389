// SPDX-License-Identifier: MIT
// expect: deleted
#include <singleflight/group.hpp>

singleflight::leader<int> copy(const singleflight::leader<int>& lead) { return lead; }
