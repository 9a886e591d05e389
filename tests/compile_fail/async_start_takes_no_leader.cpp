// SPDX-License-Identifier: MIT
// expect: start must be callable with a leader<Value>
#include <singleflight/group.hpp>

void load(singleflight::group<int, int>& g) {
  g.async_call(
      1, singleflight::resume_inline, {}, [] {}, [](const singleflight::outcome<int>&) {});
}
