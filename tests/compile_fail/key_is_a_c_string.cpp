// SPDX-License-Identifier: MIT
// expect: make Key a std::string or another type that owns
#include <singleflight/group.hpp>

singleflight::group<const char*, int> g;
