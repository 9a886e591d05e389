// SPDX-License-Identifier: MIT
// expect: Key is narrower than this key
#include <cstdint>
#include <optional>
#include <singleflight/read_through.hpp>

struct cache {
  std::optional<singleflight::cache_entry<int>> find(std::uint32_t key);
  void put(std::uint32_t key, const singleflight::cache_entry<int>& e);
  void erase(std::uint32_t key);
};
using reader = singleflight::read_through<std::uint32_t, int, cache&>;

void invalidate(reader& r, std::uint64_t id) { r.invalidate(id); }
