// SPDX-License-Identifier: MIT
#ifndef TEMPLATE_SERVICE_CIRCUIT_BREAKER_HPP
#define TEMPLATE_SERVICE_CIRCUIT_BREAKER_HPP

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <exception>
#include <functional>
#include <mutex>
#include <optional>
#include <string>
#include <thread>
#include <utility>

#include "log.hpp"

namespace template_service {

/// Keeps requests away from a server that does not answer. The first failure opens it; from then on
/// its own thread asks whether the server is back, so that no request has to.
class circuit_breaker {
 public:
  /// The time between two failures; a failure says in which one its attempt began.
  using period = std::uint64_t;

  /// `probe` throws while the server is away. The log says `<name>_down` and `<name>_up`.
  circuit_breaker(std::string name, std::function<void()> probe, std::chrono::milliseconds interval)
      : name_(std::move(name)),
        probe_(std::move(probe)),
        interval_(interval),
        prober_([this] { run(); }) {}
  circuit_breaker(const circuit_breaker&) = delete;
  circuit_breaker& operator=(const circuit_breaker&) = delete;
  ~circuit_breaker() {
    {
      const std::lock_guard lock(mutex_);
      ending_ = true;
    }
    changed_.notify_all();
    prober_.join();
  }

  /// Returns: the period for `trip`, or nothing if the server must be left alone.
  [[nodiscard]] std::optional<period> admit() const noexcept {
    const period now = period_;
    if (is_open(now)) return std::nullopt;
    return now;
  }

  /// Opens the breaker, unless the failed attempt began before the server was last seen well.
  /// Returns: whether this failure opened it.
  bool trip(period began, const char* reason) {
    {
      const std::lock_guard lock(mutex_);
      if (period_ != began) return false;
      ++period_;
    }
    log_warning(name_ + "_down", {{"reason", reason}});
    changed_.notify_all();
    return true;
  }

  [[nodiscard]] bool open() const noexcept { return is_open(period_); }

 private:
  static bool is_open(period at) noexcept { return at % 2 == 1; }

  void run() {
    std::unique_lock lock(mutex_);
    for (;;) {
      changed_.wait(lock, [&] { return ending_ || is_open(period_); });
      if (ending_) return;
      lock.unlock();
      const bool back = answers();
      lock.lock();
      if (!back) {
        changed_.wait_for(lock, interval_, [&] { return ending_; });
        continue;
      }
      log_info(name_ + "_up");
      ++period_;
    }
  }

  bool answers() noexcept {
    try {
      probe_();
      return true;
    } catch (const std::exception&) {
      return false;  // the reason is in the log since it opened
    }
  }

  const std::string name_;
  const std::function<void()> probe_;
  const std::chrono::milliseconds interval_;
  std::mutex mutex_;
  std::condition_variable changed_;
  std::atomic<period> period_ = 0;  // written under mutex_; odd: open
  bool ending_ = false;             // guarded by mutex_
  std::thread prober_;              // the last member: it uses the others
};

}  // namespace template_service

#endif  // TEMPLATE_SERVICE_CIRCUIT_BREAKER_HPP
