// SPDX-License-Identifier: MIT
// expect: the observer's joined must be callable with the event
#include <singleflight/group.hpp>

struct counts {
  void joined(int) const noexcept {}
};

int main() { const singleflight::group<int, int, std::hash<int>, std::equal_to<int>, counts> g; }
