// SPDX-License-Identifier: MIT
// The cost of calls without followers, made by 1 to 8 threads at once, each with a key of its own.

#include <benchmark/benchmark.h>

#include <array>
#include <cstddef>
#include <string>

#include "harness.hpp"
#include "unshared.hpp"

namespace {

constexpr int most_threads = 8;

void count_calls(benchmark::State& state) {
  state.counters["calls/s"] =
      benchmark::Counter(static_cast<double>(state.iterations()), benchmark::Counter::kIsRate);
}

void floor_of_two_locks(benchmark::State& state) {
  static std::array<bench::two_locks, most_threads> locks;
  bench::two_locks& mine = locks.at(static_cast<std::size_t>(state.thread_index()));
  for (auto _ : state) mine();
  count_calls(state);
}

template <class A, class Key>
void unshared_call(benchmark::State& state) {
  static A coalescer;
  bench::unshared_calls<A, Key> call(coalescer, state.thread_index());
  for (auto _ : state) {
    if (!call()) state.SkipWithError("wrong answer");
  }
  count_calls(state);
}

void register_rows() {
  const auto add = [](const std::string& name, auto* function) {
    benchmark::RegisterBenchmark(("cost_threads/" + name).c_str(), function)
        ->ThreadRange(1, most_threads)
        ->UseRealTime();
  };
  add("key:none/floor", floor_of_two_locks);
  bench::for_each_unshared(
      [&]<class A, class Key>(const std::string& name) { add(name, unshared_call<A, Key>); });
}

}  // namespace

int main(int argc, char** argv) {
  return bench::run(argc, argv, bench::process::with_threads, register_rows);
}
