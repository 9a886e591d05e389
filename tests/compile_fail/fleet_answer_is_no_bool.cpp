// SPDX-License-Identifier: MIT
// expect: lease_answer
// "Somebody else holds the lease" and "no answer" are different things.
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

bool is_mine(store& leases) {
  if (leases.release("key", "token", std::chrono::milliseconds(1))) return true;
  return false;
}
