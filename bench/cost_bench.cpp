// SPDX-License-Identifier: MIT
// The cost of a call without followers, in a process that has started no thread.

#include <benchmark/benchmark.h>
#include <linux/futex.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <string>

#include "harness.hpp"
#include "unshared.hpp"

namespace {

void floor_of_two_locks(benchmark::State& state) {
  bench::two_locks locks;
  for (auto _ : state) locks();
}

/// A futex wake-up without a waiter. In glibc every std::promise makes this system call, through
/// pthread_once; a reader can subtract it from the rows that have a promise.
void system_call(benchmark::State& state) {
  int word = 0;
  for (auto _ : state) syscall(SYS_futex, &word, FUTEX_WAKE_PRIVATE, 1, nullptr, nullptr, 0);
}

template <class A, class Key>
void unshared_call(benchmark::State& state) {
  A coalescer;
  bench::unshared_calls<A, Key> call(coalescer, 0);
  for (auto _ : state) {
    if (!call()) state.SkipWithError("wrong answer");
  }
}

void register_rows() {
  benchmark::RegisterBenchmark("cost/key:none/floor", floor_of_two_locks);
  benchmark::RegisterBenchmark("cost/key:none/system_call", system_call);
  bench::for_each_unshared([]<class A, class Key>(const std::string& name) {
    benchmark::RegisterBenchmark(("cost/" + name).c_str(), unshared_call<A, Key>);
  });
}

}  // namespace

int main(int argc, char** argv) {
  return bench::run(argc, argv, bench::process::without_threads, register_rows);
}
