// SPDX-License-Identifier: MIT
// expect: the Codec of a fleet needs, as const members, encode
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

singleflight::fleet<int, store>* has_no_codec(store& leases) {
  return new singleflight::fleet<int, store>(leases);
}
