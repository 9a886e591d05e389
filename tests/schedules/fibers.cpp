// SPDX-License-Identifier: MIT
#include "fibers.hpp"

#include <cxxabi.h>

#include <boost/context/protected_fixedsize_stack.hpp>
#include <cstring>
#include <utility>

#include "../sanitizers.hpp"

#if defined(SINGLEFLIGHT_TESTS_ASAN)
#include <sanitizer/common_interface_defs.h>
#endif

namespace schedules {
namespace {

constexpr std::size_t stack_size = std::size_t{256} << 10U;

void swap_exceptions(exception_state& out, const exception_state& in) noexcept {
  void* const live = abi::__cxa_get_globals();
  std::memcpy(&out, live, sizeof out);
  std::memcpy(live, &in, sizeof in);
}

}  // namespace

fibers::fibers(std::size_t count, void (*loop)(std::size_t))
    : contexts_(count + 1), current_(count) {
  for (std::size_t i = 0; i < count; ++i) {
    auto stacks = boost::context::protected_fixedsize_stack(stack_size);
    const boost::context::stack_context made = stacks.allocate();
    contexts_[i].size = made.size;
    contexts_[i].stack = static_cast<const char*>(made.sp) - made.size;
    contexts_[i].parked = boost::context::fiber(
        std::allocator_arg, boost::context::preallocated(made.sp, made.size, made), stacks,
        [loop, i](boost::context::fiber&&) -> boost::context::fiber {
          loop(i);
          std::abort();  // it never returns
        });
  }
}

void fibers::switch_to(std::size_t to) {
  const std::size_t from = std::exchange(current_, to);
  swap_exceptions(contexts_[from].exceptions, contexts_[to].exceptions);
  for (std::size_t i = 0; i < words_.size(); ++i) {
    if (words_[i] == nullptr) continue;
    contexts_[from].words[i] = std::exchange(*words_[i], contexts_[to].words[i]);
  }
#if defined(SINGLEFLIGHT_TESTS_ASAN)
  __sanitizer_start_switch_fiber(&contexts_[from].fake_stack, contexts_[to].stack,
                                 contexts_[to].size);
#endif
  // The fiber that is left is stored by the next fiber, on the stack of that one.
  (void)std::move(contexts_[to].parked).resume_with([this, from](boost::context::fiber&& left) {
    contexts_[from].parked = std::move(left);
    return boost::context::fiber();
  });
#if defined(SINGLEFLIGHT_TESTS_ASAN)
  __sanitizer_finish_switch_fiber(contexts_[from].fake_stack, nullptr, nullptr);
#endif
}

void fibers::arrive() noexcept {
#if defined(SINGLEFLIGHT_TESTS_ASAN)
  // The first fiber to be left is the main stack, which only the sanitizer knows.
  context& main_context = contexts_.back();
  const bool first = main_context.stack == nullptr;
  const void* stack = nullptr;
  std::size_t size = 0;
  __sanitizer_finish_switch_fiber(nullptr, &stack, &size);
  if (first) {
    main_context.stack = stack;
    main_context.size = size;
  }
#endif
}

}  // namespace schedules
