// SPDX-License-Identifier: MIT
// expect: Value must not be a future or a promise
#include <future>
#include <singleflight/group.hpp>

singleflight::group<int, std::future<int>> g;
