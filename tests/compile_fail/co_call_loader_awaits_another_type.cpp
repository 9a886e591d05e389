// SPDX-License-Identifier: MIT
// expect: what awaiting the loader's result gives must convert to the group's Value
#include <coroutine>
#include <singleflight/coroutine.hpp>
#include <string>

struct text {
  bool await_ready() const { return true; }
  void await_suspend(std::coroutine_handle<>) const {}
  std::string await_resume() const { return {}; }
};

void load(singleflight::group<int, int>& g) {
  (void)g.co_call(1, singleflight::resume_inline, [] { return text(); });
}
