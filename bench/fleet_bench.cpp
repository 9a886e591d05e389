// SPDX-License-Identifier: MIT
// What a miss costs with a fleet, beside GET, second look and SET; how many loads several processes
// make of a key that all want, how late the others are, and by how many commands. On a real Redis of
// its own, over loopback; the processes are tests/fleet/worker.cpp.

#include <benchmark/benchmark.h>

#include <algorithm>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <singleflight/fleet.hpp>
#include <singleflight/hiredis_client.hpp>
#include <singleflight/redis_leases.hpp>
#include <string>
#include <vector>

#include "../tests/fleet/redis_server.hpp"
#include "../tests/fleet/workers.hpp"
#include "harness.hpp"

namespace {

using namespace std::chrono_literals;
using clock = std::chrono::steady_clock;
using fleet_tests::redis_server;
using fleet_tests::worker;
using fleet_tests::workers;
using leases = singleflight::redis_leases<singleflight::hiredis_client>;

/// One process and one Redis.
struct one_process {
  redis_server redis;
  singleflight::hiredis_client client{redis.options()};
  leases store{client};
  singleflight::fleet<std::string, leases> fleet{store};
  const std::string value = std::string(1000, 'v');
  int number = 0;

  std::string new_key() { return "key:" + std::to_string(++number); }
};

/// What is measured beside each other. Returns: whether the answer was right.
struct way {
  const char* name;
  bool (*once)(one_process& its);
  std::vector<double> turns = {};  // microseconds
};

std::vector<way> all_ways() {
  return {{"get",
           [](one_process& its) {
             return its.client.execute({"GET", "there"}).text == its.value;
           }},
          {"entry",
           [](one_process& its) {
             return its.fleet.load("there", 30s, [] { return std::string(); }) == its.value;
           }},
          {"miss_alone",
           [](one_process& its) {
             const std::string key = its.new_key();
             (void)its.client.execute({"GET", key});
             (void)its.client.execute({"GET", key});
             return its.client.execute({"SET", key, its.value, "PX", "30000"}).text == "OK";
           }},
          {"miss_leader", [](one_process& its) {
             const std::string key = its.new_key();
             (void)its.client.execute({"GET", key});
             return its.fleet.load(key, 30s, [&] { return its.value; }) == its.value;
           }}};
}

/// The ways take turns, so that what disturbs one disturbs all. The first turns warm up.
std::vector<way> take_turns(benchmark::State& state) {
  constexpr int times = 50;
  one_process its;
  (void)its.client.execute({"SET", "there", its.value});
  std::vector<way> ways = all_ways();
  const auto end = clock::now() + 20 * bench::row_time();
  for (bool warm = false; !warm || clock::now() < end; warm = true) {
    for (way& each : ways) {
      const auto begin = clock::now();
      for (int i = 0; i < times; ++i) {
        if (!each.once(its)) state.SkipWithError("wrong answer");
      }
      const std::chrono::duration<double, std::micro> took = clock::now() - begin;
      if (warm || bench::once()) each.turns.push_back(took.count() / times);
    }
  }
  return ways;
}

double part(std::vector<double> of, double which) {
  std::sort(of.begin(), of.end());
  return of.empty() ? 0 : of[static_cast<std::size_t>(which * static_cast<double>(of.size() - 1))];
}

/// The row of one way. The first row runs the turns of all.
void add_costs() {
  for (const way& named : all_ways()) {
    const std::string name = named.name;
    benchmark::RegisterBenchmark(("fleet/cost/" + name).c_str(),
                                 [name](benchmark::State& state) {
                                   for (auto _ : state) {
                                     static const std::vector<way> held = take_turns(state);
                                     const auto mine = std::find_if(
                                         held.begin(), held.end(),
                                         [&](const way& each) { return each.name == name; });
                                     state.SetIterationTime(part(mine->turns, 0.5) * 1e-6);
                                   }
                                 })
        ->Iterations(1)
        ->UseManualTime();
  }
}

/// All processes want a cold key at once. The delay is from the end of the loader to the return in
/// the other processes.
void meet(benchmark::State& state, std::size_t processes, const worker::options& how,
          std::chrono::milliseconds lifetime) {
  const int keys = bench::once() ? 1 : 20;
  redis_server redis;
  workers fleet(processes, redis.port(), how);
  for (std::size_t i = 0; i < processes; ++i) {  // connections, scripts
    (void)fleet[i].result(fleet[i].load("warm-up" + std::to_string(i), 1, "value"));
  }
  for (auto _ : state) {
    (void)redis.reply({"CONFIG", "RESETSTAT"});
    std::vector<double> delays;
    long loads = 0;
    for (int k = 0; k < keys; ++k) {
      const std::string id = worker::next_id();
      const auto at = (clock::now() + 5ms).time_since_epoch().count();
      for (std::size_t i = 0; i < processes; ++i) {
        fleet[i].tell("meet " + id + " " + id + "k " + std::to_string(at) + " 12000 " +
                      std::to_string(lifetime.count()));
      }
      std::int64_t ended = 0;
      std::vector<std::int64_t> others;
      for (std::size_t i = 0; i < processes; ++i) {
        auto figures = worker::figures(fleet[i].answer(id));
        if (figures["loaded"] != 0) {
          ++loads;
          ended = std::max<std::int64_t>(ended, figures["loaded"]);
        } else {
          others.push_back(figures["back"]);
        }
      }
      for (const auto back : others) delays.push_back(static_cast<double>(back - ended) / 1e3);
    }
    auto calls = redis.calls();
    const double misses = keys * static_cast<double>(processes);
    const auto commands = calls["evalsha"] + calls["eval"] + calls["xread"];
    state.SetIterationTime(part(delays, 0.5) * 1e-6);
    state.counters["loads"] = static_cast<double>(loads) / keys;
    state.counters["delay_us"] = part(delays, 0.5);
    state.counters["delay_p99_us"] = part(delays, 0.99);
    state.counters["commands"] = 1 + static_cast<double>(commands) / misses;
  }
}

/// Hot keys that expire again and again, under threads that want them all the time.
void expire(benchmark::State& state, std::size_t processes, const worker::options& how) {
  const std::string loads = bench::once() ? "100" : "2000";
  redis_server redis;
  workers fleet(processes, redis.port(), how);
  for (auto _ : state) {
    const auto begin = clock::now();
    const auto came_of_it = fleet.storm("4 10 " + loads + " 5000 50 0");
    if (came_of_it.wrong + came_of_it.failed != 0) state.SkipWithError("wrong answers");
    state.SetIterationTime(std::chrono::duration<double>(clock::now() - begin).count());
    state.counters["loads"] =
        static_cast<double>(came_of_it.loads) / static_cast<double>(came_of_it.herds);
  }
}

template <class Row>
void add(const std::string& name, const Row& row) {
  benchmark::RegisterBenchmark(name.c_str(), row)->Iterations(1)->UseManualTime();
}

void register_rows() {
  add_costs();
  for (const std::size_t processes : {2U, 5U, 10U}) {
    const std::string of = "processes:" + std::to_string(processes) + "/";
    for (const long with_fleet : {1, 0}) {
      const std::string name = with_fleet != 0 ? "fleet" : "group";
      const worker::options how{{"fleet", with_fleet}};
      add("fleet/cold/" + of + name,
          [=](benchmark::State& state) { meet(state, processes, how, 60s); });
      add("fleet/expiring/" + of + name,
          [=](benchmark::State& state) { expire(state, processes, how); });
    }
    add("fleet/cold/" + of + "handed_over",
        [=](benchmark::State& state) { meet(state, processes, {}, 0s); });
  }
}

}  // namespace

int main(int argc, char** argv) {
  return bench::run(argc, argv, bench::process::with_threads, register_rows);
}
