// SPDX-License-Identifier: MIT
// The scenarios that are explored.
#ifndef SINGLEFLIGHT_TESTS_SCHEDULES_SCENARIOS_HPP
#define SINGLEFLIGHT_TESTS_SCHEDULES_SCENARIOS_HPP

#include <optional>
#include <span>

#include "world.hpp"

namespace schedules {

struct scenario {
  const char* name;
  const char* what;
  std::optional<int> most_preemptions;        // empty: every schedule
  std::optional<int> quick_most_preemptions;  // in the quick form
  plan made_of;
  void (*set_up)(world& w);
};

[[nodiscard]] std::span<const scenario> scenarios();

}  // namespace schedules

#endif  // SINGLEFLIGHT_TESTS_SCHEDULES_SCENARIOS_HPP
