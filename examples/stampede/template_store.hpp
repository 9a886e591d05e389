// SPDX-License-Identifier: MIT
#ifndef STAMPEDE_TEMPLATE_STORE_HPP
#define STAMPEDE_TEMPLATE_STORE_HPP

#include <cstddef>
#include <cstdint>
#include <random>
#include <stdexcept>
#include <string>

#include "../common/connection_pool.hpp"
#include "../common/sqlite.hpp"

namespace stampede {

namespace sqlite = examples::sqlite;

using template_id = std::uint32_t;  // 1, 2, ...: lower ids are requested more often

struct template_details {
  template_id id = 0;
  std::int64_t fragments = 0;
  std::string text;
};

// A template is a sequence of sections, a section a sequence of fragments, and a fragment has a
// text in English and perhaps one in German.
inline constexpr int sections_per_template = 20;
inline constexpr int sections = 400;
inline constexpr int fragments_per_section = 60;
inline constexpr int fragments = 5000;
inline constexpr int fragments_per_template = sections_per_template * fragments_per_section;

inline void create_tables(sqlite::connection& database) {
  database.execute(R"(
    PRAGMA journal_mode = OFF;
    PRAGMA synchronous = OFF;
    CREATE TABLE template_section (
      template_id INTEGER, position INTEGER, section_id INTEGER,
      PRIMARY KEY (template_id, position)) WITHOUT ROWID;
    CREATE TABLE section_fragment (
      section_id INTEGER, position INTEGER, fragment_id INTEGER,
      PRIMARY KEY (section_id, position)) WITHOUT ROWID;
    CREATE TABLE fragment_text (
      fragment_id INTEGER, locale TEXT, text TEXT,
      PRIMARY KEY (fragment_id, locale)) WITHOUT ROWID;
  )");
}

/// Fills a new file with `templates` templates.
inline void create_store(const std::string& path, std::int64_t templates, std::mt19937_64& random) {
  sqlite::connection database(path, SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE);
  create_tables(database);
  database.execute("BEGIN");

  sqlite::statement add_section(database, "INSERT INTO template_section VALUES (?, ?, ?)");
  std::uniform_int_distribution<std::int64_t> any_section(1, sections);
  for (std::int64_t id = 1; id <= templates; ++id) {
    for (std::int64_t position = 1; position <= sections_per_template; ++position) {
      add_section.execute(id, position, any_section(random));
    }
  }

  sqlite::statement add_fragment(database, "INSERT INTO section_fragment VALUES (?, ?, ?)");
  std::uniform_int_distribution<std::int64_t> any_fragment(1, fragments);
  for (std::int64_t id = 1; id <= sections; ++id) {
    for (std::int64_t position = 1; position <= fragments_per_section; ++position) {
      add_fragment.execute(id, position, any_fragment(random));
    }
  }

  sqlite::statement add_text(database, "INSERT INTO fragment_text VALUES (?, ?, ?)");
  for (std::int64_t id = 1; id <= fragments; ++id) {
    const std::string number = std::to_string(id);
    add_text.execute(id, "en", "Fragment " + number + " for {{name}}");
    if (id % 3 != 0) add_text.execute(id, "de", "Baustein " + number + " an {{name}}");
  }

  database.execute("COMMIT");
}

/// A connection to the store, with the query of this example: 1,200 fragments in order, each in the
/// reader's language if there is such a text, else in English.
class store_connection {
 public:
  explicit store_connection(const std::string& path)
      : database_(path, SQLITE_OPEN_READONLY), assemble_(database_, assemble_sql) {}

  [[nodiscard]] static bool usable() noexcept { return true; }

  template_details load(template_id id) {
    assemble_.bind(std::int64_t{id}, "de");
    if (!assemble_.step()) throw std::runtime_error("an aggregate without a row");
    template_details details{id, assemble_.integer(0), assemble_.text(1)};
    assemble_.reset();
    if (details.fragments == 0) throw std::runtime_error("no template " + std::to_string(id));
    return details;
  }

 private:
  static constexpr const char* assemble_sql = R"(
    SELECT count(*), group_concat(text, char(10)) FROM (
      SELECT coalesce(translated.text, english.text) AS text
      FROM template_section AS part
      JOIN section_fragment AS piece ON piece.section_id = part.section_id
      JOIN fragment_text AS english
        ON english.fragment_id = piece.fragment_id AND english.locale = 'en'
      LEFT JOIN fragment_text AS translated
        ON translated.fragment_id = piece.fragment_id AND translated.locale = ?2
      WHERE part.template_id = ?1
      ORDER BY part.position, piece.position))";

  sqlite::connection database_;
  sqlite::statement assemble_;
};

/// The database as the application sees it: as many queries at once as there are connections; the
/// others wait until one is free.
using store_pool = examples::connection_pool<store_connection>;

}  // namespace stampede

#endif  // STAMPEDE_TEMPLATE_STORE_HPP
