// SPDX-License-Identifier: MIT
// expect: what the observer's capture returns must be trivially copyable
#include <singleflight/group.hpp>
#include <string>

struct traces {
  static std::string capture() noexcept { return {}; }
};

int main() { const singleflight::group<int, int, std::hash<int>, std::equal_to<int>, traces> g; }
