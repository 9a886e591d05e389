// SPDX-License-Identifier: MIT
// Callers that are not threads, in counts: the heap memory that a waiter takes, and that a call takes
// that nobody joins. This is a program of its own, since counting costs time.

#include <benchmark/benchmark.h>

#include <coroutine>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <singleflight/coroutine.hpp>
#include <singleflight/group.hpp>
#include <stop_token>
#include <string>
#include <utility>
#include <variant>
#include <vector>

#include "../tests/replaced_new.hpp"
#include "../tests/tasks.hpp"
#include "coroutine_waiters.hpp"
#include "counted.hpp"
#include "harness.hpp"

namespace {

using bench::async_group;
using leader = singleflight::leader<std::uint64_t>;

/// What this thread allocates from here on.
class tally {
 public:
  /// Reports the counts so far, each divided by n.
  void report(benchmark::State& state, std::size_t n) const {
    const bench::counts now = bench::counts_of_this_thread();
    const auto each = [n](std::uint64_t first, std::uint64_t last) {
      return static_cast<double>(last - first) / static_cast<double>(n);
    };
    state.counters["allocations"] = each(before_.allocations, now.allocations);
    state.counters["bytes"] = each(before_.bytes, now.bytes);
  }

 private:
  const bench::counts before_ = bench::counts_of_this_thread();
};

void check(benchmark::State& state, bool right) {
  if (!right) state.SkipWithError("wrong answer");
}

template <class Function>
void add(const std::string& name, const Function& function) {
  benchmark::RegisterBenchmark(("async_counts/" + name).c_str(), [=](benchmark::State& state) {
    for (auto _ : state) function(state);
  })->Iterations(1);
}

// --- Waiters -----------------------------------------------------------------------------------------

/// As `support::detached`, and notes how large its frame is.
struct measured {
  struct promise_type : support::detached::promise_type {
    [[nodiscard]] measured get_return_object() const noexcept { return {}; }
    static void* operator new(std::size_t size) {
      last_frame = size;
      return ::operator new(size);
    }
    static void operator delete(void* frame) { ::operator delete(frame); }
  };
  static inline std::size_t last_frame = 0;
};

/// The least that a coroutine can wait for.
struct bare_event {
  std::coroutine_handle<> waiting;

  [[nodiscard]] static bool await_ready() noexcept { return false; }
  void await_suspend(std::coroutine_handle<> me) { waiting = me; }
  [[nodiscard]] static std::uint64_t await_resume() noexcept { return 1; }
};

measured await_bare(bare_event& event, std::uint64_t& sum) {
  const std::uint64_t got = co_await event;
  sum += got;
}

template <class On>
measured await_call(async_group& flights, On on, std::uint64_t& sum) {
  const auto got = co_await flights.co_call(1, on, [] { return std::uint64_t{0}; });
  sum += *got;
}

/// n coroutines join one call. `resume` has those resumed that have an executor.
template <class On, class Resume>
void join(benchmark::State& state, std::size_t n, const On& on, const Resume& resume) {
  async_group flights;
  auto lead = std::get<leader>(flights.lead_or_follow(1));
  std::uint64_t sum = 0;
  await_call(flights, on, sum);  // the first that joins a call makes what all of them share
  const tally taken;
  for (std::size_t i = 0; i < n; ++i) await_call(flights, on, sum);
  taken.report(state, n);
  state.counters["frame_bytes"] = static_cast<double>(measured::last_frame);
  state.counters["frame_allocations"] = 1;
  std::move(lead).set_value(1);
  resume();

  bare_event event;
  await_bare(event, sum);
  state.counters["bare_bytes"] = static_cast<double>(measured::last_frame);
  event.waiting.resume();
  check(state, sum == n + 2);
}

void register_waiters() {
  const std::size_t n = bench::once() ? 1'000 : 100'000;
  const std::string prefix = "waiter/waiters:100000/";
  add(prefix + "coroutines_inline",
      [=](benchmark::State& state) { join(state, n, singleflight::resume_inline, [] {}); });
  add(prefix + "coroutines_executor", [=](benchmark::State& state) {
    std::vector<std::function<void()>> queue;
    join(
        state, n, [&](auto task) { queue.emplace_back(std::move(task)); },
        [&] {
          for (const auto& task : queue) task();
        });
  });
}

// --- A call that nobody joins ------------------------------------------------------------------------

constexpr std::size_t warm_up = 100;  // by then the shard has the buffers that it keeps
constexpr std::size_t calls = 1'000;

/// Awaits what `call(flights, loaded)` returns, again and again.
template <class Call>
support::detached await_calls(benchmark::State& state, const Call& call) {
  async_group flights;
  std::uint64_t loaded = 0;
  for (std::size_t i = 0; i < warm_up; ++i) static_cast<void>(co_await call(flights, loaded));
  const tally taken;
  for (std::size_t i = 0; i < calls; ++i) {
    const auto got = co_await call(flights, loaded);
    check(state, *got == loaded);
  }
  taken.report(state, calls);
}

support::lazy_task<std::uint64_t> load_at_once(std::uint64_t& loaded) { co_return ++loaded; }

void call_back(async_group& flights, std::uint64_t& loaded, std::uint64_t& got) {
  flights.async_call(
      1, singleflight::resume_inline, {}, [&](leader lead) { std::move(lead).set_value(++loaded); },
      [&](const singleflight::outcome<std::uint64_t>& out) { got = out.value(); });
}

void register_unjoined() {
  add("unjoined/co_call_value", [](benchmark::State& state) {
    await_calls(state, [](async_group& flights, std::uint64_t& loaded) {
      return flights.co_call(1, singleflight::resume_inline, [&] { return ++loaded; });
    });
  });
  add("unjoined/co_call_coroutine", [](benchmark::State& state) {
    await_calls(state, [](async_group& flights, std::uint64_t& loaded) {
      return flights.co_call(1, singleflight::resume_inline, [&] { return load_at_once(loaded); });
    });
  });
  add("unjoined/async_call", [](benchmark::State& state) {
    async_group flights;
    std::uint64_t loaded = 0;
    std::uint64_t got = 0;
    for (std::size_t i = 0; i < warm_up; ++i) call_back(flights, loaded, got);
    const tally taken;
    for (std::size_t i = 0; i < calls; ++i) call_back(flights, loaded, got);
    taken.report(state, calls);
    check(state, got == warm_up + calls);
  });
}

// --- Leaving -----------------------------------------------------------------------------------------

/// A million waiters join one hung call and leave it, a thousand at a time: how many more bytes are in
/// use afterwards than after the first thousand.
void join_and_leave(benchmark::State& state) {
  async_group flights;
  auto hung = std::get<leader>(flights.lead_or_follow(1));
  std::uint64_t left = 0;
  const auto a_thousand = [&] {
    std::vector<std::stop_source> stops(1'000);
    for (const std::stop_source& stop : stops) {
      bench::follow_until_stopped(flights, stop.get_token(), left);
    }
    for (std::stop_source& stop : stops) stop.request_stop();
  };
  a_thousand();
  const std::int64_t before = support::live_bytes;
  const std::uint64_t rounds = bench::once() ? 1 : 999;
  for (std::uint64_t i = 0; i < rounds; ++i) a_thousand();
  state.counters["bytes"] = static_cast<double>(support::live_bytes - before);
  check(state, left == 1'000 * (1 + rounds));
  std::move(hung).set_value(0);
}

void register_rows() {
  register_waiters();
  register_unjoined();
  add("leave/waiters:1000000/singleflight", join_and_leave);
}

}  // namespace

int main(int argc, char** argv) {
  return bench::run(argc, argv, bench::process::without_threads, register_rows);
}
