// SPDX-License-Identifier: MIT
// Every interleaving of small scenarios, of the header as it ships.
#include <CLI/CLI.hpp>
#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <ctime>
#include <optional>
#include <set>
#include <string>
#include <thread>
#include <vector>

#include "allocations.hpp"
#include "scenarios.hpp"
#include "search.hpp"

namespace {

using namespace schedules;

/// Runs one scenario under one schedule after the other.
class explorer {
 public:
  explorer() : scheduler_([this](std::string_view what, const schedule& s) { report(what, s); }) {}

  void trace(bool on) noexcept { scheduler_.trace(on); }

  /// Runs one execution, and judges it. Returns: its fingerprint.
  std::uint64_t run(const scenario& s, strategy& decides) {
    running_ = &s;
    const std::ptrdiff_t blocks_before = blocks_alive();
    std::uint64_t outcome = 0;
    {
      world w(scheduler_, s.made_of);
      s.set_up(w);
      w.run(decides);
      outcome = w.judge();
    }
    if (blocks_alive() != blocks_before) scheduler_.fail("there is memory left");
    return outcome;
  }

 private:
  [[noreturn]] void report(std::string_view what, const schedule& s) const {
    std::printf("FAILED: %s\nreplay: %s:%s\n", std::string(what).c_str(), running_->name,
                s.c_str());
    std::fflush(stdout);
    std::_Exit(1);
  }

  scheduler scheduler_;
  const scenario* running_ = nullptr;
};

struct figures {
  std::uint64_t schedules = 0;
  std::uint64_t redundant = 0;
  std::set<std::uint64_t> outcomes;
};

figures explore(explorer& e, const scenario& s, std::optional<int> bound, search::reduction how) {
  search all(bound, how);
  figures f;
  do {
    const std::uint64_t outcome = e.run(s, all);
    if (all.redundant()) {
      ++f.redundant;
    } else {
      ++f.schedules;
      f.outcomes.insert(outcome);
    }
  } while (all.next());
  return f;
}

[[nodiscard]] double seconds() { return static_cast<double>(std::clock()) / CLOCKS_PER_SEC; }

void explore_and_print(explorer& e, const scenario& s, std::optional<int> bound,
                       search::reduction how) {
  const double begun = seconds();
  const figures f = explore(e, s, bound, how);
  const std::string reach = bound ? "<= " + std::to_string(*bound) + " preemptions" : "complete";
  std::printf("%-19s %-48s %12llu %12llu %6zu  %-16s %7.1f\n", s.name, s.what,
              static_cast<unsigned long long>(f.schedules),
              static_cast<unsigned long long>(f.redundant), f.outcomes.size(), reach.c_str(),
              seconds() - begun);
  std::fflush(stdout);
}

}  // namespace

int main(int argc, char** argv) {
  CLI::App app;
  std::vector<std::string> names;
  bool full = false, unreduced = false;
  std::string line;
  std::optional<int> bound;
  app.add_option("scenario", names);
  app.add_flag("--full", full);
  app.add_flag("--unreduced", unreduced);
  app.add_option("--bound", bound);
  app.add_option("--replay", line);
  CLI11_PARSE(app, argc, argv);
  std::thread([] {}).join();
  explorer e;
  if (!line.empty()) {
    const auto colon = line.find(':');
    for (const scenario& s : scenarios()) {
      if (s.name != line.substr(0, colon)) continue;
      replay again(line.substr(colon + 1));
      e.trace(true);
      e.run(s, again);
    }
    return 0;
  }
  for (const scenario& s : scenarios()) {
    if (!names.empty() && std::find(names.begin(), names.end(), s.name) == names.end()) continue;
    std::optional<int> b = full ? s.most_preemptions : s.quick_most_preemptions;
    if (bound) b = bound;
    explore_and_print(e, s, b, unreduced ? search::reduction::none : search::reduction::sleep_sets);
  }
}
