// SPDX-License-Identifier: MIT
#ifndef STAMPEDE_LIVE_VIEW_HPP
#define STAMPEDE_LIVE_VIEW_HPP

#include <cstdint>
#include <cstdio>
#include <string>
#include <vector>

#if defined(_WIN32)
#include <io.h>
#else
#include <unistd.h>
#endif

#include "open_loop.hpp"
#include "template_store.hpp"
#include "text.hpp"

namespace stampede {

inline bool stdout_is_terminal() {
#if defined(_WIN32)
  return _isatty(_fileno(stdout)) != 0;
#else
  return isatty(STDOUT_FILENO) != 0;
#endif
}

/// One row of the picture: the averages over one interval of an act.
struct sample {
  seconds at{};          // the start of the interval, from the start of the act
  double queries = 0;    // a second, ended
  double left_over = 0;  // requests a second by which the queue grew
};

/// Watches an act: updates a line on the screen, and takes the samples for the picture.
class live_view {
 public:
  live_view(const store_pool& database, seconds sample_interval)
      : database_(database), sample_interval_(sample_interval) {}

  void operator()(const progress& now) {
    const examples::pool_stats figures = database_.stats();
    if (now.elapsed >= next_sample_) {
      take_sample(now, figures.done);
      while (next_sample_ <= now.elapsed) next_sample_ += sample_interval_;  // this may be late
    }
    if (now.elapsed - printed_ >= print_interval_) print(now, figures);
  }

  static void print_legend() {
    std::puts(
        "\nanswered: requests answered/arrived. queries: done (open: running or waiting for a\n"
        "connection). queue: requests no thread has taken yet (how long the oldest has waited).");
  }

  /// Ends the line that has been updated.
  void finish() const {
    if (on_terminal_) std::puts("");
  }

  [[nodiscard]] const std::vector<sample>& samples() const noexcept { return samples_; }

 private:
  void take_sample(const progress& now, std::uint64_t done) {
    const double length = (now.elapsed - sampled_.elapsed).count();
    const double growth =
        now.queued > sampled_.queued ? static_cast<double>(now.queued - sampled_.queued) : 0;
    samples_.push_back(
        {sampled_.elapsed, static_cast<double>(done - sampled_done_) / length, growth / length});
    sampled_ = now;
    sampled_done_ = done;
  }

  void print(const progress& now, const examples::pool_stats& figures) {
    const std::string oldest = now.queued > 0 ? " (" + duration(now.oldest) + ")" : "";
    const std::string line =
        decimal(now.elapsed.count(), 1) + " s  answered " + grouped(now.answered) + "/" +
        grouped(now.due) + "  queries " + grouped(figures.done) + " (" +
        grouped(figures.in_use + figures.waiting) + " open)  queue " + grouped(now.queued) + oldest;
    std::printf(on_terminal_ ? "\r%-79s" : "%s\n", line.c_str());  // 80 columns at most
    std::fflush(stdout);
    printed_ = now.elapsed;
  }

  const store_pool& database_;
  const seconds sample_interval_;
  const bool on_terminal_ = stdout_is_terminal();
  const seconds print_interval_{on_terminal_ ? 0.1 : 1.0};

  seconds next_sample_ = sample_interval_;
  seconds printed_{};
  progress sampled_;  // as of the last sample
  std::uint64_t sampled_done_ = 0;
  std::vector<sample> samples_;
};

}  // namespace stampede

#endif  // STAMPEDE_LIVE_VIEW_HPP
