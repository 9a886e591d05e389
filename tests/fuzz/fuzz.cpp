// SPDX-License-Identifier: MIT
// libFuzzer on the explorer of tests/schedules: an input says what a few threads do, and which
// thread goes on at each scheduling point. The same oracles judge each execution.
//
// Byte 0 picks the group, byte 1 the number of threads and of their operations. Each operation is
// two bytes: its kind, then its key and options. The rest of the input is the schedule.

#include <array>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <functional>
#include <span>
#include <string_view>
#include <thread>
#include <vector>

#include "../replaced_new.hpp"
#include "search.hpp"
#include "world.hpp"

namespace {

using namespace schedules;
using namespace std::chrono_literals;
using singleflight::call_options;
using singleflight::group_options;

/// The bytes of an input, one after the other; zeros past its end.
class bytes {
 public:
  explicit bytes(std::span<const std::uint8_t> all) : rest_(all) {}
  [[nodiscard]] bool empty() const noexcept { return rest_.empty(); }
  unsigned next() {
    if (rest_.empty()) return 0;
    const unsigned byte = rest_.front();
    rest_ = rest_.subspan(1);
    return byte;
  }

 private:
  std::span<const std::uint8_t> rest_;
};

/// Takes a byte at each point where several threads could go on. Past the end no thread is
/// preempted.
class by_bytes : public strategy {
 public:
  explicit by_bytes(bytes& from) : from_(from) {}
  int choose(const moment& now) override {
    std::vector<int>& can = candidates_;
    can.clear();
    for (int t = 0; t < static_cast<int>(max_threads); ++t) {
      if ((now.enabled & only(t)) != 0) can.push_back(t);
    }
    if (can.size() == 1 || from_.empty()) return without_preemption(now);
    return can[from_.next() % can.size()];
  }

 private:
  bytes& from_;
  inline static std::vector<int> candidates_ = std::vector<int>(max_threads);
};

[[nodiscard]] plan plan_of(unsigned byte) {
  plan p;
  p.options.shards = 1 + byte % 2;
  p.hash.collide = (byte & 2U) != 0;
  if ((byte & 4U) != 0) p.options.max_age = 10ms;
  if ((byte & 8U) != 0) p.options.max_waiters = 1;
  if ((byte & 16U) != 0) p.options.when_full = group_options::run_alone;
  return p;
}

struct operation {
  unsigned what;
  unsigned how;
};

/// An operation's options: its stop token, its deadline, the kind of its loader.
[[nodiscard]] how manner_of(unsigned byte, const std::array<std::stop_source*, 2>& sources) {
  how h;
  h.loader_takes_token = (byte & 4U) != 0;
  h.loader_throws = (byte & 8U) != 0;
  if ((byte & 0xF0U) == 0) return h;
  h.options.emplace();
  if ((byte & 16U) != 0) h.options->stop = sources[0]->get_token();
  if ((byte & 32U) != 0) h.options->stop = sources[1]->get_token();
  if ((byte & 64U) != 0) h.options->deadline = world::after(10ms);
  if ((byte & 128U) != 0) h.options->attempts = 2;
  return h;
}

/// The stop callback of a loader. It asks for a key whose loaders wait for nothing: one that waited for
/// what waits for the callback would never end.
[[nodiscard]] std::function<void()> callback_of(world& w, unsigned kind) {
  constexpr key of_callbacks = 3;
  switch (kind) {
    case 1:
      return [&w] { w.call(of_callbacks); };
    case 2:
      return [&w] { w.run_a_task(); };
    default:
      return nullptr;
  }
}

void perform(world& w, operation o, const std::array<std::stop_source*, 2>& sources) {
  const auto k = static_cast<key>(o.how & 3U) % 3;
  how h = manner_of(o.how, sources);
  h.when_stopped = callback_of(w, o.what / 27 % 3);
  switch (o.what % 9) {
    case 0:
    case 1:
      return w.call(k, h);
    case 2:  // a nested one, which may close a circle
      h.inside = [&w, k, other = static_cast<key>(o.what / 9) % 3, same = h.options] {
        w.call((k + other) % 3, {.options = same});
      };
      return w.call(k, h);
    case 3:
      return w.call_on_executor(k, h);
    case 4:
      return w.async(k, h);
    case 5:
      return w.forget(k);
    case 6:
      return w.forget_unshared(k);
    case 7:
      return w.stop(*sources[o.how % 2]);
    default:
      return w.advance(10ms);
  }
}

void set_up(world& w, bytes& input) {
  const std::array sources{&w.stop_source(), &w.stop_source()};
  const unsigned size = input.next();
  const unsigned threads = 2 + size % 3;
  const unsigned operations = 1 + size / 3 % 3;
  for (unsigned t = 0; t < threads; ++t) {
    std::vector<operation> all;
    for (unsigned i = 0; i < operations; ++i) {
      const unsigned what = input.next();
      all.push_back({.what = what, .how = input.next()});
    }
    w.caller([&w, sources, all] {
      for (const operation& o : all) perform(w, o, sources);
    });
  }
  if (size / 9 % 2 == 0) {
    w.worker();
  } else {
    w.dropping_worker();
  }
}

[[noreturn]] void report(std::string_view what, const schedule& choices) {
  std::fprintf(stderr, "FAILED: %.*s\nschedule: %s\n", static_cast<int>(what.size()), what.data(),
               choices.c_str());
  std::abort();  // which makes libFuzzer keep the input
}

}  // namespace

extern "C" int LLVMFuzzerInitialize(int* /*argc*/, char*** /*argv*/) {
  std::thread([] {}).join();  // libstdc++ leaves out what a process with one thread does not need
  return 0;
}

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  static auto* const threads = new scheduler(report);
  threads->trace(std::getenv("SCHEDULE_TRACE") != nullptr);
  const std::int64_t memory_before = support::live_bytes;
  {
    bytes input({data, size});
    world w(*threads, plan_of(input.next()));
    set_up(w, input);
    by_bytes decides(input);
    w.run(decides);
    w.judge();
  }
  if (support::live_bytes != memory_before) report("there is memory left", threads->choices());
  return 0;
}
