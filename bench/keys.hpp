// SPDX-License-Identifier: MIT
#ifndef SINGLEFLIGHT_BENCH_KEYS_HPP
#define SINGLEFLIGHT_BENCH_KEYS_HPP

#include <cstdint>
#include <string>

namespace bench {

/// Makes the n-th key, and has the name of its type in the tables.
template <class Key>
struct keys;

template <>
struct keys<std::uint64_t> {
  static constexpr const char* name = "integer";
  static std::uint64_t make(int n) { return 1000U + static_cast<std::uint64_t>(n); }
};

template <>
struct keys<std::string> {
  static constexpr const char* name = "string";
  static std::string make(int n) {  // 24 characters: no small string
    std::string key = "template-details:en-GB:0";
    key.back() = static_cast<char>('0' + n);
    return key;
  }
};

}  // namespace bench

#endif  // SINGLEFLIGHT_BENCH_KEYS_HPP
