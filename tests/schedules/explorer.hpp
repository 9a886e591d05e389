// SPDX-License-Identifier: MIT
// Runs scenarios under one schedule after the other.
#ifndef SINGLEFLIGHT_TESTS_SCHEDULES_EXPLORER_HPP
#define SINGLEFLIGHT_TESTS_SCHEDULES_EXPLORER_HPP

#include <cstdint>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "search.hpp"

namespace schedules {

/// A scenario as the command line and the report name it.
struct entry_of_table {
  std::string name;
  std::string what;
  std::optional<int> most_preemptions;  // empty: every schedule
  std::optional<int> quick_most_preemptions;
};
[[nodiscard]] std::vector<entry_of_table> table_of_scenarios();

struct figures {
  std::uint64_t schedules = 0;
  std::uint64_t redundant = 0;       // executions given up: equal to others but for the order
  std::set<std::uint64_t> outcomes;  // fingerprints of the callers' results
};

/// Runs every schedule, or every one with few preemptions. One that fails is printed, and ends the
/// process.
[[nodiscard]] figures explore(const std::string& scenario, std::optional<int> most_preemptions,
                              search::reduction how);

/// Repeats one execution and prints its steps. Returns: whether there is such a scenario.
bool show(const std::string& scenario, const schedule& choices);

}  // namespace schedules

#endif  // SINGLEFLIGHT_TESTS_SCHEDULES_EXPLORER_HPP
