// SPDX-License-Identifier: MIT
#include "harness.hpp"

#include <benchmark/benchmark.h>

#include <chrono>
#include <cstdlib>
#include <string>
#include <string_view>
#include <thread>
#include <vector>

namespace bench {
namespace {

struct settings {
  double seconds = 0.1;
  bool once = false;
};
settings current;

/// Takes this program's own flags; returns the others, which are Google Benchmark's.
std::vector<char*> take_own_flags(int argc, char** argv) {
  constexpr std::string_view seconds = "--seconds=";
  std::vector<char*> others;
  for (char** arg = argv; arg != argv + argc; ++arg) {
    const std::string_view flag = *arg;
    if (flag == "--once") {
      current = {.seconds = 0.001, .once = true};
    } else if (flag.starts_with(seconds)) {
      current.seconds = std::strtod(*arg + seconds.size(), nullptr);
    } else {
      others.push_back(*arg);
    }
  }
  return others;
}

void add_context() {
  benchmark::AddCustomContext("compiler", SINGLEFLIGHT_BENCH_COMPILER);
  benchmark::AddCustomContext("flags", SINGLEFLIGHT_BENCH_FLAGS);
}

}  // namespace

std::chrono::duration<double> row_time() noexcept {
  return std::chrono::duration<double>(current.seconds);
}

bool once() noexcept { return current.once; }

int run(int argc, char** argv, process kind, void (*register_rows)()) {
  std::vector<char*> flags = take_own_flags(argc, argv);
  std::string min_time = "--benchmark_min_time=" + std::to_string(current.seconds);
  std::string in_random_order = "--benchmark_enable_random_interleaving=true";
  flags.insert(flags.begin() + 1, {min_time.data(), in_random_order.data()});
  int count = static_cast<int>(flags.size());
  flags.push_back(nullptr);
  benchmark::Initialize(&count, flags.data());
  if (benchmark::ReportUnrecognizedArguments(count, flags.data())) return 2;
  add_context();
  if (kind == process::with_threads) std::thread([] {}).join();
  register_rows();
  benchmark::RunSpecifiedBenchmarks();
  benchmark::Shutdown();
  return 0;
}

}  // namespace bench
