// SPDX-License-Identifier: MIT
// Included before everything when the tests are built with mutated headers: which mutant is
// switched on, by the environment, and which ones a test has reached.
#ifndef SINGLEFLIGHT_TESTS_MUTATION_SWITCH_HPP
#define SINGLEFLIGHT_TESTS_MUTATION_SWITCH_HPP

#include <array>
#include <atomic>
#include <cstddef>
#include <cstdio>
#include <cstdlib>
#include <type_traits>

namespace mutation {

inline constexpr std::size_t most = 4096;

/// Writes the numbers of the mutants reached into a file, when the program ends.
struct reach_log {
  const char* path = std::getenv("SINGLEFLIGHT_REACHED");
  static inline std::array<std::atomic<bool>, most> reached{};

  ~reach_log() {
    if (path == nullptr) return;
    std::FILE* file = std::fopen(path, "w");
    for (std::size_t i = 0; file != nullptr && i < most; ++i) {
      if (reached[i]) std::fprintf(file, "%zu\n", i);
    }
    if (file != nullptr) std::fclose(file);
  }
};

inline bool on_at_run_time(int mutant) noexcept {
  static const char* const active = std::getenv("SINGLEFLIGHT_MUTANT");
  static const int number = active != nullptr ? std::atoi(active) : -1;
  static reach_log log;
  if (log.path != nullptr) {
    reach_log::reached[static_cast<std::size_t>(mutant)].store(true, std::memory_order_relaxed);
  }
  return mutant == number;
}

/// Whether this mutant is the one that runs.
constexpr bool on(int mutant) noexcept {
  return !std::is_constant_evaluated() && on_at_run_time(mutant);
}

/// A mutex that nobody else locks, in the place of one that a mutant does not lock.
template <class Mutex>
Mutex& spare(const Mutex&) noexcept {
  thread_local Mutex own;
  return own;
}

}  // namespace mutation

#endif  // SINGLEFLIGHT_TESTS_MUTATION_SWITCH_HPP
