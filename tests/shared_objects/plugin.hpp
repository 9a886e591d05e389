// SPDX-License-Identifier: MIT
// What a plugin of the tests exports. The host, which loads it by dlopen, does not know the library.
#ifndef SINGLEFLIGHT_TESTS_SHARED_OBJECTS_PLUGIN_HPP
#define SINGLEFLIGHT_TESTS_SHARED_OBJECTS_PLUGIN_HPP

#include <cstddef>

/// A loader, or what stands for one: a function and its argument.
struct plugin_loader {
  int (*function)(void*);
  void* argument;
};

enum plugin_answer : int { plugin_refused = -1, plugin_failed = -2 };

enum plugin_catch : int { caught_nothing, caught_call_error, caught_system_error, caught_another };

struct plugin_functions {
  /// Returns: the plugin's own group.
  void* (*own_group)();
  /// Returns: a group that is never destroyed.
  void* (*new_group)();
  /// Asks a group, which may be another plugin's. Returns: the value of its call, or why there is none.
  int (*ask)(void* group, int key, plugin_loader loader);
  std::size_t (*waiting)(const void* group);
  std::size_t (*in_flight)(const void* group);
  /// Throws a `call_error`.
  void (*fail)();
  /// Calls `thrower`. Returns: as what this plugin catches its exception.
  plugin_catch (*catch_from)(void (*thrower)());
};

/// The name of the function that returns them.
using plugin_entry = const plugin_functions*();
inline constexpr const char* plugin_entry_name = "singleflight_test_plugin";

#endif  // SINGLEFLIGHT_TESTS_SHARED_OBJECTS_PLUGIN_HPP
