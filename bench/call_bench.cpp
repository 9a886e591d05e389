// SPDX-License-Identifier: MIT
// What does a call cost that nobody joins? Beside the floor of any mutex-guarded design, two empty
// lock/unlock pairs, and the textbook version.

#include <benchmark/benchmark.h>

#include <cstdint>
#include <mutex>
#include <singleflight/group.hpp>
#include <string>

#include "alternatives.hpp"

namespace {

template <class Key>
Key make_key(int n);

template <>
std::uint64_t make_key<std::uint64_t>(int n) {
  return 1000U + static_cast<std::uint64_t>(n);
}

template <>
std::string make_key<std::string>(int n) {
  std::string key = "template-details:en-GB:0";  // 24 characters: no small string
  key.back() = static_cast<char>('0' + n);
  return key;
}

template <class Key>
using group = singleflight::group<Key, std::uint64_t>;
template <class Key>
using textbook = bench::textbook<Key, std::uint64_t, bench::ending::publish_first>;

void floor_of_two_locks(benchmark::State& state) {
  std::mutex mutex;
  for (auto _ : state) {
    mutex.lock();
    benchmark::ClobberMemory();
    mutex.unlock();
    mutex.lock();
    benchmark::ClobberMemory();
    mutex.unlock();
  }
}
BENCHMARK(floor_of_two_locks);

/// Each thread calls a key of its own, through one group.
template <template <class> class Coalescer, class Key>
void unshared_call(benchmark::State& state) {
  static Coalescer<Key> coalescer;
  const Key key = make_key<Key>(state.thread_index());
  std::uint64_t loaded = 0;
  for (auto _ : state) {
    std::uint64_t value = coalescer.do_call(key, [&] { return ++loaded; });
    benchmark::DoNotOptimize(value);
  }
  state.SetItemsProcessed(state.iterations());
}
BENCHMARK(unshared_call<textbook, std::uint64_t>);
BENCHMARK(unshared_call<group, std::uint64_t>);
BENCHMARK(unshared_call<textbook, std::string>);
BENCHMARK(unshared_call<group, std::string>);
BENCHMARK(unshared_call<textbook, std::string>)->Threads(8)->UseRealTime();
BENCHMARK(unshared_call<group, std::string>)->Threads(8)->UseRealTime();

}  // namespace
