// SPDX-License-Identifier: MIT
// Included before everything when the tests are built with mutated headers: which mutant is
// switched on, by the environment, and which ones a test has reached.
#ifndef SINGLEFLIGHT_TESTS_MUTATION_SWITCH_HPP
#define SINGLEFLIGHT_TESTS_MUTATION_SWITCH_HPP

#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <atomic>
#include <cstddef>
#include <cstdlib>
#include <type_traits>

namespace mutation {

inline constexpr std::size_t most = 8192;  // as `run` reads here

/// A file with a byte for each mutant, which is 1 once the mutant is reached. It is shared memory, so that
/// it counts what a forked child reaches, and what a process does that ends without exit handlers.
inline std::atomic<unsigned char>* map_reached() noexcept {
  const char* const path = std::getenv("SINGLEFLIGHT_REACHED");
  if (path == nullptr) return nullptr;
  const int file = open(path, O_RDWR | O_CREAT, 0666);
  if (file < 0 || ftruncate(file, most) != 0) std::abort();
  void* const bytes = mmap(nullptr, most, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
  if (bytes == MAP_FAILED) std::abort();
  close(file);
  return static_cast<std::atomic<unsigned char>*>(bytes);
}

inline bool on_at_run_time(int mutant) noexcept {
  static const char* const active = std::getenv("SINGLEFLIGHT_MUTANT");
  static const int number = active != nullptr ? std::atoi(active) : -1;
  static std::atomic<unsigned char>* const reached = map_reached();
  if (reached != nullptr) reached[mutant].store(1, std::memory_order_relaxed);
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
