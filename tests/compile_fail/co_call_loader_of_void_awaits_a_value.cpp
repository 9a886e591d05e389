// SPDX-License-Identifier: MIT
// expect: and be nothing where that is void
#include <coroutine>
#include <singleflight/coroutine.hpp>

struct number {
  bool await_ready() const { return true; }
  void await_suspend(std::coroutine_handle<>) const {}
  int await_resume() const { return 42; }
};

void load(singleflight::group<int, void>& g) {
  (void)g.co_call(1, singleflight::resume_inline, [] { return number(); });
}
