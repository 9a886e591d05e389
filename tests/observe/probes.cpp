// SPDX-License-Identifier: MIT
// A program with probes, for usdt_test.py, which knows what happens here.
#include <chrono>
#include <cstddef>
#include <exception>
#include <functional>
#include <singleflight/group.hpp>
#include <singleflight/usdt.hpp>
#include <string>
#include <thread>

using namespace std::chrono_literals;

namespace {

struct opaque {
  bool operator==(const opaque&) const = default;
};
struct hash_of_opaque {
  std::size_t operator()(const opaque&) const noexcept { return 0; }
};

template <class Key, class Hash = std::hash<Key>>
using watched =
    singleflight::group<Key, int, Hash, std::equal_to<Key>, singleflight::usdt_observer>;

}  // namespace

int main() {
  const std::string key = "template-7";
  watched<std::string> g;
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
    follow({.timeout = 100ms});  // joined, left
    follow({.timeout = -1ms});   // rejected
    follower = std::thread([&] { (void)g.do_call(key, [] { return 0; }); });
    while (g.stats().waiting < 1) std::this_thread::yield();
    return 42;
  });
  follower.join();
  watched<std::string> aging({.max_age = 1ns});
  (void)aging.do_call(key, [&] {
    std::thread([&] { (void)aging.do_call(key, [] { return 0; }); }).join();  // superseded
    return 42;
  });
  watched<int> full({.max_waiters = 0, .when_full = singleflight::group_options::run_alone});
  (void)full.do_call(7, [&] {
    std::thread([&] { (void)full.do_call(7, [] { return 0; }); }).join();  // alone
    return 42;
  });
  (void)watched<opaque, hash_of_opaque>().do_call(opaque(), [] { return 42; });
}
