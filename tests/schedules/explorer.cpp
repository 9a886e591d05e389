// SPDX-License-Identifier: MIT
#include "explorer.hpp"

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <string_view>
#include <thread>

#include "../replaced_new.hpp"
#include "scenarios.hpp"

namespace schedules {
namespace {

const scenario* find(const std::string& name) {
  const auto all = scenarios();
  const auto found =
      std::find_if(all.begin(), all.end(), [&](const scenario& s) { return s.name == name; });
  return found == all.end() ? nullptr : &*found;
}

/// Runs one execution after the other of one scenario.
class runner {
 public:
  explicit runner(const scenario& s)
      : scenario_(s), scheduler_([this](std::string_view what, const schedule& choices) {
          report(what, choices);
        }) {
    std::thread([] {}).join();  // libstdc++ leaves out what a process with one thread does not need
  }

  void trace() noexcept { scheduler_.trace(true); }

  /// Returns: the fingerprint of the execution.
  std::uint64_t run(strategy& decides) {
    const std::int64_t memory_before = support::live_bytes;
    std::uint64_t outcome = 0;
    {
      world w(scheduler_, scenario_.made_of);
      scenario_.set_up(w);
      w.run(decides);
      outcome = w.judge();
    }
    if (support::live_bytes != memory_before) scheduler_.fail("there is memory left");
    return outcome;
  }

 private:
  /// The fibers cannot be unwound, so nothing is cleaned up.
  [[noreturn]] void report(std::string_view what, const schedule& choices) const {
    std::printf("FAILED: %.*s\nreplay: %s:%s\n", static_cast<int>(what.size()), what.data(),
                scenario_.name, choices.c_str());
    std::fflush(stdout);
    std::_Exit(1);
  }

  const scenario& scenario_;
  scheduler scheduler_;
};

}  // namespace

std::vector<entry_of_table> table_of_scenarios() {
  std::vector<entry_of_table> table;
  for (const scenario& s : scenarios()) {
    table.push_back({s.name, s.what, s.most_preemptions, s.quick_most_preemptions});
  }
  return table;
}

figures explore(const std::string& name, std::optional<int> most_preemptions,
                search::reduction how) {
  runner runs(*find(name));
  search all(most_preemptions, how);
  figures f;
  do {
    const std::uint64_t outcome = runs.run(all);
    ++(all.redundant() ? f.redundant : f.schedules);
    f.outcomes.insert(outcome);
  } while (all.next());
  return f;
}

bool show(const std::string& name, const schedule& choices) {
  const scenario* const s = find(name);
  if (s == nullptr) return false;
  runner runs(*s);
  runs.trace();
  replay again(choices);
  runs.run(again);
  return true;
}

}  // namespace schedules
