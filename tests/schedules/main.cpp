// SPDX-License-Identifier: MIT
// Runs the header that ships, unmodified, under every schedule of small scenarios.
//
// The threads of a scenario are fibers on one thread of the system (fibers.hpp). The system's
// functions for locks, waits, wake-ups and time are replaced at link time (interpose.cpp) by a
// scheduler (scheduler.hpp) that stops at each such point and asks a strategy which thread goes on
// (strategy.hpp). The strategies run every schedule, or every one with few preemptions, or repeat
// a given one (search.hpp). The test's world (world.hpp) makes the calls, watches the group's
// map from inside its critical sections, and judges every answer and every end. The scenarios are
// in scenarios.cpp. To test the oracles, broken/ has scripts that each put one known error into a
// copy of the header, and name the oracle that must then fail.
//
// `run` builds and runs it all. A schedule that fails is printed as one line, which
// `run --replay LINE` repeats step by step.
//
// A point is: before a mutex is locked, after it is released, a wait, each loader, each return, the
// passing of time. "Complete" means all schedules but those that differ only in the order of
// neighbouring steps that touch different things: of 186,776 schedules of `deadline`, 40 remain, and
// they have the same outcomes.
// The objects that a step touches are known exactly in critical sections. Outside them world.cpp
// states them: a leader touches nothing that others see before it publishes, and a follower reads
// the future. `--unreduced` does without these assumptions, and so do the searches with a bound.
//
// Not checked: data races and weak memory, since steps run one after the other (ThreadSanitizer
// does that; the one atomic of the library, which says who runs a call on an executor, is not
// replaced); preemptions inside critical sections, which no
// other critical section of that mutex could observe; and the insides of libstdc++'s futures and
// stop tokens, whose atomics are not replaced.

#include <CLI/CLI.hpp>
#include <algorithm>
#include <csignal>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <ctime>
#include <optional>
#include <string>
#include <vector>

#include "../sanitizers.hpp"
#include "explorer.hpp"
#include "scheduler.hpp"

namespace {

using namespace schedules;

struct flags {
  bool full = false;
  bool unreduced = false;
  std::optional<int> most_preemptions;
  std::vector<std::string> names;
  std::string replay;
  std::vector<std::string> compare;
};

[[nodiscard]] double seconds() { return static_cast<double>(std::clock()) / CLOCKS_PER_SEC; }

[[nodiscard]] search::reduction reduction(const flags& f) {
  return f.unreduced ? search::reduction::none : search::reduction::sleep_sets;
}

void print_row(const entry_of_table& s, const figures& f, std::optional<int> bound, double time) {
  const std::string reach = bound ? "<= " + std::to_string(*bound) + " preemptions" : "complete";
  std::printf("%-19s %-47s %11llu %9zu  %-17s %6.1f\n", s.name.c_str(), s.what.c_str(),
              static_cast<unsigned long long>(f.schedules), f.outcomes.size(), reach.c_str(), time);
  std::fflush(stdout);
}

/// Returns: how many schedules there were.
std::uint64_t explore(const entry_of_table& s, const flags& asked) {
  std::optional<int> bound = asked.full ? s.most_preemptions : s.quick_most_preemptions;
  if (asked.most_preemptions) bound = asked.most_preemptions;
  const double begun = seconds();
  const figures f = schedules::explore(s.name, bound, reduction(asked));
  print_row(s, f, bound, seconds() - begun);
  return f.schedules;
}

/// The reduction must leave out schedules only, and no outcome.
bool compare(const std::string& name) {
  const figures all = schedules::explore(name, {}, search::reduction::none);
  const figures reduced = schedules::explore(name, {}, search::reduction::sleep_sets);
  const bool same = all.outcomes == reduced.outcomes;
  std::printf("%-19s %llu schedules, reduced to %llu: %s %zu outcomes\n", name.c_str(),
              static_cast<unsigned long long>(all.schedules),
              static_cast<unsigned long long>(reduced.schedules),
              same ? "the same" : "NOT the same", all.outcomes.size());
  return same;
}

bool show_line(const std::string& line) {
  const auto colon = line.find(':');
  return colon != std::string::npos && show(line.substr(0, colon), line.substr(colon + 1));
}

void explore_all(const flags& asked) {
  std::printf("%-19s %-47s %11s %9s  %-17s %6s\n", "scenario", "", "schedules", "outcomes", "",
              "s");
  std::uint64_t schedules = 0;
  std::size_t count = 0;
  for (const entry_of_table& s : table_of_scenarios()) {
    const auto& names = asked.names;
    if (!names.empty() && std::count(names.begin(), names.end(), s.name) == 0) continue;
    schedules += explore(s, asked);
    ++count;
  }
  std::printf("%llu schedules of %zu scenarios hold\n", static_cast<unsigned long long>(schedules),
              count);
}

/// A header that is broken may touch what is gone.
[[maybe_unused]] void crashed(int /*signal*/) {
  if (scheduler* const s = scheduler::active()) s->fail("the program crashed");
  std::_Exit(EXIT_FAILURE);
}

}  // namespace

int main(int argc, char** argv) {
#if !defined(SINGLEFLIGHT_TESTS_ASAN)
  std::signal(SIGSEGV, &crashed);
#endif
  std::vector<std::string> known;
  for (const entry_of_table& s : table_of_scenarios()) known.push_back(s.name);

  CLI::App app("Every schedule of small scenarios");
  flags asked;
  app.add_option("scenario", asked.names, "which; none: all")->check(CLI::IsMember(known));
  app.add_flag("--full", asked.full, "also what takes minutes");
  app.add_flag("--unreduced", asked.unreduced, "also schedules that are others in another order");
  app.add_option("--preemptions", asked.most_preemptions, "at most so many, in every scenario");
  app.add_option("--compare", asked.compare, "outcomes of these with and without the reduction")
      ->check(CLI::IsMember(known));
  app.add_option("--replay", asked.replay, "the line of a schedule that failed");
  CLI11_PARSE(app, argc, argv);

  if (!asked.replay.empty()) return show_line(asked.replay) ? EXIT_SUCCESS : EXIT_FAILURE;
  if (!asked.compare.empty()) {
    return std::all_of(asked.compare.begin(), asked.compare.end(), compare) ? EXIT_SUCCESS
                                                                            : EXIT_FAILURE;
  }
  explore_all(asked);
}
