// SPDX-License-Identifier: MIT
// expect: conversion
// flags: -Wconversion -Werror
#include <cstdint>
#include <optional>
#include <singleflight/read_through.hpp>

struct cache {
  std::optional<singleflight::cache_entry<int>> find(std::uint32_t key);
  void put(std::uint32_t key, const singleflight::cache_entry<int>& e);
  void erase(std::uint32_t key);
};
using reader = singleflight::read_through<std::uint32_t, int, cache&>;

void load(reader& r, std::int64_t row) {
  (void)r.get(1U, [&] { return row; });
}
