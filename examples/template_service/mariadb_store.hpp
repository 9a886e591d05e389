// SPDX-License-Identifier: MIT
#ifndef TEMPLATE_SERVICE_MARIADB_STORE_HPP
#define TEMPLATE_SERVICE_MARIADB_STORE_HPP

#include <mysql.h>
#include <unistd.h>

#include <charconv>
#include <chrono>
#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <stdexcept>
#include <string>
#include <string_view>
#include <vector>

#include "../common/connection_pool.hpp"
#include "quiet_socket.hpp"
#include "schema.hpp"
#include "settings.hpp"
#include "store.hpp"
#include "template.hpp"

namespace template_service {

struct mariadb_error : std::runtime_error {
  using std::runtime_error::runtime_error;
};

class mariadb_connection {
 public:
  mariadb_connection(const mariadb_settings& server, std::chrono::seconds timeout)
      : handle_(mysql_init(nullptr)) {
    if (handle_ == nullptr) throw mariadb_error("out of memory");
    const auto seconds = static_cast<unsigned>(timeout.count());
    for (const mysql_option option :
         {MYSQL_OPT_CONNECT_TIMEOUT, MYSQL_OPT_READ_TIMEOUT, MYSQL_OPT_WRITE_TIMEOUT}) {
      check(mysql_options(handle_.get(), option, &seconds) == 0);
    }
    check(mysql_options(handle_.get(), MYSQL_SET_CHARSET_NAME, "utf8mb4") == 0);
    check(mysql_real_connect(handle_.get(), server.host.c_str(), server.user.c_str(),
                             server.password.c_str(), server.database.c_str(), server.port, nullptr,
                             0) != nullptr);
  }

  [[nodiscard]] bool usable() const noexcept { return is_quiet(mysql_get_socket(handle_.get())); }

  void execute(const std::string& sql) {
    check(mysql_real_query(handle_.get(), sql.data(), sql.size()) == 0);
  }

  /// The SQL comment tells in the database's logs which process asked for what. The text contains
  /// no strings from outside, only numbers and a name of ours.
  std::map<std::uint32_t, template_row> load(const std::vector<template_key>& keys) {
    std::string ids;
    for (const template_key& key : keys) ids += (ids.empty() ? "" : ",") + std::to_string(key.id);
    const std::string language = name(keys.front().language);
    execute("/* template-details id=" + ids + " locale=" + language +
            " process=" + std::to_string(getpid()) + R"( */
      SELECT template.id, template.version, COUNT(*),
        (SELECT COUNT(DISTINCT other.template_id) - 1 FROM template_section AS mine
         JOIN template_section AS other ON other.section_id = mine.section_id
         WHERE mine.template_id = template.id),
        GROUP_CONCAT(COALESCE(translated.text, english.text)
          ORDER BY part.position, piece.position SEPARATOR '\n')
      FROM template
      JOIN template_section AS part ON part.template_id = template.id
      JOIN section_fragment AS piece ON piece.section_id = part.section_id
      JOIN fragment_text AS english
        ON english.fragment_id = piece.fragment_id AND english.locale = 'en'
      LEFT JOIN fragment_text AS translated
        ON translated.fragment_id = piece.fragment_id AND translated.locale = ')" +
            language + "' WHERE template.id IN (" + ids +
            ") GROUP BY template.id, template.version");
    return read_rows();
  }

 private:
  struct close {
    void operator()(MYSQL* handle) const noexcept { mysql_close(handle); }
  };
  struct free_result {
    void operator()(MYSQL_RES* rows) const noexcept { mysql_free_result(rows); }
  };

  void check(bool done) {
    if (!done) throw mariadb_error(mysql_error(handle_.get()));
  }

  std::map<std::uint32_t, template_row> read_rows() {
    const std::unique_ptr<MYSQL_RES, free_result> rows(mysql_store_result(handle_.get()));
    check(rows != nullptr);
    std::map<std::uint32_t, template_row> all;
    while (MYSQL_ROW row = mysql_fetch_row(rows.get())) {
      const unsigned long* const sizes = mysql_fetch_lengths(rows.get());
      const auto integer = [&](unsigned column) { return number({row[column], sizes[column]}); };
      all[static_cast<std::uint32_t>(integer(0))] = {integer(1), integer(2), integer(3),
                                                     std::string(row[4], sizes[4])};
    }
    return all;
  }

  static std::int64_t number(std::string_view text) {
    std::int64_t value = 0;
    if (std::from_chars(text.data(), text.data() + text.size(), value).ec != std::errc()) {
      throw mariadb_error("not a number: " + std::string(text));
    }
    return value;
  }

  std::unique_ptr<MYSQL, close> handle_;
};

class mariadb_store final : public store {
 public:
  explicit mariadb_store(const store_settings& access)
      : connect_([server = access.mariadb, timeout = access.timeout] {
          return std::make_unique<mariadb_connection>(server, timeout);
        }),
        pool_(access.connections, access.patience, connect_) {}

  void fill(std::uint32_t templates) override {
    const auto connection = connect_();
    create_and_fill([&](const std::string& sql) { connection->execute(sql); }, templates);
  }

  [[nodiscard]] examples::pool_stats connections() const override { return pool_.stats(); }

 private:
  std::optional<template_row> query(const template_key& key) override {
    const std::vector<template_key> one{key};
    const std::map<std::uint32_t, template_row> rows = query(one);
    return rows.empty() ? std::nullopt : std::optional(rows.begin()->second);
  }
  std::map<std::uint32_t, template_row> query(const std::vector<template_key>& keys) override {
    return pool_.with_connection([&](mariadb_connection& mariadb) { return mariadb.load(keys); });
  }

  const examples::connection_pool<mariadb_connection>::connect_function connect_;
  examples::connection_pool<mariadb_connection> pool_;
};

}  // namespace template_service

#endif  // TEMPLATE_SERVICE_MARIADB_STORE_HPP
