// SPDX-License-Identifier: MIT
#ifndef TEMPLATE_SERVICE_SQLITE_STORE_HPP
#define TEMPLATE_SERVICE_SQLITE_STORE_HPP

#include <sqlite3.h>

#include <cstdint>
#include <map>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <vector>

#include "../common/connection_pool.hpp"
#include "../common/sqlite.hpp"
#include "schema.hpp"
#include "settings.hpp"
#include "store.hpp"
#include "template.hpp"

namespace template_service {

class sqlite_connection {
 public:
  explicit sqlite_connection(const std::string& uri)
      : database_(uri, SQLITE_OPEN_READONLY | SQLITE_OPEN_URI),
        assemble_(database_, assemble_sql),
        assemble_many_(database_, assemble_many_sql) {}

  [[nodiscard]] static bool usable() noexcept { return true; }

  std::optional<template_row> load(const template_key& key) {
    assemble_.bind(std::int64_t{key.id}, name(key.language));
    std::optional<template_row> row;
    if (assemble_.step()) {
      row = {assemble_.integer(0), assemble_.integer(1), assemble_.integer(2), assemble_.text(3)};
    }
    assemble_.reset();
    return row;
  }

  std::map<std::uint32_t, template_row> load(const std::vector<template_key>& keys) {
    nlohmann::json ids;
    for (const template_key& key : keys) ids.push_back(key.id);
    const std::string text = ids.dump();
    assemble_many_.bind(text, name(keys.front().language));
    std::map<std::uint32_t, template_row> rows;
    while (assemble_many_.step()) {
      rows[static_cast<std::uint32_t>(assemble_many_.integer(0))] = {
          assemble_many_.integer(1), assemble_many_.integer(2), assemble_many_.integer(3),
          assemble_many_.text(4)};
    }
    assemble_many_.reset();
    return rows;
  }

 private:
  static constexpr const char* assemble_sql = R"(
    SELECT version, count(*),
      (SELECT count(DISTINCT other.template_id) - 1 FROM template_section AS mine
       JOIN template_section AS other ON other.section_id = mine.section_id
       WHERE mine.template_id = ?1),
      group_concat(text, char(10))
    FROM (
      SELECT template.version, coalesce(translated.text, english.text) AS text
      FROM template
      JOIN template_section AS part ON part.template_id = template.id
      JOIN section_fragment AS piece ON piece.section_id = part.section_id
      JOIN fragment_text AS english
        ON english.fragment_id = piece.fragment_id AND english.locale = 'en'
      LEFT JOIN fragment_text AS translated
        ON translated.fragment_id = piece.fragment_id AND translated.locale = ?2
      WHERE template.id = ?1
      ORDER BY part.position, piece.position)
    GROUP BY version)";

  static constexpr const char* assemble_many_sql = R"(
    SELECT id, version, count(*),
      (SELECT count(DISTINCT other.template_id) - 1 FROM template_section AS mine
       JOIN template_section AS other ON other.section_id = mine.section_id
       WHERE mine.template_id = id),
      group_concat(text, char(10))
    FROM (
      SELECT template.id, template.version, coalesce(translated.text, english.text) AS text
      FROM template
      JOIN template_section AS part ON part.template_id = template.id
      JOIN section_fragment AS piece ON piece.section_id = part.section_id
      JOIN fragment_text AS english
        ON english.fragment_id = piece.fragment_id AND english.locale = 'en'
      LEFT JOIN fragment_text AS translated
        ON translated.fragment_id = piece.fragment_id AND translated.locale = ?2
      WHERE template.id IN (SELECT value FROM json_each(?1))
      ORDER BY template.id, part.position, piece.position)
    GROUP BY id, version)";

  examples::sqlite::connection database_;
  examples::sqlite::statement assemble_;
  examples::sqlite::statement assemble_many_;
};

/// A store for a single process: by default in memory, and lost when the process ends.
class sqlite_store final : public store {
 public:
  sqlite_store(const store_settings& access, std::uint32_t templates)
      : owner_(access.sqlite, SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE | SQLITE_OPEN_URI),
        pool_(access.connections, access.patience,
              [uri = access.sqlite] { return std::make_unique<sqlite_connection>(uri); }) {
    if (is_new()) fill(templates);
  }

  void fill(std::uint32_t templates) override {
    create_and_fill([&](const std::string& sql) { owner_.execute(sql.c_str()); }, templates);
  }

  [[nodiscard]] examples::pool_stats connections() const override { return pool_.stats(); }

 private:
  std::optional<template_row> query(const template_key& key) override {
    return pool_.with_connection([&](sqlite_connection& sqlite) { return sqlite.load(key); });
  }
  std::map<std::uint32_t, template_row> query(const std::vector<template_key>& keys) override {
    return pool_.with_connection([&](sqlite_connection& sqlite) { return sqlite.load(keys); });
  }

  bool is_new() {
    examples::sqlite::statement tables(
        owner_, "SELECT count(*) FROM sqlite_master WHERE name = 'fragment_text'");
    return tables.step() && tables.integer(0) == 0;
  }

  examples::sqlite::connection owner_;  // an in-memory database lives as long as a connection to it
  examples::connection_pool<sqlite_connection> pool_;
};

}  // namespace template_service

#endif  // TEMPLATE_SERVICE_SQLITE_STORE_HPP
