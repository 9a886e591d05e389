// SPDX-License-Identifier: MIT
// Asynchronous callers of a group, and what they were answered.
#ifndef SINGLEFLIGHT_TESTS_ASYNC_CALLERS_HPP
#define SINGLEFLIGHT_TESTS_ASYNC_CALLERS_HPP

#include <gtest/gtest.h>

#include <cstddef>
#include <exception>
#include <functional>
#include <mutex>
#include <optional>
#include <singleflight/coroutine.hpp>
#include <singleflight/group.hpp>
#include <stdexcept>
#include <system_error>
#include <utility>
#include <vector>

#if defined(__cpp_lib_jthread)
#include <stop_token>
#endif

#include "executors.hpp"
#include "tasks.hpp"

namespace support {

using group = singleflight::group<int, int>;

/// A hash that throws when it is told to.
struct moody_hash {
  bool* fails = nullptr;
  std::size_t operator()(int) const {
    if (*fails) throw std::runtime_error("hash");
    return 0;
  }
};
using moody_group = singleflight::group<int, int, moody_hash>;

/// What one caller was answered.
class seen {
 public:
  seen() = default;
  seen(const seen&) = delete;  // others refer to it
  seen& operator=(const seen&) = delete;

  void set(const singleflight::result<int>& r) {
    const std::lock_guard lock(mutex_);
    value_ = *r;
    led_ = r.led();
    shared_ = r.shared();
    ++times_;
  }
  void fail(std::exception_ptr why) {
    const std::lock_guard lock(mutex_);
    why_ = std::move(why);
    ++times_;
  }
  void operator()(singleflight::outcome<int> o) {
    if (o.has_value()) {
      set(std::move(o).result());
    } else {
      fail(o.error());
    }
  }

  [[nodiscard]] int times() const {
    const std::lock_guard lock(mutex_);
    return times_;
  }
  [[nodiscard]] bool came() const { return times() > 0; }
  /// Nothing if there was none.
  [[nodiscard]] std::optional<int> value() const {
    const std::lock_guard lock(mutex_);
    return value_;
  }
  [[nodiscard]] std::exception_ptr error() const {
    const std::lock_guard lock(mutex_);
    return why_;
  }
  [[nodiscard]] std::error_code code() const { return call_error_of(error()); }
  [[nodiscard]] bool led() const { return led_; }
  [[nodiscard]] bool shared() const { return shared_; }

 private:
  mutable std::mutex mutex_;
  int times_ = 0;
  std::optional<int> value_;
  std::exception_ptr why_;
  bool led_ = false;
  bool shared_ = false;
};

/// What callbacks were answered, in order. Refers to itself: not to be moved once it has been used.
class answers {
 public:
  [[nodiscard]] auto add() {
    return [this](const singleflight::outcome<int>& o) {
      const std::lock_guard lock(mutex_);
      if (o.has_value()) {
        got_.push_back({o.value(), nullptr});
      } else {
        got_.push_back({std::nullopt, o.error()});
      }
    };
  }
  [[nodiscard]] std::size_t size() const {
    const std::lock_guard lock(mutex_);
    return got_.size();
  }
  [[nodiscard]] std::optional<int> value(std::size_t i) const {
    const std::lock_guard lock(mutex_);
    return got_.at(i).value;
  }
  [[nodiscard]] std::exception_ptr error(std::size_t i) const {
    const std::lock_guard lock(mutex_);
    return got_.at(i).error;
  }
  [[nodiscard]] std::error_code code(std::size_t i) const { return call_error_of(error(i)); }

 private:
  struct answer {
    std::optional<int> value;
    std::exception_ptr error;
  };
  mutable std::mutex mutex_;
  std::vector<answer> got_;
};

/// A start that keeps the leader for the test.
template <class Value>
[[nodiscard]] auto keep(std::optional<singleflight::leader<Value>>& here) {
  return [&here](singleflight::leader<Value> mine) { here.emplace(std::move(mine)); };
}

/// The start of a caller that must follow.
inline constexpr auto never = [](const auto&) { ADD_FAILURE() << "began a call"; };

/// A coroutine that follows a call and says what it was given, then does `then`.
template <class On>
frame ask(
    group& flights, int key, On on, singleflight::async_options options, seen& said,
    std::function<void()> then = [] {}) {
  try {
    const auto r = co_await flights.co_call(key, on, options, [] {
      ADD_FAILURE() << "began a call";
      return 0;
    });
    said.set(r);
  } catch (...) {
    said.fail(std::current_exception());
  }
  then();
}

/// The loader of a call that the test ends.
struct held_loader {
  gate<int> end;
#if defined(__cpp_lib_jthread)
  std::stop_token told;
#endif
  const singleflight::call_context* call = nullptr;
  int runs = 0;
};

/// A coroutine that begins a call, which the test ends, and says what it was given.
template <class On>
frame ask_leading(group& flights, int key, On on, singleflight::async_options options, seen& said,
                  held_loader& load) {
  try {
    const auto r = co_await flights.co_call(
        key, on, options, [&load](const singleflight::call_context& c) -> lazy_task<int> {
          ++load.runs;
          load.call = &c;
#if defined(__cpp_lib_jthread)
          load.told = c.stop_token();
#endif
          co_return co_await load.end;
        });
    said.set(r);
  } catch (...) {
    said.fail(std::current_exception());
  }
}

}  // namespace support

#endif  // SINGLEFLIGHT_TESTS_ASYNC_CALLERS_HPP
