// SPDX-License-Identifier: MIT
// The cost of options and executors for a call without followers. (For followers: wake_bench.)

#include <benchmark/benchmark.h>

#include <chrono>
#include <cstdint>
#include <singleflight/group.hpp>
#include <stop_token>
#include <string>

#include "harness.hpp"

namespace {

using group = singleflight::group<std::uint64_t, std::uint64_t>;

/// Runs its task at once, on the caller's thread: what is left is the cost of handing over.
constexpr auto inline_executor = [](auto task) { task(); };

/// One row: `call(flights, loader)` again and again.
template <class Call>
void add(const char* name, const Call& call, singleflight::group_options options = {}) {
  benchmark::RegisterBenchmark((std::string("extras/") + name).c_str(),
                               [=](benchmark::State& state) {
                                 group flights(options);
                                 std::uint64_t loaded = 0;
                                 const auto load = [&] { return ++loaded; };
                                 for (auto _ : state) {
                                   const std::uint64_t got = call(flights, load);
                                   if (got != loaded) state.SkipWithError("wrong answer");
                                 }
                               });
}

std::uint64_t plain(group& flights, const auto& load) { return flights.do_call(1, load); }

void register_rows() {
  const auto call = [](group& flights, const auto& load) { return plain(flights, load); };
  const auto far = std::chrono::steady_clock::now() + std::chrono::hours(24);
  static std::stop_source source;

  add("plain", call);
  add("deadline", [=](group& flights, const auto& load) -> std::uint64_t {
    return flights.do_call(1, {.deadline = far}, load);
  });
  add("deadline_from_now", [](group& flights, const auto& load) -> std::uint64_t {
    const auto soon = std::chrono::steady_clock::now() + std::chrono::seconds(1);
    return flights.do_call(1, {.deadline = soon}, load);
  });
  add("stop_token", [](group& flights, const auto& load) -> std::uint64_t {
    return flights.do_call(1, {.stop = source.get_token()}, load);
  });
  add("attempts", [](group& flights, const auto& load) -> std::uint64_t {
    return flights.do_call(1, {.attempts = 3}, load);
  });
  add("loader_takes_stop_token", [](group& flights, const auto& load) -> std::uint64_t {
    return flights.do_call(1, [&](const std::stop_token& /*stop*/) { return load(); });
  });
  add("max_age", call, {.max_age = std::chrono::hours(1)});
  add("max_waiters", call, {.max_waiters = 10});
  add("do_call_on", [](group& flights, const auto& load) -> std::uint64_t {
    return flights.do_call_on(1, inline_executor, {}, load);
  });
  add("do_async", [](group& flights, const auto& load) -> std::uint64_t {
    return flights.do_async(1, inline_executor, load).get();
  });
  add("nested", [](group& flights, const auto& load) -> std::uint64_t {
    return flights.do_call(1, [&]() -> std::uint64_t { return flights.do_call(2, load); });
  });
}

}  // namespace

int main(int argc, char** argv) {
  return bench::run(argc, argv, bench::process::without_threads, register_rows);
}
