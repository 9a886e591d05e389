// SPDX-License-Identifier: MIT
// A call that lasts as long as a test wants.
#ifndef SINGLEFLIGHT_TESTS_HELD_CALL_HPP
#define SINGLEFLIGHT_TESTS_HELD_CALL_HPP

#include <gtest/gtest.h>

#include <chrono>
#include <future>
#include <singleflight/group.hpp>

#include "support.hpp"

namespace support {

/// A call for key 0, led by a thread of its own, that ends when it is told to, or with the test.
class held_call {
 public:
  explicit held_call(singleflight::group<int, int>& g,
                     const singleflight::call_options& options = {}) {
    const auto led = g.stats().led;
    leader_.start([&g, options, this] {
      auto result = g.do_call(0, options, [this] { return value_.get_future().get(); });
      EXPECT_TRUE(result.led());
      value = *result;
      shared = result.shared();
    });
    await([&] { return g.stats().led > led; }, "the call to run");
    begun = std::chrono::steady_clock::now();
  }
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
  int value = 0;                                // what the leader got, once the call has ended
  bool shared = false;                          // likewise

 private:
  std::promise<int> value_;
  bool ended_ = false;
  threads leader_;
};

}  // namespace support

#endif  // SINGLEFLIGHT_TESTS_HELD_CALL_HPP
