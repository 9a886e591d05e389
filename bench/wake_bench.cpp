// SPDX-License-Identifier: MIT
// The time to wake a herd: from the end of the loader until the last caller is back, beside the
// same threads on a bare std::shared_future. Spinning alternatives are left out, since no thread
// sleeps there.

#include <benchmark/benchmark.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <map>
#include <random>
#include <string>
#include <tuple>
#include <vector>

#include "alternatives.hpp"
#include "followed.hpp"
#include "harness.hpp"
#include "herd.hpp"

namespace {

using value = std::uint64_t;

struct record {
  std::vector<bench::wake_up> wakes;
  std::size_t executions = 0;
  bool wrong = false;
};
using records = std::map<std::string, record>;

/// One round of one contestant.
template <class Followed>
void take_turn(bench::herd& herd, Followed& followed, record& mine) {
  const auto expected = static_cast<value>(mine.wakes.size() + 1);
  std::atomic<std::size_t> executions{0};
  std::atomic<bool> wrong{false};
  const auto check = [&](value got) {
    if (got != expected) wrong = true;
  };
  followed.renew();
  const auto load = [&] {
    ++executions;
    return expected;
  };
  mine.wakes.push_back(herd.wake(
      [&](const auto& until_asleep) {
        check(followed.lead([&] {
          until_asleep();
          return load();
        }));
      },
      [&] { check(followed.follow(load)); }));
  mine.executions += executions;
  mine.wrong = mine.wrong || wrong;
}

/// The contestants take turns with the same threads, each time in another order, so that what
/// disturbs one disturbs all. The first turns, which warm up, are not counted.
template <class... Followed>
records tournament(std::size_t followers, std::chrono::duration<double> time) {
  bench::herd herd(followers);
  std::tuple<Followed...> contestants;
  records all, warm_up;
  (take_turn(herd, std::get<Followed>(contestants), warm_up[Followed::name]), ...);
  std::vector<std::function<void()>> turns = {
      [&] { take_turn(herd, std::get<Followed>(contestants), all[Followed::name]); }...};
  std::mt19937 random(1);
  const auto end = std::chrono::steady_clock::now() + time * sizeof...(Followed);
  do {
    std::shuffle(turns.begin(), turns.end(), random);
    for (const auto& turn : turns) turn();
  } while (std::chrono::steady_clock::now() < end);
  return all;
}

template <class Duration>
double median_us(const std::vector<bench::wake_up>& wakes, Duration bench::wake_up::*which) {
  std::vector<Duration> times;
  times.reserve(wakes.size());
  for (const bench::wake_up& wake : wakes) times.push_back(wake.*which);
  const auto middle = times.begin() + static_cast<std::ptrdiff_t>(times.size() / 2);
  std::nth_element(times.begin(), middle, times.end());
  return std::chrono::duration<double, std::micro>(*middle).count();
}

/// The row of one contestant. The first row of a size runs the rounds of all contestants.
template <class... Followed>
void add_rows(std::size_t followers) {
  static std::map<std::size_t, records> held;
  const auto row = [followers](benchmark::State& state, const char* name) {
    for (auto _ : state) {
      records& all = held[followers];
      if (all.empty()) all = tournament<Followed...>(followers, 2 * bench::row_time());
      const record& mine = all[name];
      if (mine.wrong) state.SkipWithError("wrong answers");
      const double last = median_us(mine.wakes, &bench::wake_up::last);
      state.SetIterationTime(last * 1e-6);
      state.counters["last_us"] = last;
      state.counters["median_us"] = median_us(mine.wakes, &bench::wake_up::median);
      state.counters["leader_us"] = median_us(mine.wakes, &bench::wake_up::leader);
      state.counters["executions"] =
          static_cast<double>(mine.executions) / static_cast<double>(mine.wakes.size());
    }
  };
  const auto add = [&](const char* name) {
    const std::string title = "wake/followers:" + std::to_string(followers) + "/" + name;
    benchmark::RegisterBenchmark(title.c_str(), [=](benchmark::State& state) { row(state, name); })
        ->Iterations(1)
        ->UseManualTime();
  };
  (add(Followed::name), ...);
}

void register_rows() {
  for (const std::size_t followers : {8U, 64U, 256U}) {
    add_rows<bench::bare_future<value>, bench::bare_future_deadline<value>,
             bench::one_key<bench::singleflight<value, value>>, bench::with_deadline<value>,
             bench::with_stop_token<value>, bench::one_key<bench::textbook_mended<value, value>>,
             bench::one_key<bench::mutex_per_key<value, value>>,
             bench::one_key<bench::call_once<value, value>>>(followers);
  }
}

}  // namespace

int main(int argc, char** argv) {
  return bench::run(argc, argv, bench::process::with_threads, register_rows);
}
