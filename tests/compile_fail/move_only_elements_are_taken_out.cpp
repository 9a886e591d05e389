// SPDX-License-Identifier: MIT
// expect: deleted function
#include <memory>
#include <singleflight/group.hpp>
#include <vector>

using rows = std::vector<std::unique_ptr<int>>;

rows load(singleflight::group<int, rows>& g) {
  return g.do_call(1, [] { return rows(); });
}
