// SPDX-License-Identifier: MIT
// expect: this Value cannot be copied, and other callers may hold it
#include <memory>
#include <singleflight/group.hpp>

void load(singleflight::group<int, std::unique_ptr<int>>& g) {
  (void)g.do_call(1, [] { return std::make_unique<int>(42); }).value();
}
