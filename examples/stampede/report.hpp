// SPDX-License-Identifier: MIT
#ifndef STAMPEDE_REPORT_HPP
#define STAMPEDE_REPORT_HPP

#include <algorithm>
#include <array>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <functional>
#include <string>
#include <utility>
#include <vector>

#include "../common/connection_pool.hpp"
#include "live_view.hpp"
#include "open_loop.hpp"
#include "text.hpp"

namespace stampede {

/// A percentile of the latencies. The latency of a request that was given up is unknown: it is
/// longer than its wait until then.
struct percentile {
  seconds latency{};
  bool longer = false;  // the true value is above `latency`, or equal
};

struct act_report {
  std::string name;
  std::size_t requests = 0;
  std::size_t answered = 0;
  std::size_t slow = 0;  // waited longer than 1 s, those without an answer included
  percentile p50;
  percentile p99;
  std::uint64_t queries = 0;
  std::size_t peak = 0;
  std::vector<sample> samples;
};

inline percentile find_percentile(std::vector<outcome>& outcomes, double share) {
  const auto rank =
      static_cast<std::size_t>(std::ceil(share * static_cast<double>(outcomes.size()))) - 1;
  const auto at = outcomes.begin() + static_cast<std::ptrdiff_t>(rank);
  std::ranges::nth_element(outcomes, at, std::less<>(), &outcome::waited);
  const bool exact = std::all_of(outcomes.begin(), at + 1, std::mem_fn(&outcome::answered));
  return {at->waited, !exact};
}

inline act_report make_report(std::string name, std::vector<outcome> outcomes,
                              const examples::pool_stats& figures, std::vector<sample> samples) {
  act_report report;
  report.name = std::move(name);
  report.requests = outcomes.size();
  for (const outcome& one : outcomes) {
    report.answered += one.answered ? 1U : 0U;
    report.slow += one.waited > seconds(1) ? 1U : 0U;
  }
  report.p50 = find_percentile(outcomes, 0.50);
  report.p99 = find_percentile(outcomes, 0.99);
  report.queries = figures.done;
  report.peak = figures.peak;
  report.samples = std::move(samples);
  return report;
}

inline std::string text_of(const percentile& p) {
  return (p.longer ? "> " : "") + duration(p.latency);
}

inline std::string dedup_ratio(const act_report& act) {
  if (act.queries == 0) return "-";
  return decimal(static_cast<double>(act.answered) / static_cast<double>(act.queries), 1);
}

using three_acts = std::array<act_report, 3>;

template <class Cell>
void print_row(const char* label, const three_acts& acts, const Cell& cell) {
  std::printf("  %-26s", label);
  for (const act_report& act : acts) std::printf("%22s", std::string(cell(act)).c_str());
  std::puts("");
}

inline void print_table(const three_acts& acts) {
  using act = const act_report&;
  std::puts("");
  print_row("", acts, [](act a) { return a.name; });
  print_row("requests", acts, [](act a) { return grouped(a.requests); });
  print_row("  never answered", acts, [](act a) { return grouped(a.requests - a.answered); });
  print_row("  waited longer than 1 s", acts, [](act a) { return grouped(a.slow); });
  print_row("database queries", acts, [](act a) { return grouped(a.queries); });
  print_row("dedup ratio", acts, dedup_ratio);
  print_row("peak queries at once", acts, [](act a) { return grouped(a.peak); });
  print_row("p50 latency", acts, [](act a) { return text_of(a.p50); });
  print_row("p99 latency", acts, [](act a) { return text_of(a.p99); });
  std::puts(
      "\n"
      "  dedup ratio: answered requests per query; in act 1 it is the cache's doing.\n"
      "  queries at once: asked of the database at one time, running or waiting for a connection.\n"
      "  latency: from the scheduled arrival to the answer; a request without an answer counts\n"
      "  with its wait until it was given up, and \">\" marks a figure that rests on such.");
}

inline std::string blocks(const char* block, double count) {
  std::string line;
  for (long i = std::lround(count); i > 0; --i) line += block;
  return line;
}

/// Draws the samples, at most `width` blocks wide.
inline void print_picture(const three_acts& acts) {
  constexpr double width = 60;
  double most = 1;
  for (const act_report& act : acts) {
    for (const sample& s : act.samples) most = std::max(most, s.queries + s.left_over);
  }
  std::puts(
      "\n  Per second: \u2588 queries done  \u2591 requests added to the queue, no thread free");
  for (const act_report& act : acts) {
    std::printf("  %s\n", act.name.c_str());
    for (const sample& s : act.samples) {
      const auto left_over = static_cast<std::uint64_t>(s.left_over);
      std::printf("  %4.1f s \u2502%s%s %s%s\n", s.at.count(),
                  blocks("\u2588", s.queries / most * width).c_str(),
                  blocks("\u2591", s.left_over / most * width).c_str(),
                  grouped(static_cast<std::uint64_t>(s.queries)).c_str(),
                  left_over == 0 ? "" : (" + " + grouped(left_over)).c_str());
    }
  }
}

inline void print_conclusion(const three_acts& acts) {
  const act_report& alone = acts[1];
  const act_report& coalesced = acts[2];
  std::printf(
      "\nWithout the cache, %s of %s requests waited longer than 1 s, with up to %s queries at\n"
      "once; with the loader in do_call, still without the cache, %s of the same %s did, with up\n"
      "to %s at once: one query answered %s requests on average.\n",
      grouped(alone.slow).c_str(), grouped(alone.requests).c_str(), grouped(alone.peak).c_str(),
      grouped(coalesced.slow).c_str(), grouped(coalesced.requests).c_str(),
      grouped(coalesced.peak).c_str(), dedup_ratio(coalesced).c_str());
}

}  // namespace stampede

#endif  // STAMPEDE_REPORT_HPP
