// SPDX-License-Identifier: MIT
#ifndef STAMPEDE_TEXT_HPP
#define STAMPEDE_TEXT_HPP

#include <array>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <string>

#include "open_loop.hpp"

namespace stampede {

/// 1234567 as "1,234,567".
inline std::string grouped(std::uint64_t number) {
  std::string digits = std::to_string(number);
  for (std::size_t at = digits.size(); at > 3;) digits.insert(at -= 3, 1, ',');
  return digits;
}

inline std::string decimal(double number, int places) {
  std::array<char, 64> text{};
  std::snprintf(text.data(), text.size(), "%.*f", places, number);
  return text.data();
}

inline std::string duration(seconds span) {
  const double s = span.count();
  if (s >= 0.9995) return decimal(s, 2) + " s";
  const double ms = s * 1000;
  return decimal(ms, ms < 9.95 ? 2 : 0) + " ms";
}

}  // namespace stampede

#endif  // STAMPEDE_TEXT_HPP
