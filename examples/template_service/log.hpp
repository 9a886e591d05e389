// SPDX-License-Identifier: MIT
#ifndef TEMPLATE_SERVICE_LOG_HPP
#define TEMPLATE_SERVICE_LOG_HPP

#include <array>
#include <chrono>
#include <cstdio>
#include <ctime>
#include <nlohmann/json.hpp>
#include <string>

namespace template_service {

using log_fields = nlohmann::ordered_json;

/// The time in UTC, as ISO 8601 with milliseconds.
inline std::string timestamp() {
  using namespace std::chrono;
  const system_clock::time_point now = system_clock::now();
  const std::time_t seconds = system_clock::to_time_t(now);
  const auto ms =
      static_cast<int>(duration_cast<milliseconds>(now.time_since_epoch()).count() % 1000);
  std::tm utc{};
  gmtime_r(&seconds, &utc);
  std::array<char, 32> text{};
  const std::size_t size = std::strftime(text.data(), text.size(), "%FT%T", &utc);
  std::snprintf(text.data() + size, text.size() - size, ".%03dZ", ms);
  return text.data();
}

/// Writes one line of JSON to the standard error: the time, the level, the event, then the fields.
inline void log(const char* level, const std::string& event, const log_fields& fields) {
  log_fields line{{"time", timestamp()}, {"level", level}, {"event", event}};
  line.update(fields);
  // An error text of a server may not be UTF-8. One write, so that lines are not mixed up.
  const std::string text = line.dump(-1, ' ', false, log_fields::error_handler_t::replace) + '\n';
  std::fwrite(text.data(), 1, text.size(), stderr);
}

inline void log_info(const std::string& event, const log_fields& fields = log_fields::object()) {
  log("info", event, fields);
}

inline void log_warning(const std::string& event, const log_fields& fields = log_fields::object()) {
  log("warning", event, fields);
}

inline void log_error(const std::string& event, const log_fields& fields = log_fields::object()) {
  log("error", event, fields);
}

}  // namespace template_service

#endif  // TEMPLATE_SERVICE_LOG_HPP
