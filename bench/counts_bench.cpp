// SPDX-License-Identifier: MIT
// The cost of a call without followers, in counts: heap allocations and bytes, mutexes locked. This
// is a program of its own, since counting costs time.

#include <benchmark/benchmark.h>

#include <cstdint>
#include <string>

#include "counted.hpp"
#include "harness.hpp"
#include "unshared.hpp"

namespace {

constexpr int warm_up = 100;  // by then the shard has the buffers that it keeps
constexpr int calls = 1000;

template <class A, class Key>
void unshared_call(benchmark::State& state) {
  A coalescer;
  bench::unshared_calls<A, Key> call(coalescer, 0);
  for (auto _ : state) {
    for (int i = 0; i < warm_up; ++i) call();
    const bench::counts before = bench::counts_of_this_thread();
    for (int i = 0; i < calls; ++i) {
      if (!call()) state.SkipWithError("wrong answer");
    }
    const bench::counts after = bench::counts_of_this_thread();
    const auto per_call = [](std::uint64_t first, std::uint64_t last) {
      return static_cast<double>(last - first) / calls;
    };
    state.counters["allocations"] = per_call(before.allocations, after.allocations);
    state.counters["bytes"] = per_call(before.bytes, after.bytes);
    state.counters["mutexes"] = per_call(before.mutexes, after.mutexes);
  }
}

void register_rows() {
  bench::for_each_unshared([]<class A, class Key>(const std::string& name) {
    benchmark::RegisterBenchmark(("counts/" + name).c_str(), unshared_call<A, Key>)->Iterations(1);
  });
}

}  // namespace

int main(int argc, char** argv) {
  return bench::run(argc, argv, bench::process::without_threads, register_rows);
}
