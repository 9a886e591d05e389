// SPDX-License-Identifier: MIT
// expect: a coroutine takes async_options, which have no deadline
#include <chrono>
#include <singleflight/coroutine.hpp>

void load(singleflight::group<int, int>& g) {
  (void)g.co_call(1, singleflight::resume_inline,
                  singleflight::call_options{.timeout = std::chrono::seconds(1)},
                  [] { return 42; });
}
