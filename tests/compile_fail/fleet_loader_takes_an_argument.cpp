// SPDX-License-Identifier: MIT
// expect: the loader of a fleet takes no argument and returns a Value
#include <singleflight/fleet.hpp>

struct store {
  singleflight::lease_entry enter(std::string_view, std::string_view, std::chrono::milliseconds);
  singleflight::lease_answer fill(std::string_view, std::string_view, std::string_view,
                                  std::chrono::milliseconds, std::chrono::milliseconds);
  singleflight::lease_answer release(std::string_view, std::string_view, std::chrono::milliseconds);
  singleflight::lease_end wait(std::string_view, std::string_view, std::chrono::milliseconds,
                               std::size_t);
  singleflight::lease_answer invalidate(std::string_view);
};

void load(singleflight::fleet<std::string, store>& fleet) {
  (void)fleet.load("key", std::chrono::seconds(1), [](std::string key) { return key; });
}
