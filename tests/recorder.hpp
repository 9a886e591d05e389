// SPDX-License-Identifier: MIT
#ifndef SINGLEFLIGHT_TESTS_RECORDER_HPP
#define SINGLEFLIGHT_TESTS_RECORDER_HPP

#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <singleflight/group.hpp>
#include <singleflight/observer.hpp>
#include <string>
#include <utility>
#include <vector>

#include "support.hpp"

// An observer that writes down what it is told, and a group that has it.
namespace support {

/// What this thread gives as its span.
inline thread_local int span_of_this_thread = 0;

/// Everything that was told, in order.
class record {
 public:
  void add(const std::string& event) {
    const std::lock_guard lock(mutex_);
    events_.push_back(event);
    if (then_) then_();
  }
  [[nodiscard]] std::vector<std::string> events() const {
    const std::lock_guard lock(mutex_);
    return events_;
  }
  [[nodiscard]] std::ptrdiff_t count(const std::string& prefix) const {
    const std::lock_guard lock(mutex_);
    return std::count_if(events_.begin(), events_.end(), [&](const std::string& e) {
      return e == prefix || e.compare(0, prefix.size() + 1, prefix + ' ') == 0;
    });
  }
  /// Has `then` called, from now on, in each hook.
  void then(std::function<void()> f) { then_ = std::move(f); }

 private:
  mutable std::recursive_mutex mutex_;
  std::vector<std::string> events_;
  std::function<void()> then_;
};

/// Sums by which `stats()` is checked.
struct sums {
  std::atomic<std::uint64_t> led{0}, joined{0}, rejected{0}, failed{0}, timed_out{0}, cancelled{0},
      superseded{0}, began{0}, ended{0}, joins{0}, in_future{0}, waits{0}, left_joined{0};
};

struct recorder {
  std::shared_ptr<record> to = std::make_shared<record>();
  std::shared_ptr<sums> sum = std::make_shared<sums>();

  [[nodiscard]] int capture() const noexcept { return span_of_this_thread; }

  void call_began(const int& key, const auto& e) const noexcept {
    ++sum->began;
    if (!e.again) ++(e.alone ? sum->rejected : sum->led);
    to->add("began " + std::to_string(key) + (e.alone ? " alone" : "") + (e.again ? " again" : "") +
            span(e.leader));
  }
  void call_ended(const int& key, const auto& e) const noexcept {
    ++sum->ended;
    if (e.how == singleflight::ending::exception) ++sum->failed;
    expect_since_then(e.took);
    to->add("ended " + std::to_string(key) + ' ' + to_string(e.how) + ' ' +
            std::to_string(e.followers) + span(e.leader));
  }
  void joined(const int& key, const auto& e) const noexcept {
    if (!e.again) ++sum->joined;
    if (e.in_future) ++sum->in_future;
    to->add("joined " + std::to_string(key) + ' ' + std::to_string(e.followers) +
            (e.in_future ? " in_future" : "") + (e.again ? " again" : "") + span(e.leader));
    ++sum->joins;  // last: lead_until waits for it
  }
  void wait_ended(const int& key, const auto& e) const noexcept {
    ++sum->waits;
    expect_since_then(e.waited);
    to->add("wait_ended " + std::to_string(key) + ' ' + to_string(e.how) + span(e.leader));
  }
  void left(const int& key, const auto& e) const noexcept {
    if (!e.began) ++sum->left_joined;
    if (e.why == singleflight::leaving::deadline) ++sum->timed_out;
    if (e.why == singleflight::leaving::stop) ++sum->cancelled;
    expect_since_then(e.waited);
    to->add("left " + std::to_string(key) + ' ' + to_string(e.why) + (e.began ? " its own" : "") +
            span(e.leader));
  }
  void superseded(const int& key, const auto& e) const noexcept {
    ++sum->superseded;
    EXPECT_GT(e.age, std::chrono::nanoseconds::zero());
    to->add("superseded " + std::to_string(key));
  }
  void rejected(const int& key, const auto& e) const noexcept {
    if (!e.again) ++sum->rejected;
    if (e.why == singleflight::refusal::deadline) ++sum->timed_out;
    if (e.why == singleflight::refusal::stop) ++sum->cancelled;
    to->add("rejected " + std::to_string(key) + ' ' + to_string(e.why) + (e.again ? " again" : ""));
  }

 private:
  /// What it was told of has begun after this was made.
  void expect_since_then(std::chrono::steady_clock::duration lasted) const noexcept {
    EXPECT_GE(lasted, std::chrono::nanoseconds::zero());
    EXPECT_LE(lasted, std::chrono::steady_clock::now() - made_);
  }

  std::chrono::steady_clock::time_point made_ = std::chrono::steady_clock::now();

  static std::string span(int captured) {
    return captured == 0 ? "" : " of " + std::to_string(captured);
  }
};

using watched = singleflight::group<int, int, std::hash<int>, std::equal_to<int>, recorder>;
using words = std::vector<std::string>;

class observed : public testing::Test {
 protected:
  explicit observed(const singleflight::group_options& options = {}) : g(options, {}, {}, told) {}
  ~observed() override { expect_sums(); }

  /// Each began has ended, each joined has ended or left, and the sums are those of `stats()`.
  void expect_sums() const {
    await([&] { return told.sum->began == told.sum->ended; }, "the calls to end");
    const singleflight::group_stats s = g.stats();
    EXPECT_EQ(told.sum->joins, told.sum->waits + told.sum->left_joined + told.sum->in_future);
    EXPECT_EQ(told.sum->led, s.led);
    EXPECT_EQ(told.sum->joined, s.joined);
    EXPECT_EQ(told.sum->rejected, s.rejected);
    EXPECT_EQ(told.sum->failed, s.failed);
    EXPECT_EQ(told.sum->timed_out, s.timed_out);
    EXPECT_EQ(told.sum->cancelled, s.cancelled);
    EXPECT_EQ(told.sum->superseded, s.superseded);
  }

  [[nodiscard]] words events() const { return told.to->events(); }

  /// Leads a call whose loader waits until `n` callers wait, and then does `then`.
  template <class Then>
  int lead_until(std::size_t n, const Then& then) {
    return *g.do_call(1, [&] {
      await([&] { return g.stats().waiting == n && told.sum->joins >= n; }, "the waiters");
      return then();
    });
  }

  recorder told;
  watched g;
};

}  // namespace support

#endif  // SINGLEFLIGHT_TESTS_RECORDER_HPP
