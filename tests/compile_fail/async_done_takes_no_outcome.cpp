// SPDX-License-Identifier: MIT
// expect: done must be callable with an outcome<Value>
#include <singleflight/group.hpp>

void load(singleflight::group<int, int>& g) {
  g.async_call(
      1, singleflight::resume_inline, {},
      [](singleflight::leader<int> lead) { std::move(lead).set_value(1); }, [](int) {});
}
