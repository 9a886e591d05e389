// SPDX-License-Identifier: MIT
// The cost of an observer for a call without followers.

#include <benchmark/benchmark.h>

#include <atomic>
#include <cstdint>
#include <functional>
#include <singleflight/group.hpp>
#include <singleflight/observer.hpp>
#include <singleflight/prometheus.hpp>
#include <string>

#include "harness.hpp"

namespace {

/// Counts each event of a call that nobody joins. No clock is read.
struct counting {
  std::atomic<std::uint64_t>* began;
  std::atomic<std::uint64_t>* joined_calls;

  void call_began(const auto&) const noexcept { began->fetch_add(1, std::memory_order_relaxed); }
  void joined(const auto&) const noexcept { joined_calls->fetch_add(1, std::memory_order_relaxed); }
};

/// Counts, and has the histograms of loads and waits.
struct measuring : singleflight::prometheus_observer {
  counting counts;

  explicit measuring(const counting& c) : counts(c) {}
  void call_began(const auto& e) const noexcept { counts.call_began(e); }
  void joined(const auto& e) const noexcept { counts.joined(e); }
};

std::atomic<std::uint64_t> began{0}, joined{0};

template <class Observer>
void add(const char* name, Observer (*make)()) {
  using group = singleflight::group<std::uint64_t, std::uint64_t, std::hash<std::uint64_t>,
                                    std::equal_to<std::uint64_t>, Observer>;
  benchmark::RegisterBenchmark(
      (std::string("observers/") + name).c_str(), [=](benchmark::State& state) {
        group flights({}, {}, {}, make());
        std::uint64_t loaded = 0;
        for (auto _ : state) {
          const std::uint64_t got = flights.do_call(1, [&] { return ++loaded; });
          if (got != loaded) state.SkipWithError("wrong answer");
        }
      });
}

void register_rows() {
  add<singleflight::no_observer>("none", [] { return singleflight::no_observer(); });
  add<counting>("counters", [] { return counting{&began, &joined}; });
  add<measuring>("histograms", [] { return measuring(counting{&began, &joined}); });
}

}  // namespace

int main(int argc, char** argv) {
  return bench::run(argc, argv, bench::process::without_threads, register_rows);
}
