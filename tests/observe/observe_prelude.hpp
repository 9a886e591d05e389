// SPDX-License-Identifier: MIT
// What the code of docs/observe.md uses.
#ifndef SINGLEFLIGHT_TESTS_OBSERVE_PRELUDE_HPP
#define SINGLEFLIGHT_TESTS_OBSERVE_PRELUDE_HPP

#include <chrono>
#include <functional>
#include <mutex>
#include <singleflight/group.hpp>
#include <singleflight/prometheus.hpp>
#include <string>
#include <utility>
#include <variant>
#include <vector>

#include "opentelemetry_stand_in.hpp"

#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC diagnostic ignored \
    "-Wsubobject-linkage"  // the code of the page is in a header only here
#endif

namespace observe_guide {

using namespace std::chrono_literals;

struct template_details {
  std::string body;
};

using field = std::pair<std::string, std::variant<std::string, long, std::size_t>>;

/// A structured log that the tests read.
inline std::vector<std::string> logged;
inline std::mutex log_mutex;
inline void log(const std::string& event, const std::vector<field>& fields) {
  std::string line = event;
  for (const auto& [name, value] : fields) {
    line += ' ' + name;
    if (const auto* text = std::get_if<std::string>(&value)) line += '=' + *text;
  }
  const std::lock_guard lock(log_mutex);
  logged.push_back(line);
}

template <class Observer>
using observed_group = singleflight::group<std::string, template_details, std::hash<std::string>,
                                           std::equal_to<std::string>, Observer>;

}  // namespace observe_guide

#endif  // SINGLEFLIGHT_TESTS_OBSERVE_PRELUDE_HPP
