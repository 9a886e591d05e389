// SPDX-License-Identifier: MIT
// expect: Key is narrower than this key
#include <cstdint>
#include <singleflight/group.hpp>

struct strong_id {
  std::uint64_t number;
  operator std::uint64_t() const { return number; }
};

void forget(singleflight::group<std::uint32_t, int>& g, strong_id id) { g.forget(id); }
