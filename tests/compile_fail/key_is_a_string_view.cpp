// SPDX-License-Identifier: MIT
// expect: make Key a std::string or another type that owns
#include <singleflight/group.hpp>
#include <string_view>

singleflight::group<std::string_view, int> g;
