// SPDX-License-Identifier: MIT
// The code that the others here differ from.
#include <singleflight/coroutine.hpp>
#include <utility>

void load(singleflight::group<int, int>& g) {
  (void)g.co_call(1, singleflight::resume_inline, {.attempts = 2}, [] { return 42; });
  (void)g.co_call(
      1, [](auto task) { task(); }, [](int key) { return key; });
  (void)g.drained();
  g.async_call(
      1, singleflight::resume_inline, {},
      [](singleflight::leader<int> lead) { std::move(lead).set_value(1); },
      [](const singleflight::outcome<int>&) {});
}
