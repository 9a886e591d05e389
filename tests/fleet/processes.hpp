// SPDX-License-Identifier: MIT
#ifndef SINGLEFLIGHT_TESTS_FLEET_PROCESSES_HPP
#define SINGLEFLIGHT_TESTS_FLEET_PROCESSES_HPP

#include <chrono>
#include <cstddef>
#include <deque>
#include <functional>
#include <future>
#include <singleflight/fleet.hpp>
#include <string>
#include <utility>

#include "../support.hpp"
#include "memory_leases.hpp"

namespace fleet_tests {

using memory_fleet = singleflight::fleet<std::string, memory_leases>;

inline constexpr std::chrono::milliseconds a_while{60'000};

/// The processes of one fleet, which share a store in memory.
class processes {
 public:
  explicit processes(std::size_t n, const singleflight::fleet_options& options = {.jitter = 0}) {
    for (std::size_t i = 0; i < n; ++i) each_.emplace_back(leases, options);
  }
  memory_fleet& operator[](std::size_t i) { return each_[i]; }
  [[nodiscard]] std::size_t size() const { return each_.size(); }

  memory_leases leases;

 private:
  std::deque<memory_fleet> each_;
};

/// A load that a process leads, on a thread of its own, and that ends when the test says so.
class held_load {
 public:
  held_load(memory_leases& leases, memory_fleet& process, std::string key,
            std::chrono::milliseconds lifetime = a_while) {
    thread_.start([&process, key, lifetime, this] {
      value = process.load(key, lifetime, [this] {
        running_.set_value();
        return result_.get_future().get();
      });
    });
    running_.get_future().wait();
    token = leases.leader(key);
  }
  held_load(const held_load&) = delete;
  held_load& operator=(const held_load&) = delete;
  ~held_load() {
    if (!ended_) end("abandoned");
  }
  void end(std::string result) {
    ended_ = true;
    result_.set_value(std::move(result));
    thread_.join();
  }

  std::string token;  // of its lease
  std::string value;  // what its caller got, once it has ended

 private:
  std::promise<void> running_;
  std::promise<std::string> result_;
  bool ended_ = false;
  support::threads thread_;
};

inline void await_waiting(const memory_leases& leases, std::size_t n) {
  support::await([&] { return leases.waiting() == n; }, "callers to wait in the store");
}

/// A loader that must not run.
inline std::string not_called() {
  ADD_FAILURE() << "a loader ran that should not have";
  return "loaded although it should not have been";
}

}  // namespace fleet_tests

#endif  // SINGLEFLIGHT_TESTS_FLEET_PROCESSES_HPP
