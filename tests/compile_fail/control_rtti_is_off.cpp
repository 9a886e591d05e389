// SPDX-License-Identifier: MIT
// Run-time type information is not needed.
// flags: -fno-rtti
#include <singleflight/group.hpp>
#include <string>

int main() {
  singleflight::group<std::string, int> flights;
  const auto inline_executor = [](auto task) { task(); };
  const int led = flights.do_call("one", [] { return 1; });
  const int on_executor = flights.do_call_on("two", inline_executor, {}, [] { return 2; });
  return flights.do_async("three", inline_executor, [] { return 3; }).get() - led - on_executor;
}
