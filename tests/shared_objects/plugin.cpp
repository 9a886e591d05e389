// SPDX-License-Identifier: MIT
// A plugin with a group of its own. It is built twice, with hidden visibility.
#include "plugin.hpp"

#include <singleflight/group.hpp>
#include <system_error>

namespace {

using group = singleflight::group<int, int>;

group own;

int ask(void* g, int key, plugin_loader loader) {
  try {
    return *static_cast<group*>(g)->do_call(key, [&] { return loader.function(loader.argument); });
  } catch (const std::system_error& e) {
    return e.code() == std::errc::resource_deadlock_would_occur ? plugin_refused : plugin_failed;
  }
}

void fail() {
  (void)own.do_call(0, [] { return *own.do_call(0, [] { return 0; }); });
}

plugin_catch catch_from(void (*thrower)()) {
  try {
    thrower();
  } catch (const singleflight::call_error&) {
    return caught_call_error;
  } catch (const std::system_error&) {
    return caught_system_error;
  } catch (...) {
    return caught_another;
  }
  return caught_nothing;
}

constexpr plugin_functions functions{
    .own_group = []() -> void* { return &own; },
    .new_group = []() -> void* { return new group; },
    .ask = ask,
    .waiting = [](const void* g) { return static_cast<const group*>(g)->stats().waiting; },
    .in_flight = [](const void* g) { return static_cast<const group*>(g)->stats().in_flight; },
    .fail = fail,
    .catch_from = catch_from,
};

}  // namespace

extern "C" __attribute__((visibility("default"))) const plugin_functions*
singleflight_test_plugin() {
  return &functions;
}
