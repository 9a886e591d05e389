// SPDX-License-Identifier: MIT
// The parts that every benchmark program shares: its main function, and the length of a row.
#ifndef SINGLEFLIGHT_BENCH_HARNESS_HPP
#define SINGLEFLIGHT_BENCH_HARNESS_HPP

#include <chrono>

namespace bench {

/// Whether the process has started a thread. From then on glibc and libstdc++ use atomic operations
/// for locks and reference counts, which cost more. All rows of a program are measured in one mode.
enum class process { without_threads, with_threads };

/// Returns: the time that each row measures: `--seconds=0.1` on the command line.
[[nodiscard]] std::chrono::duration<double> row_time() noexcept;

/// Returns: whether each row runs only once, without measuring: `--once`.
[[nodiscard]] bool once() noexcept;

/// The main function of a benchmark program: reads the command line, calls `register_rows`, runs
/// them.
int run(int argc, char** argv, process kind, void (*register_rows)());

}  // namespace bench

#endif  // SINGLEFLIGHT_BENCH_HARNESS_HPP
