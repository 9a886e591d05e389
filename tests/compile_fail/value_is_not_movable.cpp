// SPDX-License-Identifier: MIT
// expect: Value must be movable
#include <mutex>
#include <singleflight/group.hpp>

singleflight::group<int, std::mutex> g;
