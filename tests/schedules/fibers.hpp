// SPDX-License-Identifier: MIT
// User-space threads: stacks that take turns on the one thread of the process.
#ifndef SINGLEFLIGHT_TESTS_SCHEDULES_FIBERS_HPP
#define SINGLEFLIGHT_TESTS_SCHEDULES_FIBERS_HPP

#include <array>
#include <boost/context/fiber.hpp>
#include <cstddef>
#include <memory>
#include <vector>

namespace schedules {

/// The per-thread state of the C++ runtime for the exceptions that are handled: `__cxa_eh_globals`
/// of the Itanium C++ ABI.
struct exception_state {
  void* caught = nullptr;
  unsigned int uncaught = 0;
};

/// Fibers that live as long as the process, since to make a stack costs more than a whole execution.
/// A switch swaps what belongs to a thread: its stack, the exceptions that it handles, and the
/// thread-local words of the code under test.
class fibers {
 public:
  /// Makes `count` fibers, each of which runs `loop` with its number, and never returns.
  fibers(std::size_t count, void (*loop)(std::size_t));
  fibers(const fibers&) = delete;
  fibers& operator=(const fibers&) = delete;

  /// The number of the main stack, which made the fibers, for `switch_to`.
  [[nodiscard]] std::size_t main_stack() const noexcept { return contexts_.size() - 1; }

  /// Leaves the fiber that runs for another. Returns when a fiber switches back.
  void switch_to(std::size_t to);

  /// To be called first thing in `loop`.
  void arrive() noexcept;

  /// Names the thread-local words of the code under test, one of each for each fiber from now on.
  void keep(std::size_t& first, std::size_t& second) noexcept { words_ = {&first, &second}; }

 private:
  struct context {
    boost::context::fiber parked;
    exception_state exceptions;
    std::array<std::size_t, 2> words = {};
    const void* stack = nullptr;  // its lowest address, for AddressSanitizer
    std::size_t size = 0;
    void* fake_stack = nullptr;
  };

  std::vector<context> contexts_;  // the last is the main stack
  std::size_t current_;
  std::array<std::size_t*, 2> words_ = {};
};

}  // namespace schedules

#endif  // SINGLEFLIGHT_TESTS_SCHEDULES_FIBERS_HPP
