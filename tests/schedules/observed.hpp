// SPDX-License-Identifier: MIT
// Callers of a group with an observer, which is a step of its own in each hook.
#ifndef SINGLEFLIGHT_TESTS_SCHEDULES_OBSERVED_HPP
#define SINGLEFLIGHT_TESTS_SCHEDULES_OBSERVED_HPP

#include <cstdint>
#include <functional>

#include "scheduler.hpp"
#include "world.hpp"
// After SINGLEFLIGHT_ASSERT.
#include <singleflight/group.hpp>
#include <singleflight/observer.hpp>

namespace schedules {

/// Callers whose events are counted.
///
/// Oracles: no hook is called under the shard's lock. No call ends before it was told of, and no wait
/// before its caller has joined. At the end each call and each wait has ended once, and the sums are
/// those of `stats()`.
class observed_calls {
 public:
  explicit observed_calls(scheduler& threads) : threads_(threads) {
    threads_.know(mutex_of(flights_), "the shard of the observed");
  }

  void call(const singleflight::call_options& options) {
    try {
      (void)flights_.do_call(0, options, [this] {
        threads_.point("in the loader");
        return 1;
      });
    } catch (const singleflight::call_error&) {  // it has left
    }
    threads_.point("after the call");
  }
  void call_many(const singleflight::call_options& options) {
    (void)flights_.do_many({0, 1}, {.call = options}, [this](auto& missing) {
      threads_.point("in the loader");
      missing.set_at(0, 1);  // the others fail
    });
    threads_.point("after the calls");
  }

  void judge() const {
    const singleflight::group_stats s = flights_.stats();
    expect(began_ == ended_, "a call has not ended once, by what the observer was told");
    expect(joins_ == waits_, "a wait has not ended once, by what the observer was told");
    expect(s.led == led_ && s.joined == joined_ && s.rejected == rejected_ && s.failed == failed_ &&
               s.timed_out == timed_out_ && s.cancelled == cancelled_,
           "the sums of what the observer was told are not those of stats()");
  }

 private:
  friend struct observed_internals;
  using count = std::uint64_t;

  struct told {
    observed_calls& to;
    void call_began(const auto& e) const noexcept {
      to.step(to.began_, "began");
      to.led_ += e.again ? 0 : 1;
    }
    void call_ended(const auto& e) const noexcept {
      to.step(to.ended_, "ended");
      to.expect(to.ended_ <= to.began_, "a call has ended that was not told of");
      to.failed_ += e.how == singleflight::ending::exception ? 1 : 0;
    }
    void joined(const auto& e) const noexcept {
      to.step(to.joins_, "joined");
      to.joined_ += e.again ? 0 : 1;
    }
    void wait_ended(const auto&) const noexcept { to.end_wait("wait ended"); }
    void left(const auto& e) const noexcept {
      if (e.began) {
        to.step(to.own_left_, "left its own");
      } else {
        to.end_wait("left");
      }
      to.timed_out_ += e.why == singleflight::leaving::deadline ? 1 : 0;
      to.cancelled_ += e.why == singleflight::leaving::stop ? 1 : 0;
    }
    void rejected(const auto& e) const noexcept {
      to.step(to.rejected_, "rejected");
      to.timed_out_ += e.why == singleflight::refusal::deadline ? 1 : 0;
      to.cancelled_ += e.why == singleflight::refusal::stop ? 1 : 0;
    }
  };
  using group = singleflight::group<key, int, key_hash, std::equal_to<key>, told>;

  /// Returns: the mutex of the one shard.
  [[nodiscard]] static const void* mutex_of(group& of) noexcept;

  void step(count& of, const char* what) {
    expect(!threads_.in_critical_section(threads_.current()), "an observer is told under a lock");
    threads_.point(what);
    threads_.touch({.writes = objects::others});
    ++of;
  }
  void end_wait(const char* what) {
    step(waits_, what);
    expect(waits_ <= joins_, "a wait has ended whose caller was not told of");
  }
  void expect(bool holds, const char* what) const {
    if (!holds) threads_.fail(what);
  }

  scheduler& threads_;
  count began_ = 0, ended_ = 0, joins_ = 0, waits_ = 0, own_left_ = 0;
  count led_ = 0, joined_ = 0, rejected_ = 0, failed_ = 0, timed_out_ = 0, cancelled_ = 0;
  group flights_{{.shards = 1}, {}, {}, told{*this}};
};

}  // namespace schedules

#endif  // SINGLEFLIGHT_TESTS_SCHEDULES_OBSERVED_HPP
