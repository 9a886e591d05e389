// SPDX-License-Identifier: MIT
// Callers that are not threads: how fast a herd of them wakes, what an asynchronous call that nobody
// joins costs, and what it costs to leave one. In a process that has started threads, as those that
// have coroutines have.

#include <benchmark/benchmark.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <singleflight/coroutine.hpp>
#include <singleflight/group.hpp>
#include <stop_token>
#include <string>
#include <utility>
#include <variant>
#include <vector>

#include "../tests/tasks.hpp"
#include "coroutine_waiters.hpp"
#include "harness.hpp"
#include "herd.hpp"
#include "run_queue.hpp"

namespace {

using bench::async_group;
using clock = std::chrono::steady_clock;
using seconds = std::chrono::duration<double>;

double median(std::vector<double> figures) {
  const auto middle = figures.begin() + static_cast<std::ptrdiff_t>(figures.size() / 2);
  std::nth_element(figures.begin(), middle, figures.end());
  return *middle;
}

/// One row. `rounds(state, last, join)` adds the figures of each round: the microseconds until the last
/// waiter has gone on, and the nanoseconds that each has taken to join.
template <class Rounds>
void add_herd(std::size_t n, const char* name, const Rounds& rounds) {
  benchmark::RegisterBenchmark(("herd/waiters:" + std::to_string(n) + "/" + name).c_str(),
                               [=](benchmark::State& state) {
                                 std::vector<double> last, join;
                                 for (auto _ : state) rounds(state, last, join);
                                 state.SetIterationTime(median(last) * 1e-6);
                                 state.counters["last_us"] = median(last);
                                 if (!join.empty()) state.counters["join_ns"] = median(join);
                               })
      ->Iterations(1)
      ->UseManualTime();
}

/// From the end of the loader of a `do_call` until the last of n coroutines has gone on.
template <class On>
void wake_coroutines(benchmark::State& state, std::size_t n, const On& on,
                     std::vector<double>& last, std::vector<double>& join) {
  async_group flights;
  const auto end = clock::now() + 2 * bench::row_time();
  do {
    bench::waiters all(n);
    const std::uint64_t expected = last.size() + 1;
    clock::time_point loaded;
    static_cast<void>(flights.do_call(1, [&] {
      const auto began = clock::now();
      for (std::size_t i = 0; i < n; ++i) all.follow(flights, on, expected);
      loaded = clock::now();
      join.push_back(seconds(loaded - began).count() * 1e9 / static_cast<double>(n));
      loaded = clock::now();
      return expected;
    }));
    last.push_back(seconds(all.last() - loaded).count() * 1e6);
    if (all.wrong()) state.SkipWithError("wrong answer");
  } while (clock::now() < end);
}

/// The same for threads.
void wake_threads(benchmark::State& state, std::size_t n, std::vector<double>& last) {
  bench::herd herd(n);
  async_group flights;
  const auto end = clock::now() + 2 * bench::row_time();
  do {
    const std::uint64_t expected = last.size() + 1;
    std::atomic<bool> wrong{false};
    const auto woken = herd.wake(
        [&](const auto& until_asleep) {
          static_cast<void>(flights.do_call(1, [&] {
            until_asleep();
            return expected;
          }));
        },
        [&] {
          if (*flights.do_call(1, [] { return std::uint64_t{0}; }) != expected) wrong = true;
        });
    last.push_back(seconds(woken.last).count() * 1e6);
    if (wrong) state.SkipWithError("wrong answer");
  } while (clock::now() < end);
}

void register_herd() {
  using figures = std::vector<double>;
  for (const std::size_t n : {64U, 256U, 10'000U, 100'000U}) {
    add_herd(n, "coroutines_inline", [n](benchmark::State& state, figures& last, figures& join) {
      wake_coroutines(state, n, singleflight::resume_inline, last, join);
    });
    add_herd(n, "coroutines_executor", [n](benchmark::State& state, figures& last, figures& join) {
      bench::run_queue queue(2);
      wake_coroutines(state, n, queue.executor(), last, join);
    });
    if (n > 256) continue;
    add_herd(n, "threads", [n](benchmark::State& state, figures& last, figures& /*join*/) {
      wake_threads(state, n, last);
    });
  }
}

// --- A call that nobody joins ------------------------------------------------------------------------

/// One row: coroutine `calls(state, flights, loaded)` makes the calls, whose loaders increment `loaded`.
template <class Calls>
void add_unjoined(const char* name, const Calls& calls) {
  benchmark::RegisterBenchmark((std::string("unjoined/") + name).c_str(),
                               [=](benchmark::State& state) {
                                 async_group flights;
                                 std::uint64_t loaded = 0;
                                 calls(state, flights, loaded);
                               });
}

support::lazy_task<std::uint64_t> load_at_once(std::uint64_t& loaded) { co_return ++loaded; }

void check(benchmark::State& state, std::uint64_t got, std::uint64_t expected) {
  if (got != expected) state.SkipWithError("wrong answer");
}

void register_unjoined() {
  add_unjoined("do_call", [](benchmark::State& state, async_group& flights, std::uint64_t& loaded) {
    for (auto _ : state) {
      const std::uint64_t got = flights.do_call(1, [&] { return ++loaded; });
      check(state, got, loaded);
    }
  });
  add_unjoined("co_call_value",
               [](benchmark::State& state, async_group& flights,
                  std::uint64_t& loaded) -> support::detached {
                 for (auto _ : state) {
                   const auto got = co_await flights.co_call(1, singleflight::resume_inline,
                                                             [&] { return ++loaded; });
                   check(state, *got, loaded);
                 }
               });
  add_unjoined("co_call_coroutine",
               [](benchmark::State& state, async_group& flights,
                  std::uint64_t& loaded) -> support::detached {
                 for (auto _ : state) {
                   const auto got = co_await flights.co_call(1, singleflight::resume_inline,
                                                             [&] { return load_at_once(loaded); });
                   check(state, *got, loaded);
                 }
               });
  add_unjoined("async_call", [](benchmark::State& state, async_group& flights,
                                std::uint64_t& loaded) {
    for (auto _ : state) {
      flights.async_call(
          1, singleflight::resume_inline, {},
          [&](singleflight::leader<std::uint64_t> lead) { std::move(lead).set_value(++loaded); },
          [&](const singleflight::outcome<std::uint64_t>& out) {
            check(state, out.value(), loaded);
          });
    }
  });
}

// --- Leaving -----------------------------------------------------------------------------------------

/// One caller leaves and another joins, while n others wait. The one that leaves is the one that has
/// waited longest, as where requests time out.
void leave(benchmark::State& state, std::size_t n) {
  async_group flights;
  auto hung = std::get<singleflight::leader<std::uint64_t>>(flights.lead_or_follow(1));
  std::uint64_t left = 0;
  std::vector<std::stop_source> stops(n + 1);
  const auto join = [&](std::stop_source& stop) {
    stop = std::stop_source();
    bench::follow_until_stopped(flights, stop.get_token(), left);
  };
  for (std::stop_source& stop : stops) join(stop);
  std::size_t oldest = 0;
  for (auto _ : state) {
    stops[oldest].request_stop();
    join(stops[oldest]);
    if (++oldest == stops.size()) oldest = 0;
  }
  if (left != static_cast<std::uint64_t>(state.iterations()) || flights.stats().waiting != n + 1) {
    state.SkipWithError("wrong answer");
  }
  std::move(hung).set_value(0);
}

void register_rows() {
  register_herd();
  register_unjoined();
  for (const std::size_t n : {1U, 1'000U, 100'000U}) {
    benchmark::RegisterBenchmark(("leave/others:" + std::to_string(n) + "/singleflight").c_str(),
                                 [=](benchmark::State& state) { leave(state, n); });
  }
}

}  // namespace

int main(int argc, char** argv) {
  return bench::run(argc, argv, bench::process::with_threads, register_rows);
}
