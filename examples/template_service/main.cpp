// SPDX-License-Identifier: MIT

// A service as shops run it: templates are in a database, a cache is in front of it, and when that
// fails, identical requests share one query. Start reading at template_reader.hpp, the dozen lines
// that matter.

#include <mysql.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <array>
#include <csignal>
#include <exception>
#include <memory>
#include <optional>
#include <string>

#include "cache.hpp"
#include "flights_page.hpp"
#include "http_server.hpp"
#include "log.hpp"
#include "mariadb_store.hpp"
#include "memory_cache.hpp"
#include "metrics.hpp"
#include "redis_cache.hpp"
#include "settings.hpp"
#include "sqlite_store.hpp"
#include "store.hpp"
#include "template_reader.hpp"

namespace template_service {
namespace {

std::unique_ptr<cache> make_cache(const settings& chosen) {
  if (chosen.cache == "redis") return std::make_unique<redis_cache>(chosen.redis);
  return std::make_unique<memory_cache>();
}

std::unique_ptr<store> make_store(const settings& chosen) {
  if (chosen.store == "mariadb") return std::make_unique<mariadb_store>(chosen.store_access);
  return std::make_unique<sqlite_store>(chosen.store_access, chosen.templates);
}

/// Blocks SIGTERM and SIGINT in every thread, so that the main thread can wait for them.
class stop_signals {
 public:
  stop_signals() {
    sigemptyset(&set_);
    sigaddset(&set_, SIGTERM);
    sigaddset(&set_, SIGINT);
    pthread_sigmask(SIG_BLOCK, &set_, nullptr);
  }

  void wait() const {
    int received = 0;
    sigwait(&set_, &received);
  }

 private:
  sigset_t set_{};
};

void serve(const settings& chosen, const stop_signals& stop, store& back) {
  const std::unique_ptr<cache> front = make_cache(chosen);
  template_reader reader(chosen.read, *front, back);
  metrics figures(reader, *front, back);
  std::optional<flights_page> debug;
  if (chosen.read.count_joins) debug.emplace(reader, *front);
  http_server server(chosen.http, reader, figures, debug ? &*debug : nullptr);
  const int port = server.start();
  log_info("listening", {{"port", port},
                         {"process", getpid()},
                         {"cache", chosen.cache},
                         {"fleet", chosen.cache == "redis" && chosen.redis.fleet},
                         {"store", chosen.store},
                         {"coalesce", chosen.read.coalesce}});
  stop.wait();
  log_info("draining");
  server.drain();
  log_info("stopped");
}

void run(const settings& chosen) {
  const stop_signals stop;
  std::signal(SIGPIPE, SIG_IGN);  // a broken connection is reported by write()
  const std::unique_ptr<store> back = make_store(chosen);
  if (!chosen.fill) return serve(chosen, stop, *back);
  back->fill(chosen.templates);
  log_info("filled", {{"templates", chosen.templates}});
}

}  // namespace
}  // namespace template_service

// NOLINTNEXTLINE(bugprone-exception-escape): what escapes ends the program, as it must
int main(int argc, char** argv) {
  template_service::settings chosen;
  CLI::App app(
      "Serves templates: GET /template-details?id=1&locale=de, ?id=1,2,3, /healthz, /metrics.");
  template_service::add_flags(app, chosen);
  CLI11_PARSE(app, argc, argv);
  if (mysql_library_init(0, nullptr, nullptr) != 0) return 1;
  try {
    template_service::run(chosen);
    mysql_library_end();
    return 0;
  } catch (const std::exception& error) {
    template_service::log_error("failed", {{"reason", error.what()}});
    return 1;
  }
}
