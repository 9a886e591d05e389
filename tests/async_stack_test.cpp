// SPDX-License-Identifier: MIT
// Many waiters, and long chains of calls that end each other, take a bounded stack.
#include <gtest/gtest.h>

#include <cstddef>
#include <cstdint>
#include <exception>
#include <functional>
#include <memory>
#include <optional>
#include <singleflight/coroutine.hpp>
#include <singleflight/group.hpp>
#include <stdexcept>
#include <utility>
#include <vector>

#if defined(_MSC_VER)
#include <intrin.h>
#endif

#include "async_callers.hpp"
#include "executors.hpp"
#include "support.hpp"
#include "tasks.hpp"

namespace {

using namespace support;
using singleflight::async_options;
using singleflight::leader;
using singleflight::outcome;
using singleflight::resume_inline;

constexpr int many = 100'000;

/// How far below its first use the stack has been used.
class depth {
 public:
  void note() noexcept {
    const auto address = reinterpret_cast<std::uintptr_t>(this_frame());
    if (top_ == 0) top_ = address;
    const std::uintptr_t used = top_ > address ? top_ - address : address - top_;
    if (used > most_) most_ = used;
  }
  [[nodiscard]] std::size_t most() const noexcept { return most_; }

 private:
  /// Not the address of a local variable, which a sanitizer may put elsewhere.
  [[nodiscard]] static const void* this_frame() noexcept {
#if defined(_MSC_VER)
    return _AddressOfReturnAddress();
#else
    return __builtin_frame_address(0);
#endif
  }

  std::uintptr_t top_ = 0;
  std::uintptr_t most_ = 0;
};

// No sanitizer and no compiler option makes a frame so large.
constexpr std::size_t some_frames = 64UL * 1024;

TEST(BoundedStack, OfAHundredThousandCallbacks) {
  group flights;
  std::optional<leader<int>> lead;
  depth used;
  int sum = 0;
  const auto done = [&](const outcome<int>& o) {
    used.note();
    sum += o.value();
  };
  flights.async_call(1, resume_inline, {}, keep(lead), done);
  for (int i = 1; i < many; ++i) flights.async_call(1, resume_inline, {}, never, done);
  std::move(*lead).set_value(1);
  EXPECT_EQ(sum, many);
  EXPECT_LT(used.most(), some_frames);
  expect_idle(flights);
}

TEST(BoundedStack, OfAHundredThousandCoroutines) {
  group flights;
  std::optional<leader<int>> lead;
  flights.async_call(1, resume_inline, {}, keep(lead), [](const auto&) {});
  depth used;
  int sum = 0;
  std::vector<frame> all;
  all.reserve(many);
  for (int i = 0; i < many; ++i) {
    all.push_back([](group& g, depth& d, int& total) -> frame {
      const auto r = co_await g.co_call(1, resume_inline, [] { return 0; });
      d.note();
      total += *r;
    }(flights, used, sum));
  }
  std::move(*lead).set_value(1);
  EXPECT_EQ(sum, many);
  EXPECT_LT(used.most(), some_frames);
  expect_idle(flights);
}

// The caller of each call ends the next one.
TEST(BoundedStack, OfAChainOfCallsThatEndTheNext) {
  group flights;
  depth used;
  std::vector<std::optional<leader<int>>> leads(many);
  int ended = 0;
  for (int i = 0; i < many; ++i) {
    flights.async_call(i, resume_inline, {}, keep(leads[static_cast<std::size_t>(i)]),
                       [&, i](const outcome<int>& o) {
                         used.note();
                         ended += o.value();
                         if (i + 1 == many) return;
                         std::move(*leads[static_cast<std::size_t>(i) + 1]).set_value(1);
                       });
  }
  std::move(*leads[0]).set_value(1);
  EXPECT_EQ(ended, many);
  EXPECT_LT(used.most(), some_frames);
  expect_idle(flights);
}

// The same with failures, which must not be lost.
TEST(BoundedStack, OfAChainOfCallsThatFailTheNext) {
  group flights;
  depth used;
  std::vector<std::optional<leader<int>>> leads(many);
  int failed = 0;
  for (int i = 0; i < many; ++i) {
    flights.async_call(
        i, resume_inline, {}, keep(leads[static_cast<std::size_t>(i)]),
        [&, i](const outcome<int>& o) {
          used.note();
          failed += text_of(o.error()) == "first" ? 1 : 0;
          if (i + 1 == many) return;
          std::move(*leads[static_cast<std::size_t>(i) + 1]).set_exception(o.error());
        });
  }
  std::move(*leads[0]).set_exception(std::make_exception_ptr(std::runtime_error("first")));
  EXPECT_EQ(failed, many);
  EXPECT_LT(used.most(), some_frames);
}

// The loader of each call waits for the one before.
TEST(BoundedStack, OfAChainOfCoroutinesThatWaitForEachOther) {
  singleflight::group<int, int> flights;
  depth used;
  std::optional<leader<int>> lead;
  flights.async_call(0, resume_inline, {}, keep(lead), [](const auto&) {});
  int last = 0;
  std::vector<frame> all;
  all.reserve(many);
  for (int i = 1; i <= many; ++i) {
    all.push_back([](auto& g, int key, depth& d, int& out) -> frame {
      const auto r = co_await g.co_call(key, resume_inline, [&g](int own) -> lazy_task<int> {
        co_return 1 + *co_await g.co_call(own - 1, resume_inline, [] { return 0; });
      });
      d.note();
      out = *r;
    }(flights, i, used, last));
  }
  std::move(*lead).set_value(0);
  EXPECT_EQ(last, many);
  EXPECT_LT(used.most(), some_frames);
  expect_idle(flights);
}

// Each caller, when it is resumed, begins the next call, whose loader is ready at once.
TEST(BoundedStack, OfALoopOverLoadersThatAreReadyAtOnce) {
  group flights;
  depth used;
  int sum = 0;
  const frame done = [](group& g, depth& d, int& total) -> frame {
    for (int i = 0; i < many; ++i) {
      total += *co_await g.co_call(1, resume_inline, [] { return 1; });
      d.note();
    }
  }(flights, used, sum);
  EXPECT_TRUE(done.done());
  EXPECT_EQ(sum, many);
  EXPECT_LT(used.most(), some_frames);
}

TEST(BoundedStack, OfCallbacksThatBeginTheNextCallWhichIsReadyAtOnce) {
  group flights;
  depth used;
  int left = many;
  std::function<void()> next = [&] {
    flights.async_call(
        1, resume_inline, {}, [](leader<int> lead) { std::move(lead).set_value(1); },
        [&](const outcome<int>& o) {
          used.note();
          left -= o.value();
          if (left > 0) next();
        });
  };
  next();
  EXPECT_EQ(left, 0);
  EXPECT_LT(used.most(), some_frames);
  expect_idle(flights);
}

// Callers that are refused at once and ask again.
TEST(BoundedStack, OfCallbacksThatAreRefusedAndAskAgain) {
  group flights({.max_waiters = 0});
  std::optional<leader<int>> lead;
  flights.async_call(1, resume_inline, {}, keep(lead), [](const auto&) {});
  depth used;
  int left = many;
  std::function<void()> next = [&] {
    flights.async_call(1, resume_inline, {}, never, [&](const outcome<int>& o) {
      used.note();
      EXPECT_FALSE(o.has_value());
      if (--left > 0) next();
    });
  };
  next();
  EXPECT_EQ(left, 0);
  EXPECT_LT(used.most(), some_frames);
  std::move(*lead).set_value(1);
}

#if defined(__cpp_lib_jthread)
// Each caller, when it is stopped, stops the next.
TEST(BoundedStack, OfAChainOfCallersThatStopTheNext) {
  group flights;
  std::optional<leader<int>> lead;
  flights.async_call(1, resume_inline, {}, keep(lead), [](const auto&) {});
  constexpr std::size_t some = 20'000;
  depth used;
  std::vector<std::stop_source> stops(some);
  std::size_t stopped = 0;
  for (std::size_t i = 0; i < some; ++i) {
    flights.async_call(1, resume_inline, {.stop = stops[i].get_token()}, never,
                       [&, i](const outcome<int>&) {
                         used.note();
                         ++stopped;
                         if (i + 1 < some) stops[i + 1].request_stop();
                       });
  }
  stops[0].request_stop();
  EXPECT_EQ(stopped, some);
  EXPECT_LT(used.most(), some_frames);
  std::move(*lead).set_value(1);
  expect_idle(flights);
}
#endif

}  // namespace
