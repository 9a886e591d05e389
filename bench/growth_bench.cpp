// SPDX-License-Identifier: MIT
// The growth of time and memory with the number of keys, of calls in flight and of shards, and with
// the size of the values. (With the number of callers: dedup_bench.)

#include <benchmark/benchmark.h>
#include <malloc.h>

#include <algorithm>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <singleflight/group.hpp>
#include <string>
#include <utility>
#include <vector>

#include "alternatives.hpp"
#include "followed.hpp"
#include "harness.hpp"
#include "herd.hpp"

namespace {

using group = singleflight::group<std::uint64_t, std::uint64_t>;

/// A call for each of n keys in turn.
void keys(benchmark::State& state, std::uint64_t n) {
  group flights;
  std::uint64_t key = 0;
  for (auto _ : state) {
    const std::uint64_t got = flights.do_call(key, [&] { return key + 1; });
    if (got != key + 1) state.SkipWithError("wrong answer");
    key = got == n ? 0 : got;
  }
}

/// Calls while n others are in flight, queued by an executor, and the heap memory that each of
/// those takes.
void live_calls(benchmark::State& state, std::uint64_t n) {
  std::vector<std::function<void()>> queue;
  queue.reserve(n);
  std::vector<std::shared_future<std::uint64_t>> futures;
  futures.reserve(n);
  const auto heap = [] {
    const auto info = mallinfo2();
    return info.uordblks + info.hblkhd;
  };
  group flights;
  const std::size_t before = heap();
  for (std::uint64_t i = 0; i < n; ++i) {
    futures.push_back(flights.do_async(
        i, [&](auto task) { queue.emplace_back(std::move(task)); }, [i] { return i; }));
  }
  const std::size_t bytes = heap() - before;

  std::uint64_t key = n;
  for (auto _ : state) {
    const std::uint64_t got = flights.do_call(key, [&] { return key; });
    if (got != key) state.SkipWithError("wrong answer");
    if (++key == 2 * n + 1) key = n;
  }
  state.counters["bytes_each"] = static_cast<double>(bytes) / static_cast<double>(n);
  for (const auto& task : queue) task();
  for (std::uint64_t i = 0; i < n; ++i) {
    if (futures[i].get() != i) state.SkipWithError("wrong answer");
  }
}

/// Calls n deep, each made by the loader of the one before: the stack of its leader that a call
/// takes.
void nested_calls(benchmark::State& state, std::uint64_t n) {
  group flights;
  std::uintptr_t deepest = 0;
  const std::function<std::uint64_t(std::uint64_t)> descend =
      [&](std::uint64_t i) -> std::uint64_t {
    const char here = 0;
    deepest = reinterpret_cast<std::uintptr_t>(&here);
    if (i == n) return i;
    return flights.do_call(i, [&] { return descend(i + 1); });
  };
  const char top = 0;
  for (auto _ : state) {
    if (descend(0) != n) state.SkipWithError("wrong answer");
  }
  const auto stack = static_cast<double>(reinterpret_cast<std::uintptr_t>(&top) - deepest);
  state.counters["bytes_each"] = stack / static_cast<double>(n);
  state.counters["calls/s"] =
      benchmark::Counter(static_cast<double>(n) * static_cast<double>(state.iterations()),
                         benchmark::Counter::kIsRate);
}

constexpr std::size_t threads = 8;

/// Calls of 8 threads, each for a thousand keys of its own, in a group of n shards.
void shards(benchmark::State& state, std::size_t n) {
  static std::unique_ptr<group> flights;
  if (state.thread_index() == 0) flights = std::make_unique<group>(singleflight::group_options{n});
  const auto first = static_cast<std::uint64_t>(state.thread_index()) * 1000;
  std::uint64_t key = first;
  for (auto _ : state) {
    const std::uint64_t got = flights->do_call(key, [&] { return key; });
    if (got != key) state.SkipWithError("wrong answer");
    if (++key == first + 1000) key = first;
  }
  state.counters["calls/s"] =
      benchmark::Counter(static_cast<double>(state.iterations()), benchmark::Counter::kIsRate);
}

/// A value of some size that knows how often it was copied.
class payload {
 public:
  explicit payload(std::size_t size) : bytes_(size, 'x') {}
  payload(const payload& other) : bytes_(other.bytes_) { ++copies; }
  payload(payload&&) noexcept = default;
  payload& operator=(const payload&) = delete;
  payload& operator=(payload&&) noexcept = default;
  ~payload() = default;

  [[nodiscard]] std::size_t size() const { return bytes_.size(); }

  static inline std::atomic<std::uint64_t> copies{0};

 private:
  std::string bytes_;
};

/// A loader that moves an existing value out, and gets it back afterwards, so that only the value's
/// way through the library is measured.
void value_unshared(benchmark::State& state, std::size_t size) {
  singleflight::group<std::uint64_t, payload> flights;
  payload value(size);
  payload::copies = 0;
  for (auto _ : state) {
    value = flights.do_call(1, [&] { return std::move(value); }).value();
    if (value.size() != size) state.SkipWithError("wrong answer");
  }
  state.counters["copies"] =
      static_cast<double>(payload::copies) / static_cast<double>(state.iterations());
}

/// A leader and 8 followers read one value through `followed`.
template <class Followed>
void value_shared(benchmark::State& state, std::size_t size) {
  bench::herd herd(8);
  std::vector<double> times;
  for (auto _ : state) {
    Followed followed;
    std::atomic<bool> wrong{false};
    payload::copies = 0;
    const auto read = [&](const auto& got) {
      if (got->size() != size) wrong = true;
    };
    const auto wake = herd.wake(
        [&](const auto& until_asleep) {
          read(followed.get([&] {
            payload value(size);
            until_asleep();
            return value;
          }));
        },
        [&] { read(followed.get([&] { return payload(0); })); });
    if (wrong) state.SkipWithError("wrong answer");
    state.SetIterationTime(std::chrono::duration<double>(wake.last).count());
    state.counters["copies"] = static_cast<double>(payload::copies);
  }
}

/// By reference into the one value that all callers share.
struct read_result {
  static constexpr const char* name = "singleflight";
  singleflight::group<std::uint64_t, payload> flights;

  template <class Load>
  auto get(const Load& load) {
    return flights.do_call(1, load);
  }
};

/// By value, as the textbook's `do_call` returns it.
struct read_copy {
  static constexpr const char* name = "textbook_mended";
  bench::textbook_mended<std::uint64_t, payload> flights;

  template <class Load>
  auto get(const Load& load) {
    return std::make_unique<payload>(flights.get(1, load));
  }
};

template <class Size>
void add(const std::string& name, Size size, void (*function)(benchmark::State&, Size)) {
  benchmark::RegisterBenchmark(("growth/" + name).c_str(),
                               [=](benchmark::State& state) { function(state, size); });
}

void register_rows() {
  for (const std::uint64_t n : {1U, 1'000U, 100'000U, 1'000'000U}) {
    add("keys:" + std::to_string(n) + "/singleflight", n, keys);
  }
  for (const std::uint64_t n : {100U, 1'000U, 10'000U, 100'000U}) {
    add("live:" + std::to_string(n) + "/singleflight", n, live_calls);
  }
  for (const std::uint64_t n : {10U, 100U, 1'000U}) {
    add("nested:" + std::to_string(n) + "/singleflight", n, nested_calls);
  }
  for (const std::size_t n : {1U, 2U, 4U, 8U, 16U, 64U, 256U}) {
    const std::string name = "growth/shards:" + std::to_string(n) + "/singleflight";
    benchmark::RegisterBenchmark(name.c_str(), [=](benchmark::State& state) { shards(state, n); })
        ->Threads(threads)
        ->UseRealTime();
  }
  for (const std::size_t size : {1U, 1'000U, 100'000U, 1'000'000U}) {
    const std::string bytes = "bytes:" + std::to_string(size) + "/";
    add("unshared/" + bytes + "singleflight", size, value_unshared);
    const auto add_shared = [&](const char* name,
                                void (*function)(benchmark::State&, std::size_t)) {
      benchmark::RegisterBenchmark(("growth/shared/" + bytes + name).c_str(),
                                   [=](benchmark::State& state) { function(state, size); })
          ->Iterations(bench::once() ? 1 : 50)
          ->UseManualTime();
    };
    add_shared(read_result::name, value_shared<read_result>);
    add_shared(read_copy::name, value_shared<read_copy>);
  }
}

}  // namespace

int main(int argc, char** argv) {
  return bench::run(argc, argv, bench::process::with_threads, register_rows);
}
