// SPDX-License-Identifier: MIT
// What the observer of the group was told, where faults_test is compiled with one.
#ifndef SINGLEFLIGHT_TESTS_FAULTS_EVENTS_HPP
#define SINGLEFLIGHT_TESTS_FAULTS_EVENTS_HPP

#include <gtest/gtest.h>

#include <atomic>
#include <cstdint>
#include <singleflight/group.hpp>
#include <singleflight/observer.hpp>

namespace faults {

#if defined(SINGLEFLIGHT_TESTS_OBSERVED)

class events {
  using count = std::atomic<std::uint64_t>;

 public:
  struct observer {
    events* to;
    void call_began(const auto& e) const noexcept {
      ++to->began_;
      if (!e.again) ++(e.alone ? to->rejected_ : to->led_);
    }
    void call_ended(const auto& e) const noexcept {
      ++to->ended_;
      if (e.how == singleflight::ending::exception) ++to->failed_;
    }
    void joined(const auto& e) const noexcept {
      ++to->joins_;
      if (!e.again) ++to->joined_;
      if (e.in_future) ++to->waits_;
    }
    void wait_ended(const auto&) const noexcept { ++to->waits_; }
    void left(const auto& e) const noexcept {
      if (!e.began) ++to->waits_;
      if (e.why == singleflight::leaving::deadline) ++to->timed_out_;
      if (e.why == singleflight::leaving::stop) ++to->cancelled_;
    }
    void superseded(const auto&) const noexcept { ++to->superseded_; }
    void rejected(const auto& e) const noexcept {
      if (!e.again) ++to->rejected_;
      if (e.why == singleflight::refusal::deadline) ++to->timed_out_;
      if (e.why == singleflight::refusal::stop) ++to->cancelled_;
    }
  };

  [[nodiscard]] observer hooks() noexcept { return {this}; }

  /// Expects that each call and each wait has ended once, and the sums of `stats()`. A call counts as
  /// failed also if the caller that began it cannot move its value, after its end was told.
  void expect_sums(const singleflight::group_stats& s, bool values_move) const {
    EXPECT_EQ(began_, ended_);
    EXPECT_EQ(joins_, waits_);
    EXPECT_EQ(led_, s.led);
    EXPECT_EQ(joined_, s.joined);
    EXPECT_EQ(rejected_, s.rejected);
    EXPECT_LE(failed_, s.failed);
    if (values_move) {
      EXPECT_EQ(failed_, s.failed);
    }
    EXPECT_EQ(timed_out_, s.timed_out);
    EXPECT_EQ(cancelled_, s.cancelled);
    EXPECT_EQ(superseded_, s.superseded);
  }

 private:
  count began_ = 0, ended_ = 0, joins_ = 0, waits_ = 0, led_ = 0, joined_ = 0, rejected_ = 0,
        failed_ = 0, timed_out_ = 0, cancelled_ = 0, superseded_ = 0;
};

#else

struct events {
  using observer = singleflight::no_observer;
  [[nodiscard]] static observer hooks() noexcept { return {}; }
  static void expect_sums(const singleflight::group_stats&, bool) {}
};

#endif

}  // namespace faults

#endif  // SINGLEFLIGHT_TESTS_FAULTS_EVENTS_HPP
