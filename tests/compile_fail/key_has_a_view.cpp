// SPDX-License-Identifier: MIT
// expect: make Key a std::string or another type that owns
#include <cstddef>
#include <singleflight/group.hpp>
#include <string_view>
#include <utility>

using key = std::pair<int, std::string_view>;
struct hash {
  std::size_t operator()(const key& k) const { return static_cast<std::size_t>(k.first); }
};

singleflight::group<key, int, hash> g;
