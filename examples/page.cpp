// SPDX-License-Identifier: MIT
// A page that shows 100 templates: 100 queries by do_call, or one by do_many, on a real SQLite database.

#include <sqlite3.h>

#include <chrono>
#include <cstdint>
#include <iostream>
#include <singleflight/group.hpp>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

#include "common/sqlite.hpp"
#include "common/temp_file.hpp"

namespace {

constexpr std::int64_t templates = 10'000;
constexpr std::int64_t on_a_page = 100;

class store {
 public:
  explicit store(const std::string& path)
      : database_(path, SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE) {
    database_.execute("CREATE TABLE template (id INTEGER PRIMARY KEY, body TEXT NOT NULL)");
    database_.execute("BEGIN");
    {
      examples::sqlite::statement insert(database_, "INSERT INTO template VALUES (?1, ?2)");
      for (std::int64_t id = 1; id <= templates; ++id) {
        insert.execute(id, std::string("<h1>") + std::to_string(id) + "</h1>");
      }
    }
    database_.execute("COMMIT");
  }

  std::string load(std::int64_t id) {
    ask();
    examples::sqlite::statement one(database_, "SELECT body FROM template WHERE id = ?1");
    one.bind(id);
    return one.step() ? one.text(0) : "";
  }

  /// Settles the keys of the batch that exist.
  template <class Batch>
  void load(Batch& missing) {
    ask();
    std::string ids;
    for (const std::int64_t id : missing) ids += (ids.empty() ? "" : ",") + std::to_string(id);
    examples::sqlite::statement many(database_,
                                     "SELECT id, body FROM template WHERE id IN (" + ids + ')');
    while (many.step()) missing.set(many.integer(0), many.text(1));
  }

  [[nodiscard]] int queries() const noexcept { return queries_; }

 private:
  /// What a query costs on its way to a database that is not in this process.
  void ask() {
    ++queries_;
    std::this_thread::sleep_for(std::chrono::microseconds(200));
  }

  examples::sqlite::connection database_;
  int queries_ = 0;
};

template <class Load>
void show(const char* how, store& from, const Load& load) {
  const int before = from.queries();
  const auto start = std::chrono::steady_clock::now();
  const std::size_t bytes = load();
  const std::chrono::duration<double, std::milli> took = std::chrono::steady_clock::now() - start;
  std::cout << how << ": " << from.queries() - before << " queries, " << took.count() << " ms, "
            << bytes << " bytes\n";
}

}  // namespace

int main() {
  const examples::temp_file file;
  store templates_of(file.path());
  singleflight::group<std::int64_t, std::string> flights;
  std::vector<std::int64_t> page;
  for (std::int64_t i = 0; i < on_a_page; ++i) page.push_back(1 + 97 * i % templates);

  show("100 do_calls", templates_of, [&] {
    std::size_t bytes = 0;
    for (const std::int64_t id : page) {
      bytes += flights.do_call(id, [&](auto key) { return templates_of.load(key); }).value().size();
    }
    return bytes;
  });
  show("1 do_many   ", templates_of, [&] {
    std::size_t bytes = 0;
    for (const auto& row : flights.do_many(page, [&](auto& missing) {
           templates_of.load(missing);
           missing.rest("");  // there are no others
         })) {
      bytes += row.value().size();
    }
    return bytes;
  });
}
