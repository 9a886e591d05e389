// SPDX-License-Identifier: MIT
// expect: deleted function
#include <memory>
#include <singleflight/group.hpp>

void take(singleflight::group<int, std::unique_ptr<int>>& g) {
  std::unique_ptr<int> value = g.do_call(1, [] { return std::make_unique<int>(42); });
}
