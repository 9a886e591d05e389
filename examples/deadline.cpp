// SPDX-License-Identifier: MIT

// A database call that hangs, and five callers: two leave at their deadline, two get their answer
// from a second call when the first has grown too old, and when the last one gives up, the query
// that hangs is told to stop. The database is SQLite; one replica hangs because another connection
// holds a lock on its file.

#include <version>

#if !defined(__cpp_lib_jthread)
#include <cstdio>
int main() { std::puts("deadline: this library has no <stop_token>, which the story needs"); }
#else

#include <sqlite3.h>

#include <array>
#include <atomic>
#include <chrono>
#include <cstdio>
#include <exception>
#include <mutex>
#include <singleflight/group.hpp>
#include <stdexcept>
#include <stop_token>
#include <string>
#include <thread>
#include <vector>

#include "common/sqlite.hpp"
#include "common/temp_file.hpp"

namespace {

using namespace std::chrono_literals;
using clock = std::chrono::steady_clock;
namespace sqlite = examples::sqlite;

/// Prints what happens, and when.
class time_line {
 public:
  void operator()(const std::string& what) {
    const auto now = std::chrono::round<std::chrono::milliseconds>(clock::now() - start_);
    const std::lock_guard lock(mutex_);
    std::printf("%4d ms  %s\n", static_cast<int>(now.count()), what.c_str());
  }

  void wait_until(clock::duration time) { std::this_thread::sleep_until(start_ + time); }

 private:
  const clock::time_point start_ = clock::now();
  std::mutex mutex_;
};

/// SQLite's busy handler: called again and again while another connection has locked the file.
/// Returns: whether to go on waiting.
int wait_unless_told_to_stop(void* stop, int /*calls so far*/) {
  std::this_thread::sleep_for(1ms);
  return static_cast<std::stop_token*>(stop)->stop_requested() ? 0 : 1;
}

std::string load(const std::string& replica, std::stop_token stop) {
  const sqlite::connection database(replica, SQLITE_OPEN_READWRITE);
  sqlite3_busy_handler(database.handle(), wait_unless_told_to_stop, &stop);
  sqlite::statement query(database, "SELECT body FROM templates WHERE name = 'welcome'");
  if (!query.step()) throw std::runtime_error("there is no such template");
  return query.text(0);
}

/// Runs each task on a thread of its own.
class new_threads {
 public:
  ~new_threads() {
    for (std::thread& t : threads_) t.join();
  }
  template <class Task>
  void operator()(Task task) {
    const std::lock_guard lock(mutex_);
    threads_.emplace_back(std::move(task));
  }

 private:
  std::mutex mutex_;
  std::vector<std::thread> threads_;
};

void tell_the_story(const std::array<std::string, 2>& replicas) {
  time_line at;
  std::atomic<int> queries = 0;
  new_threads executor;
  singleflight::group<std::string, std::string> flights({.max_age = 150ms});

  const auto query = [&](const std::stop_token& stop) {
    const int number = ++queries;  // the first goes to the replica that hangs, the second does not
    at("    query " + std::to_string(number) + " begins");
    try {
      std::string body = load(number == 1 ? replicas[0] : replicas[1], stop);
      at("    query " + std::to_string(number) + " is answered");
      return body;
    } catch (const std::exception& error) {
      at("    query " + std::to_string(number) + " gives up: " + error.what());
      throw;
    }
  };
  const auto ask = [&](const char* who, const singleflight::call_options& options) {
    try {
      auto answer = flights.do_call_on("welcome", executor, options, query);
      at(std::string(who) + " gets \"" + *answer + "\"" +
         (answer.led() ? ", from a call of their own" : ", from the other's call"));
    } catch (const singleflight::call_error& error) {
      at(std::string(who) + " leaves: " + error.code().message());
    } catch (const std::exception& error) {
      at(std::string(who) + " is told: " + error.what());
    }
  };

  std::stop_source ann_gives_up;
  std::vector<std::thread> callers;
  const auto arrive = [&](const char* who, const singleflight::call_options& options) {
    callers.emplace_back([&ask, who, options] { ask(who, options); });
  };

  at("Ann asks, and can be told to stop");
  arrive("Ann", {.stop = ann_gives_up.get_token()});
  at.wait_until(10ms);
  at("Bob and Cid ask, and have 50 ms");
  arrive("Bob", {.deadline = clock::now() + 50ms});
  arrive("Cid", {.deadline = clock::now() + 50ms});
  at.wait_until(80ms);
  at("Dora and Emil ask, and have time; calls older than 150 ms are not waited for");
  arrive("Dora", {});
  arrive("Emil", {});
  at.wait_until(250ms);
  at("Ann is told to stop: nobody is left who wants query 1");
  ann_gives_up.request_stop();
  for (std::thread& t : callers) t.join();
  while (flights.stats().in_flight > 0) std::this_thread::yield();  // for query 1 to give up

  const singleflight::group_stats stats = flights.stats();
  std::printf(
      "\n%d queries for 5 callers: %d led, %d joined, %d timed out, %d cancelled, %d superseded\n",
      queries.load(), static_cast<int>(stats.led), static_cast<int>(stats.joined),
      static_cast<int>(stats.timed_out), static_cast<int>(stats.cancelled),
      static_cast<int>(stats.superseded));
}

}  // namespace

int main() {
  try {
    const std::array<examples::temp_file, 2> files;
    for (const examples::temp_file& file : files) {
      sqlite::connection(file.path(), SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE)
          .execute(
              "CREATE TABLE templates (name TEXT PRIMARY KEY, body TEXT);"
              "INSERT INTO templates VALUES ('welcome', 'Hello, {{name}}!')");
    }
    sqlite::connection other_connection(files[0].path(), SQLITE_OPEN_READWRITE);
    other_connection.execute("BEGIN EXCLUSIVE");
    tell_the_story({files[0].path(), files[1].path()});
  } catch (const std::exception& error) {
    std::fprintf(stderr, "deadline: %s\n", error.what());
    return 1;
  }
}

#endif
