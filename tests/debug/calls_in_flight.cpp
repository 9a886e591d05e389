// SPDX-License-Identifier: MIT
// The program for the test of the pretty-printer: groups with known calls in flight.
#include <chrono>
#include <iostream>
#include <latch>
#include <singleflight/group.hpp>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

namespace {

using numbers = singleflight::group<int, int>;
using texts = singleflight::group<std::string, void>;

// gdb stops here.
[[gnu::noinline]] void all_callers_wait(numbers& by_number, texts& by_text,
                                        singleflight::result<int>& led) {
  std::cout << by_number.stats().waiting + by_text.stats().waiting << " wait, " << *led << '\n';
}

}  // namespace

int main() {
  numbers by_number({.shards = 4});
  texts by_text({.shards = 1});
  std::latch begun(2);
  std::latch over(1);
  std::vector<std::thread> threads;
  const auto load = [&] {
    begun.count_down();
    over.wait();
    return 7;
  };
  singleflight::result<int> led = by_number.do_call(1, [] { return 41; });
  try {
    (void)by_number.do_call(2, []() -> int { throw std::runtime_error("no such number"); });
  } catch (const std::runtime_error&) {  // counted as failed
  }
  threads.emplace_back([&] { (void)by_number.do_call(1234, load); });
  threads.emplace_back([&] { by_text.do_call("welcome", [&] { (void)load(); }); });
  begun.wait();
  threads.emplace_back([&] { (void)by_number.do_call(1234, load); });
  threads.emplace_back([&] { (void)by_number.do_call(1234, load); });
  threads.emplace_back([&] {
    const auto deadline = std::chrono::steady_clock::now() + std::chrono::hours(1);
    by_text.do_call("welcome", {.deadline = deadline}, [] {});
  });
  while (by_number.stats().waiting < 2 || by_text.stats().waiting < 1) std::this_thread::yield();
  all_callers_wait(by_number, by_text, led);
  over.count_down();
  for (std::thread& thread : threads) thread.join();
}
