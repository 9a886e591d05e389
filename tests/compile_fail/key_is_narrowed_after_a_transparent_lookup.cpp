// SPDX-License-Identifier: MIT
// expect: Key is narrower than this key
#include <cstddef>
#include <cstdint>
#include <functional>
#include <singleflight/group.hpp>

struct hash {
  using is_transparent = void;
  std::size_t operator()(std::uint64_t n) const { return n; }
};

void load(singleflight::group<std::uint32_t, int, hash, std::equal_to<>>& g, std::uint64_t id) {
  (void)g.do_call(id, [] { return 42; });
}
