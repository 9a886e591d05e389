// SPDX-License-Identifier: MIT
// expect: this key can be looked up, but
#include <cstddef>
#include <functional>
#include <singleflight/group.hpp>
#include <string>

struct number {};
struct hash {
  using is_transparent = void;
  std::size_t operator()(const std::string&) const;
  std::size_t operator()(number) const;
};
struct equal {
  using is_transparent = void;
  bool operator()(const std::string&, const std::string&) const;
  bool operator()(const std::string&, number) const;
};

int lead(singleflight::group<std::string, int, hash, equal>& g) {
  return g.do_call(number(), [] { return 1; });
}
