// SPDX-License-Identifier: MIT
// The calls that the threads of a herd follow.
#ifndef SINGLEFLIGHT_BENCH_FOLLOWED_HPP
#define SINGLEFLIGHT_BENCH_FOLLOWED_HPP

#include <atomic>
#include <chrono>
#include <cstdint>
#include <future>
#include <singleflight/group.hpp>
#include <stop_token>

namespace bench {

/// A bare std::shared_future, without keys and without a map: the floor of any wake-up.
template <class Value>
class bare_future {
 public:
  static constexpr const char* name = "bare_future";

  /// Makes the next round's future. To be called while no thread follows.
  void renew() {
    promise_ = {};
    future_ = promise_.get_future().share();
  }

  template <class Load>
  Value lead(const Load& load) {
    promise_.set_value(load());
    return future_.get();
  }

  template <class Load>
  Value follow(const Load& /*load*/) {
    const std::shared_future<Value> mine = future_;
    return mine.get();
  }

 protected:
  [[nodiscard]] const std::shared_future<Value>& future() const { return future_; }

 private:
  std::promise<Value> promise_;
  std::shared_future<Value> future_;
};

/// The same, with followers that wait with a deadline, which never passes.
template <class Value>
class bare_future_deadline : public bare_future<Value> {
 public:
  static constexpr const char* name = "bare_future_deadline";

  template <class Load>
  Value follow(const Load& /*load*/) {
    const std::shared_future<Value> mine = this->future();
    mine.wait_until(std::chrono::steady_clock::now() + std::chrono::hours(1));
    return mine.get();
  }
};

/// One key of an alternative.
template <class A>
class one_key {
 public:
  static constexpr const char* name = A::name;

  void renew() {}

  template <class Load>
  auto lead(const Load& load) {
    return coalescer_.get(1, load);
  }

  template <class Load>
  auto follow(const Load& load) {
    return coalescer_.get(1, load);
  }

 private:
  A coalescer_;
};

/// One key of this library.
template <class Value>
class one_group {
 public:
  void renew() {}

  template <class Load>
  Value lead(const Load& load) {
    return group_.do_call(1, load);
  }

 protected:
  template <class Load>
  Value follow_with(const ::singleflight::call_options& options, const Load& load) {
    return group_.do_call(1, options, load);
  }

 private:
  ::singleflight::group<std::uint64_t, Value> group_;
};

/// Its followers wait with a deadline, which never passes.
template <class Value>
class with_deadline : public one_group<Value> {
 public:
  static constexpr const char* name = "singleflight_deadline";

  template <class Load>
  Value follow(const Load& load) {
    const auto deadline = std::chrono::steady_clock::now() + std::chrono::hours(1);
    return this->follow_with({.deadline = deadline}, load);
  }
};

/// Its followers wait with a stop token, each with a source of its own.
template <class Value>
class with_stop_token : public one_group<Value> {
 public:
  static constexpr const char* name = "singleflight_stop_token";

  template <class Load>
  Value follow(const Load& load) {
    const std::stop_source source;
    return this->follow_with({.stop = source.get_token()}, load);
  }
};

}  // namespace bench

#endif  // SINGLEFLIGHT_BENCH_FOLLOWED_HPP
