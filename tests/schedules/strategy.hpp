// SPDX-License-Identifier: MIT
// The interface between the scheduler and a strategy, which chooses at each scheduling point the
// thread that goes on.
#ifndef SINGLEFLIGHT_TESTS_SCHEDULES_STRATEGY_HPP
#define SINGLEFLIGHT_TESTS_SCHEDULES_STRATEGY_HPP

#include <cstddef>
#include <cstdint>
#include <string>

namespace schedules {

inline constexpr std::size_t max_threads = 8;

/// A bit for each thread.
using thread_set = std::uint32_t;

[[nodiscard]] constexpr thread_set only(int thread) noexcept { return thread_set{1} << thread; }

/// The objects that a step has touched, a bit for each. A step is the part of a thread between two
/// scheduling points. Steps without a conflict lead to the same in either order.
struct footprint {
  std::uint32_t reads = 0;
  std::uint32_t adds = 0;  // in a way that commutes with others that add
  std::uint32_t writes = 0;

  constexpr footprint& operator|=(const footprint& other) noexcept {
    reads |= other.reads;
    adds |= other.adds;
    writes |= other.writes;
    return *this;
  }
  [[nodiscard]] friend constexpr bool conflict(footprint a, footprint b) noexcept {
    const std::uint32_t of_a = a.reads | a.adds | a.writes;
    const std::uint32_t of_b = b.reads | b.adds | b.writes;
    return ((a.writes & of_b) | (b.writes & of_a) | (a.adds & b.reads) | (b.adds & a.reads)) != 0;
  }
};

/// The objects of footprints.
namespace objects {
inline constexpr std::uint32_t everything = ~std::uint32_t{0};
inline constexpr std::uint32_t others = 1;  // all objects without a bit of their own
inline constexpr std::uint32_t time = 2;
inline constexpr std::uint32_t stop_states = 4;  // of all stop tokens
[[nodiscard]] constexpr std::uint32_t mutex(std::size_t known) noexcept {
  return std::uint32_t{1} << (3 + known);  // up to 5
}
/// The order in which callers come and return.
[[nodiscard]] constexpr std::uint32_t history_of(int key) noexcept {
  return std::uint32_t{1} << (8 + key);  // up to 8
}
/// The futures of the calls that this thread has begun; of its asynchronous calls also who may end
/// them, and of its asynchronous callers what has become of them.
[[nodiscard]] constexpr std::uint32_t futures_of(int thread) noexcept {
  return std::uint32_t{1} << (16 + thread);
}
inline constexpr std::uint32_t all_futures = ((std::uint32_t{1} << max_threads) - 1) << 16;
}  // namespace objects

/// A scheduling point.
struct moment {
  thread_set enabled = 0;  // the threads that can go on: at least one
  int ran = -1;            // the thread that made the last step; -1 at the start
  footprint step;          // what that step has touched
};

/// Decides for one execution after the other.
class strategy {
 public:
  strategy() = default;
  strategy(const strategy&) = delete;
  strategy& operator=(const strategy&) = delete;
  virtual ~strategy() = default;

  /// Returns: the thread to go on, which must be enabled.
  virtual int choose(const moment& now) = 0;
};

/// A schedule as text: a digit for each point at which several threads could go on.
using schedule = std::string;

}  // namespace schedules

#endif  // SINGLEFLIGHT_TESTS_SCHEDULES_STRATEGY_HPP
