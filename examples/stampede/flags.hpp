// SPDX-License-Identifier: MIT
#ifndef STAMPEDE_FLAGS_HPP
#define STAMPEDE_FLAGS_HPP

#include <array>
#include <charconv>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <optional>
#include <stdexcept>
#include <string>
#include <string_view>
#include <system_error>

namespace stampede {

struct settings {
  double rate = 0;  // 0: four times the database's rate, measured while the cache is warmed
  double seconds = 2.5;
  double threads = 256;
  double templates = 5000;
  double skew = 1.6;
  bool help = false;
};

/// An unknown flag, or a flag with a wrong value; `what()` is the one line for the user.
struct bad_flag : std::runtime_error {
  using std::runtime_error::runtime_error;
};

struct flag {
  std::string_view name;
  double settings::*value;
  double least;
  double most;
  bool whole;
  const char* help;
};

inline constexpr std::array<flag, 5> flags{{
    {"--rate", &settings::rate, 1, 100'000, true,
     "requests a second (default: 4 times what the database answers)"},
    {"--seconds", &settings::seconds, 0.5, 60, false, "length of each act (default: 2.5)"},
    {"--threads", &settings::threads, 1, 4096, true, "threads that serve requests (default: 256)"},
    {"--templates", &settings::templates, 1, 100'000, true, "templates stored (default: 5000)"},
    {"--skew", &settings::skew, 0, 5, false, "exponent of the Zipf distribution (default: 1.6)"},
}};

/// Reads "12" or "1.25". (Not every standard library has std::from_chars for floating point.)
inline std::optional<double> parse_number(std::string text) {
  const std::size_t point = text.find('.');
  const std::size_t decimals = point == std::string::npos ? 0 : text.size() - point - 1;
  if (point != std::string::npos) text.erase(point, 1);
  std::uint32_t digits = 0;
  const char* const end = text.data() + text.size();
  const auto [stopped_at, error] = std::from_chars(text.data(), end, digits);
  if (error != std::errc() || stopped_at != end) return std::nullopt;
  return digits / std::pow(10.0, decimals);
}

inline void set_flag(settings& all, const flag& f, const std::string& text) {
  const std::optional<double> number = parse_number(text);
  if (number && *number >= f.least && *number <= f.most &&
      (!f.whole || *number == std::floor(*number))) {
    all.*f.value = *number;
    return;
  }
  std::array<char, 100> wanted{};
  std::snprintf(wanted.data(), wanted.size(), " wants a %s from %g to %.0f, not \"",
                f.whole ? "whole number" : "number", f.least, f.most);
  throw bad_flag(std::string(f.name) + wanted.data() + text + '"');
}

/// Accepts `--name value` and `--name=value`.
inline settings parse_flags(int argc, char** argv) {
  settings all;
  for (int i = 1; i < argc; ++i) {
    const std::string argument = argv[i];
    const std::size_t equals = argument.find('=');
    const std::string name = argument.substr(0, equals);
    if (argument == "--help") {
      all.help = true;
      return all;
    }
    const flag* known = nullptr;
    for (const flag& f : flags) {
      if (f.name == name) known = &f;
    }
    if (known == nullptr) {
      throw bad_flag("there is no flag \"" + name + "\"; --help lists them");
    }
    if (equals != std::string::npos) {
      set_flag(all, *known, argument.substr(equals + 1));
    } else {
      set_flag(all, *known, ++i < argc ? argv[i] : "");
    }
  }
  return all;
}

inline void print_help() {
  std::puts(
      "usage: stampede [--rate N] [--seconds N] [--threads N] [--templates N] [--skew N]\n"
      "A cache in front of a database is lost, without and with singleflight.\n");
  for (const flag& f : flags) {
    std::printf("  %-13s%s\n", std::string(f.name).c_str(), f.help);
  }
}

}  // namespace stampede

#endif  // STAMPEDE_FLAGS_HPP
