// SPDX-License-Identifier: MIT
// expect: the key is not convertible to Key
#include <cstddef>
#include <functional>
#include <singleflight/group.hpp>
#include <string>
#include <string_view>

struct hash {
  using is_transparent = void;
  std::size_t operator()(std::string_view s) const { return std::hash<std::string_view>()(s); }
};

void load(singleflight::group<std::string, int, hash>& g) {
  (void)g.do_call(std::string_view("key"), [] { return 42; });
}
