// SPDX-License-Identifier: MIT
#ifndef TEMPLATE_SERVICE_SCHEMA_HPP
#define TEMPLATE_SERVICE_SCHEMA_HPP

#include <cstdint>
#include <functional>
#include <random>
#include <string>
#include <utility>

namespace template_service {

// A template is a sequence of sections, a section a sequence of fragments, and a fragment has a text
// in English and perhaps one in German.
inline constexpr std::uint32_t sections_per_template = 8;
inline constexpr std::uint32_t sections = 400;
inline constexpr std::uint32_t fragments_per_section = 30;
inline constexpr std::uint32_t fragments = 5000;

/// Executes one statement of the SQL that SQLite and MariaDB have in common.
using execute_function = std::function<void(const std::string& sql)>;

/// Inserts many rows with few statements.
class bulk_insert {
 public:
  bulk_insert(const execute_function& execute, std::string table)
      : execute_(execute), start_("INSERT INTO " + std::move(table) + " VALUES ") {}

  void add(const std::string& row) {
    sql_ += (sql_.empty() ? start_ : ",") + '(' + row + ')';
    if (sql_.size() > most_bytes) flush();
  }

  void flush() {
    if (!sql_.empty()) execute_(sql_);
    sql_.clear();
  }

 private:
  static constexpr std::size_t most_bytes = 100'000;

  const execute_function& execute_;
  const std::string start_;
  std::string sql_;
};

inline void create_tables(const execute_function& execute) {
  for (const char* table : {"template", "template_section", "section_fragment", "fragment_text"}) {
    execute(std::string("DROP TABLE IF EXISTS ") + table);
  }
  execute("CREATE TABLE template (id INTEGER PRIMARY KEY, version INTEGER NOT NULL)");
  execute(
      "CREATE TABLE template_section (template_id INTEGER NOT NULL, position INTEGER NOT NULL, "
      "section_id INTEGER NOT NULL, PRIMARY KEY (template_id, position))");
  execute("CREATE INDEX template_section_use ON template_section (section_id, template_id)");
  execute(
      "CREATE TABLE section_fragment (section_id INTEGER NOT NULL, position INTEGER NOT NULL, "
      "fragment_id INTEGER NOT NULL, PRIMARY KEY (section_id, position))");
  execute(
      "CREATE TABLE fragment_text (fragment_id INTEGER NOT NULL, locale CHAR(2) NOT NULL, "
      "text VARCHAR(100) NOT NULL, PRIMARY KEY (fragment_id, locale))");
}

inline std::string row_of_text(const std::string& number, const char* language, const char* noun,
                               const char* preposition) {
  std::string row = number;
  row.append(",'").append(language).append("','").append(noun).append(" ").append(number);
  return row.append(" ").append(preposition).append(" {{name}}'");
}

/// Fills the empty tables: the same templates each time.
inline void fill_tables(const execute_function& execute, std::uint32_t templates) {
  std::mt19937 random(20'130'429);  // NOLINT(bugprone-random-generator-seed): see above
  const auto any_of = [&](std::uint32_t count) { return std::to_string(random() % count + 1); };

  bulk_insert template_rows(execute, "template");
  bulk_insert section_rows(execute, "template_section");
  for (std::uint32_t id = 1; id <= templates; ++id) {
    template_rows.add(std::to_string(id) + ",1");
    for (std::uint32_t position = 1; position <= sections_per_template; ++position) {
      section_rows.add(std::to_string(id) + ',' + std::to_string(position) + ',' +
                       any_of(sections));
    }
  }
  template_rows.flush();
  section_rows.flush();

  bulk_insert fragment_rows(execute, "section_fragment");
  for (std::uint32_t id = 1; id <= sections; ++id) {
    for (std::uint32_t position = 1; position <= fragments_per_section; ++position) {
      fragment_rows.add(std::to_string(id) + ',' + std::to_string(position) + ',' +
                        any_of(fragments));
    }
  }
  fragment_rows.flush();

  bulk_insert texts(execute, "fragment_text");
  for (std::uint32_t id = 1; id <= fragments; ++id) {
    const std::string number = std::to_string(id);
    texts.add(row_of_text(number, "en", "Fragment", "for"));
    if (id % 3 != 0) texts.add(row_of_text(number, "de", "Baustein", "an"));
  }
  texts.flush();
}

inline void create_and_fill(const execute_function& execute, std::uint32_t templates) {
  create_tables(execute);
  execute("BEGIN");
  fill_tables(execute, templates);
  execute("COMMIT");
}

}  // namespace template_service

#endif  // TEMPLATE_SERVICE_SCHEMA_HPP
