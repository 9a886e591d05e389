// SPDX-License-Identifier: MIT
#ifndef STAMPEDE_OPEN_LOOP_HPP
#define STAMPEDE_OPEN_LOOP_HPP

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cmath>
#include <cstddef>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

#include "crew.hpp"
#include "interrupt.hpp"
#include "template_store.hpp"

namespace stampede {

using clock = std::chrono::steady_clock;
using seconds = std::chrono::duration<double>;

/// The progress of an open loop.
struct progress {
  seconds elapsed{};         // since the first request was due
  std::size_t due = 0;       // requests that have arrived
  std::size_t answered = 0;  // of these
  std::size_t queued = 0;    // have arrived, and no thread has taken them yet
  seconds oldest{};          // how long the first of the queue has waited
};

/// The outcome of a request.
struct outcome {
  seconds waited{-1};     // from its arrival to its answer, or to the moment it was given up
  bool answered = false;  // false: it was given up before any thread had taken it
};

/// Requests that arrive at a fixed rate, whether or not the earlier ones are answered: users do not
/// wait for each other. Request i is due at start + i / rate, and its latency counts from there,
/// not from when a thread was free to take it, which would leave out the worst part of the wait.
class open_loop {
 public:
  /// The time for which the threads go on with the queue after the last arrival. So every request
  /// that is given up has waited at least that long, and no act delays the next one.
  static constexpr seconds grace{1};

  /// Request i asks for ids[i]; `ids` must outlive the loop.
  open_loop(const std::vector<template_id>& ids, double rate)
      : ids_(ids), rate_(rate), outcomes_(ids.size()) {}

  /// Serves all requests with `serve(id)` on `threads` threads, and calls `watch(progress)` on this
  /// thread until all have ended.
  template <class Serve, class Watch>
  void run(std::size_t threads, const Serve& serve, Watch& watch) {
    using namespace std::chrono_literals;
    start_ = clock::now() + 100ms;  // by then the threads have started
    crew workers(threads, [this, &serve] { work(serve); });
    std::this_thread::sleep_until(start_);
    while (!workers.done()) {
      watch(current_progress());
      std::this_thread::sleep_for(20ms);
    }
    workers.join();
    watch(current_progress());
  }

  [[nodiscard]] const std::vector<outcome>& outcomes() const noexcept { return outcomes_; }

 private:
  [[nodiscard]] clock::time_point due(std::size_t request) const {
    const seconds after_start(static_cast<double>(request) / rate_);
    return start_ + std::chrono::duration_cast<clock::duration>(after_start);
  }

  template <class Serve>
  void work(const Serve& serve) {
    const clock::time_point close =
        due(ids_.size()) + std::chrono::duration_cast<clock::duration>(grace);
    for (std::size_t i = next_++; i < ids_.size(); i = next_++) {
      wait_until(due(i));
      if (interrupted) return;
      if (clock::now() < close) {
        const template_details answer = serve(ids_[i]);
        if (answer.id != ids_[i]) throw std::logic_error("a request got another one's answer");
        outcomes_[i].answered = true;
        ++answered_;
      }
      outcomes_[i].waited = clock::now() - due(i);
    }
  }

  /// Sleeps in slices, so that an interruption is noticed.
  static void wait_until(clock::time_point when) {
    for (auto now = clock::now(); now < when && !interrupted; now = clock::now()) {
      std::this_thread::sleep_until(std::min(when, now + std::chrono::milliseconds(50)));
    }
  }

  [[nodiscard]] progress current_progress() const {
    progress now;
    now.answered = answered_;  // read before the clock, so that it is at most `due`
    now.elapsed = clock::now() - start_;
    now.due = std::min(ids_.size(), static_cast<std::size_t>(now.elapsed.count() * rate_) + 1);
    if (const std::size_t next = next_; next < now.due) {
      now.queued = now.due - next;
      now.oldest = clock::now() - due(next);
    }
    return now;
  }

  const std::vector<template_id>& ids_;
  const double rate_;
  clock::time_point start_;
  std::atomic<std::size_t> next_ = 0;  // the first request that no thread has taken
  std::atomic<std::size_t> answered_ = 0;
  std::vector<outcome> outcomes_;  // [i] belongs to the thread that took request i
};

}  // namespace stampede

#endif  // STAMPEDE_OPEN_LOOP_HPP
