// SPDX-License-Identifier: MIT
#ifndef TEMPLATE_SERVICE_SETTINGS_HPP
#define TEMPLATE_SERVICE_SETTINGS_HPP

#include <CLI/CLI.hpp>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <string>

namespace template_service {

struct redis_settings {
  std::string host = "127.0.0.1";
  int port = 6379;
  std::size_t connections = 16;
  std::chrono::milliseconds timeout{50};  // to connect, to answer, and to wait for a connection
  std::chrono::milliseconds probe_interval{250};  // at most, while it is away
  bool fleet = true;                              // one query in all processes
  std::chrono::milliseconds lease{2000};          // of a process that queries
  std::chrono::milliseconds max_wait{5000};       // for another process's query
};

struct mariadb_settings {
  std::string host = "127.0.0.1";
  unsigned port = 3306;
  std::string user = "template_service";
  std::string password;
  std::string database = "templates";
};

struct store_settings {
  std::size_t connections = 8;
  std::chrono::milliseconds patience{1000};  // how long to wait for a connection
  std::chrono::seconds timeout{2};           // to connect, and to answer
  std::string sqlite = "file:/templates?vfs=memdb";
  mariadb_settings mariadb;
};

struct read_settings {
  bool coalesce = true;
  std::chrono::milliseconds lifetime{30'000};
  double jitter = 0.1;                              // of the lifetime, up or down
  std::chrono::milliseconds absent_lifetime{5000};  // of the answer that there is no such template
  std::chrono::milliseconds deadline{2000};         // of a request that waits for another's query
  std::chrono::milliseconds max_age{1000};          // of a query, before another is started
  bool count_joins = false;                         // of each key, for /debug/flights
};

struct http_settings {
  std::string host = "127.0.0.1";
  int port = 8080;
  std::size_t threads = 64;
  std::chrono::milliseconds drain{1000};
};

struct settings {
  http_settings http;
  read_settings read;
  std::string cache = "memory";
  redis_settings redis;
  std::string store = "sqlite";
  store_settings store_access;
  std::uint32_t templates = 1000;
  bool fill = false;
};

namespace detail {

template <class Duration>
void add_duration(CLI::App& app, const std::string& name, Duration& value, const char* help) {
  app.add_option_function<std::int64_t>(
         name, [&value](const std::int64_t& given) { value = Duration(given); }, help)
      ->check(CLI::Range(1, 3'600'000))
      ->default_str(std::to_string(value.count()));
}

inline void add_http_flags(CLI::App& app, http_settings& http) {
  app.add_option("--host", http.host, "where to listen")->capture_default_str();
  app.add_option("--port", http.port, "where to listen; 0: any free port, see the log")
      ->check(CLI::Range(0, 65'535))
      ->capture_default_str();
  app.add_option("--threads", http.threads, "threads that serve connections, one each")
      ->check(CLI::Range(1, 4096))
      ->capture_default_str();
  add_duration(app, "--drain-ms", http.drain, "at SIGTERM: how long to go on while clients leave");
}

inline void add_read_flags(CLI::App& app, read_settings& read) {
  app.add_option_function<std::string>(
         "--coalesce", [&read](const std::string& given) { read.coalesce = given == "on"; },
         "whether identical requests share one query")
      ->check(CLI::IsMember({"on", "off"}))
      ->default_str("on");
  add_duration(app, "--lifetime-ms", read.lifetime, "of an entry in the cache");
  add_duration(app, "--absent-lifetime-ms", read.absent_lifetime,
               "of the entry that there is no such template");
  app.add_option("--jitter", read.jitter, "by what part lifetimes differ, up or down")
      ->check(CLI::Range(0.0, 0.9))
      ->capture_default_str();
  add_duration(app, "--deadline-ms", read.deadline, "for a request that waits for another's query");
  add_duration(app, "--max-age-ms", read.max_age, "of a query, before requests start another");
}

inline void add_cache_flags(CLI::App& app, settings& all) {
  app.add_option("--cache", all.cache, "the cache")
      ->check(CLI::IsMember({"memory", "redis"}))
      ->capture_default_str();
  app.add_option("--redis-host", all.redis.host)->capture_default_str();
  app.add_option("--redis-port", all.redis.port)
      ->check(CLI::Range(1, 65'535))
      ->capture_default_str();
  app.add_option("--redis-connections", all.redis.connections, "at most")
      ->check(CLI::Range(1, 1000))
      ->capture_default_str();
  add_duration(app, "--redis-timeout-ms", all.redis.timeout, "to connect, and to answer");
  app.add_option_function<std::string>(
         "--fleet", [&all](const std::string& given) { all.redis.fleet = given == "on"; },
         "with --cache=redis: whether all processes share one query")
      ->check(CLI::IsMember({"on", "off"}))
      ->default_str("on");
  add_duration(app, "--lease-ms", all.redis.lease, "how long the process that queries owns a key");
  add_duration(app, "--max-wait-ms", all.redis.max_wait, "to wait for another process's query");
}

inline void add_store_flags(CLI::App& app, settings& all) {
  store_settings& store = all.store_access;
  app.add_option("--store", all.store, "the database")
      ->check(CLI::IsMember({"sqlite", "mariadb"}))
      ->capture_default_str();
  app.add_option("--store-connections", store.connections, "at most")
      ->check(CLI::Range(1, 1000))
      ->capture_default_str();
  add_duration(app, "--store-patience-ms", store.patience, "to wait for a connection");
  add_duration(app, "--store-timeout-s", store.timeout, "to connect, and to answer");
  app.add_option("--sqlite", store.sqlite, "file or URI; filled if it is new")
      ->capture_default_str();
  app.add_option("--mariadb-host", store.mariadb.host)->capture_default_str();
  app.add_option("--mariadb-port", store.mariadb.port)
      ->check(CLI::Range(1, 65'535))
      ->capture_default_str();
  app.add_option("--mariadb-user", store.mariadb.user)->capture_default_str();
  app.add_option("--mariadb-password", store.mariadb.password)
      ->envname("TEMPLATE_SERVICE_MARIADB_PASSWORD");
  app.add_option("--mariadb-database", store.mariadb.database)->capture_default_str();
  app.add_option("--templates", all.templates, "how many to fill a store with")
      ->check(CLI::Range(1, 1'000'000))
      ->capture_default_str();
  app.add_flag("--fill", all.fill, "fill the store, replacing what is there, and exit");
}

}  // namespace detail

inline void add_flags(CLI::App& app, settings& all) {
  detail::add_http_flags(app, all.http);
  app.add_flag("--debug-flights", all.read.count_joins,
               "serve /debug/flights, which shows the keys that requests wait for");
  detail::add_read_flags(app, all.read);
  detail::add_cache_flags(app, all);
  detail::add_store_flags(app, all);
}

}  // namespace template_service

#endif  // TEMPLATE_SERVICE_SETTINGS_HPP
