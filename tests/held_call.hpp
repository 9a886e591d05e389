// SPDX-License-Identifier: MIT
// A call that ends when the test tells it to.
#ifndef SINGLEFLIGHT_TESTS_HELD_CALL_HPP
#define SINGLEFLIGHT_TESTS_HELD_CALL_HPP

#include <gtest/gtest.h>

#include <atomic>
#include <chrono>
#include <functional>
#include <future>
#include <singleflight/group.hpp>
#include <system_error>
#include <version>

#if defined(__cpp_lib_jthread)
#include <stop_token>
#endif

#include "support.hpp"

namespace support {

/// A call for key 0, led by a thread of its own, that ends when it is told to, or with the test.
class held_call {
 public:
  explicit held_call(singleflight::group<int, int>& g,
                     const singleflight::call_options& options = {}) {
    start(g, options, [this] { return hold(); });
  }
#if defined(__cpp_lib_jthread)
  /// The same, with a loader that counts the requests to stop, and calls `when_stopped` for each.
  held_call(singleflight::group<int, int>& g, const singleflight::call_options& options,
            const std::function<void()>& when_stopped) {
    start(g, options, [this, when_stopped](std::stop_token token) {
      const std::stop_callback on_stop(token, [&] {
        when_stopped();
        ++stops;
      });
      return hold();
    });
  }
#endif
  held_call(const held_call&) = delete;
  held_call& operator=(const held_call&) = delete;
  ~held_call() {
    if (!ended_) end(-1);
  }
  void end(int result) {
    ended_ = true;
    value_.set_value(result);
    leader_.join();
  }

  std::chrono::steady_clock::time_point begun;  // at the latest
  std::atomic<int> stops{0};
  int value = 0;        // what the leader got, once the call has ended
  bool shared = false;  // likewise

 private:
  template <class Load>
  void start(singleflight::group<int, int>& g, const singleflight::call_options& options,
             const Load& load) {
    leader_.start([this, &g, options, load] {
      auto result = g.do_call(0, options, load);
      EXPECT_TRUE(result.led());
      value = *result;
      shared = result.shared();
    });
    await([&] { return running_.load(); }, "the loader to run");
    begun = std::chrono::steady_clock::now();
  }

  int hold() {
    running_ = true;
    return value_.get_future().get();
  }

  std::promise<int> value_;
  std::atomic<bool> running_{false};
  bool ended_ = false;
  threads leader_;
};

/// Asks for the held call's key. The caller must be refused, or leave, with `code`.
inline void expect_error(singleflight::group<int, int>& g,
                         const singleflight::call_options& options, std::errc code) {
  try {
    (void)g.do_call(0, options, [] {
      ADD_FAILURE() << "the caller's own loader ran";
      return 0;
    });
    ADD_FAILURE() << "got a value";
  } catch (const singleflight::call_error& e) {
    EXPECT_EQ(e.code(), code);
  }
}

}  // namespace support

#endif  // SINGLEFLIGHT_TESTS_HELD_CALL_HPP
