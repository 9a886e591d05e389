// SPDX-License-Identifier: MIT
// Keys that lose nothing, and values that convert, must compile.
#include <any>
#include <cstdint>
#include <memory>
#include <optional>
#include <singleflight/group.hpp>
#include <string>
#include <vector>

enum color : std::uint8_t { red };

void load(singleflight::group<std::uint64_t, double>& ids,
          singleflight::group<int, std::any>& any) {
  (void)ids.do_call(7, [] { return 1; });
  (void)ids.do_call(7U, [](auto id) { return static_cast<double>(id); });
  (void)ids.do_call('7', [] { return 1.0F; });
  (void)ids.do_call(red, [] { return 1.0F; });
  (void)ids.forget(7LL);
  const auto load_any = [&] { return any.do_call(1, [] { return std::any(1); }); };
  std::any value;
  value = load_any();
  std::vector<std::any> values;
  values.push_back(load_any());
  std::optional<std::any> maybe = load_any();
}
