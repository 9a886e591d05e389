// SPDX-License-Identifier: MIT
// What a miss costs with a fleet, beside GET, second look and SET; and how many loads P processes
// make of a key that all want, how late the others are, and by how many commands. Prints a page.
//
//     tests/fleet/run --bench <build directory>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <functional>
#include <map>
#include <singleflight/fleet.hpp>
#include <singleflight/hiredis_client.hpp>
#include <singleflight/redis_leases.hpp>
#include <string>
#include <vector>

#include "redis_server.hpp"
#include "workers.hpp"

namespace {

using namespace std::chrono_literals;
using clock = std::chrono::steady_clock;
using fleet_tests::redis_server;
using fleet_tests::worker;
using fleet_tests::workers;
using leases = singleflight::redis_leases<singleflight::hiredis_client>;

double median(std::vector<double> of) {
  std::sort(of.begin(), of.end());
  return of.empty() ? 0 : of[of.size() / 2];
}
double part(std::vector<double> of, double which) {
  std::sort(of.begin(), of.end());
  return of.empty() ? 0 : of[static_cast<std::size_t>(which * static_cast<double>(of.size() - 1))];
}

void costs_of_a_miss() {
  redis_server redis;
  singleflight::hiredis_client client(redis.options());
  leases store(client);
  singleflight::fleet<std::string, leases> fleet(store);
  const std::string value(1000, 'v');
  int number = 0;
  const auto new_key = [&] { return "key:" + std::to_string(++number); };
  (void)client.execute({"SET", "there", value});

  struct way {
    const char* name;
    std::function<void()> once;
    std::vector<double> rounds = {};
  };
  std::vector<way> ways{
      {"GET that hits",
       [&] {
         (void)client.execute({"GET", "there"});
       }},
      {"entry that hits", [&] { (void)fleet.load("there", 30s, [] { return ""; }); }},
      {"miss: GET, GET, SET",
       [&] {
         const std::string key = new_key();
         (void)client.execute({"GET", key});
         (void)client.execute({"GET", key});
         (void)client.execute({"SET", key, value, "PX", "30000"});
       }},
      {"miss: GET, enter, fill", [&] {
         const std::string key = new_key();
         (void)client.execute({"GET", key});
         (void)fleet.load(key, 30s, [&] { return value; });
       }}};
  constexpr int rounds = 10;
  constexpr int times = 2000;
  for (int round = 0; round <= rounds; ++round) {  // the first warms up
    for (way& each : ways) {
      const auto begin = clock::now();
      for (int i = 0; i < times; ++i) each.once();
      const std::chrono::duration<double, std::micro> took = clock::now() - begin;
      if (round > 0) each.rounds.push_back(took.count() / times);
    }
    (void)redis.reply({"FLUSHALL"});
    (void)client.execute({"SET", "there", value});
  }
  std::printf("One process, value of 1,000 bytes, loopback; median of %d rounds of %d:\n\n", rounds,
              times);
  std::printf("| | time | commands |\n|---|---|---|\n");
  for (const way& each : ways) {
    const bool miss = std::string_view(each.name).starts_with("miss");
    std::printf("| %s | %.0f us | %d |\n", each.name, median(each.rounds), miss ? 3 : 1);
  }
}

void processes_that_meet(std::size_t processes, long lifetime) {
  constexpr int keys = 200;
  constexpr long load_us = 12'000;
  redis_server redis;
  workers fleet(processes, redis.port());
  for (std::size_t i = 0; i < processes; ++i) {  // connections, scripts
    (void)fleet[i].result(fleet[i].load("warm-up" + std::to_string(i), 1, "value"));
  }
  (void)redis.reply({"CONFIG", "RESETSTAT"});
  std::vector<double> delays;
  long loads = 0;
  for (int k = 0; k < keys; ++k) {
    const std::string id = worker::next_id();
    const auto at = (clock::now() + 5ms).time_since_epoch().count();
    for (std::size_t i = 0; i < processes; ++i) {
      fleet[i].tell("meet " + id + " key" + std::to_string(k) + " " + std::to_string(at) + " " +
                    std::to_string(load_us) + " " + std::to_string(lifetime));
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
    for (const auto back : others) delays.push_back(static_cast<double>(back - ended) / 1e6);
  }
  auto calls = redis.calls();
  const double misses = keys * static_cast<double>(processes);
  std::printf("| %zu | %s | %.2f | %.2f ms | %.2f ms | %.2f |\n", processes,
              lifetime > 0 ? "kept" : "handed over", static_cast<double>(loads) / keys,
              median(delays), part(delays, 0.99),
              1 + static_cast<double>(calls["evalsha"] + calls["eval"] + calls["xread"]) / misses);
}

void keys_that_expire(std::size_t processes) {
  redis_server redis;
  workers fleet(processes, redis.port());
  const auto came_of_it = fleet.storm("4 10 " + std::to_string(8'000) + " 5000 50 0");
  std::printf("| %zu | %ld | %ld |\n", processes, came_of_it.loads, came_of_it.overlaps);
}

}  // namespace

int main() {
  costs_of_a_miss();
  std::printf(
      "\nP processes want one cold key at once; a load takes 12 ms; 200 keys. The delay is from "
      "the "
      "end of the\nloader to the return in the other processes. Commands are for each process and "
      "miss, the GET before included:\n\n"
      "| P | result | loads a key | delay, median | delay, 99 %% | commands |\n"
      "|---|---|---|---|---|---|\n");
  for (const std::size_t processes : {2U, 5U, 10U}) {
    processes_that_meet(processes, 60'000);
    processes_that_meet(processes, 0);
  }
  std::printf(
      "\nP processes of 4 threads read 10 keys that live for 50 ms; a load takes 5 ms:\n\n"
      "| P | loads | of them while another of the key ran |\n|---|---|---|\n");
  for (const std::size_t processes : {2U, 5U, 10U}) keys_that_expire(processes);
}
