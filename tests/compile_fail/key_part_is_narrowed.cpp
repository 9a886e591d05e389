// SPDX-License-Identifier: MIT
// expect: Key is narrower than this key
#include <cstdint>
#include <optional>
#include <singleflight/group.hpp>

void load(singleflight::group<std::optional<std::uint32_t>, int>& g, std::uint64_t id) {
  (void)g.do_call(id, [] { return 42; });
}
