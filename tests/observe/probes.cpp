// SPDX-License-Identifier: MIT
// A program with probes, for usdt_test.py: each of them is passed once, by the key "template 7".
#include <chrono>
#include <exception>
#include <functional>
#include <singleflight/group.hpp>
#include <singleflight/usdt.hpp>
#include <string>
#include <thread>

using namespace std::chrono_literals;

int main() {
  using watched = singleflight::group<std::string, int, std::hash<std::string>,
                                      std::equal_to<std::string>, singleflight::usdt_observer>;
  const std::string key = "template 7";
  watched g;
  const auto follow = [&](const singleflight::call_options& options) {
    std::thread([&] {
      try {
        (void)g.do_call(key, options, [] { return 0; });
      } catch (const std::exception&) {
      }
    }).join();
  };
  std::thread follower;
  (void)g.do_call(key, [&] {
    follow({.timeout = 1ms});   // joined, left
    follow({.timeout = -1ms});  // rejected
    follower = std::thread([&] { (void)g.do_call(key, [] { return 0; }); });
    while (g.stats().waiting < 1) std::this_thread::yield();
    return 42;
  });
  follower.join();
  watched aging({.max_age = 1ns});
  (void)aging.do_call(key, [&] {
    std::thread([&] { (void)aging.do_call(key, [] { return 0; }); }).join();  // superseded
    return 42;
  });
}
