// SPDX-License-Identifier: MIT
// expect: the observer's call_ended must be noexcept
#include <singleflight/group.hpp>

struct logs {
  void call_ended(const auto&) const {}
};

int main() {
  singleflight::group<int, int, std::hash<int>, std::equal_to<int>, logs> g;
  return g.do_call(1, [] { return 1; });
}
