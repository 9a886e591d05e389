// SPDX-License-Identifier: MIT
// What every benchmark program has: its main function, and how long a row takes.
#ifndef SINGLEFLIGHT_BENCH_HARNESS_HPP
#define SINGLEFLIGHT_BENCH_HARNESS_HPP

#include <chrono>

namespace bench {

/// What glibc and libstdc++ know of this process: once a thread has been started, locks and
/// reference counts cost more for good. All rows of a program are measured in one of the two.
enum class process { without_threads, with_threads };

/// How long each row measures: `--seconds=0.1` on the command line.
[[nodiscard]] std::chrono::duration<double> row_time() noexcept;

/// Whether the rows are only to be run through: `--once`.
[[nodiscard]] bool once() noexcept;

/// The main function of a benchmark program: reads the command line, calls `register_rows`, runs
/// them.
int run(int argc, char** argv, process kind, void (*register_rows)());

}  // namespace bench

#endif  // SINGLEFLIGHT_BENCH_HARNESS_HPP
