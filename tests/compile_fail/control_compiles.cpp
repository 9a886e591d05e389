// SPDX-License-Identifier: MIT
// Must compile, with the same include path: else the failures of the other files would mean
// nothing.
#include <memory>
#include <singleflight/group.hpp>
#include <string>

void load(singleflight::group<std::string, std::unique_ptr<int>>& g) {
  const auto result = g.do_call("key", [] { return std::make_unique<int>(42); });
  (void)result.value();
}
