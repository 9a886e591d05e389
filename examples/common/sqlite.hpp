// SPDX-License-Identifier: MIT
#ifndef EXAMPLES_SQLITE_HPP
#define EXAMPLES_SQLITE_HPP

#include <sqlite3.h>

#include <cstddef>
#include <cstdint>
#include <memory>
#include <stdexcept>
#include <string>
#include <string_view>

namespace examples::sqlite {

inline void check(int code, sqlite3* handle) {
  if (code == SQLITE_OK) return;
  throw std::runtime_error(handle != nullptr ? sqlite3_errmsg(handle) : sqlite3_errstr(code));
}

/// An open database. Used by one thread at a time, so SQLite's own mutex is left out.
class connection {
 public:
  connection(const std::string& path, int mode) {
    sqlite3* opened = nullptr;
    const int code = sqlite3_open_v2(path.c_str(), &opened, mode | SQLITE_OPEN_NOMUTEX, nullptr);
    handle_.reset(opened);  // also after an error: it has the message, and must be closed
    check(code, opened);
  }

  void execute(const char* sql) {
    check(sqlite3_exec(handle(), sql, nullptr, nullptr, nullptr), handle());
  }

  [[nodiscard]] sqlite3* handle() const noexcept { return handle_.get(); }

 private:
  struct closer {
    void operator()(sqlite3* handle) const noexcept { sqlite3_close_v2(handle); }
  };
  std::unique_ptr<sqlite3, closer> handle_;
};

/// A prepared statement, executed any number of times: bind(...), step(), read, reset().
class statement {
 public:
  statement(const connection& on, std::string_view sql) : database_(on.handle()) {
    sqlite3_stmt* prepared = nullptr;
    check(
        sqlite3_prepare_v2(database_, sql.data(), static_cast<int>(sql.size()), &prepared, nullptr),
        database_);
    handle_.reset(prepared);
  }

  /// Binds the parameters from the first on. Text must live until reset().
  template <class... Values>
  void bind(const Values&... values) {
    int position = 0;
    (bind_one(++position, values), ...);
  }

  /// Returns: whether there is a row to read.
  [[nodiscard]] bool step() {
    const int code = sqlite3_step(handle_.get());
    if (code == SQLITE_ROW) return true;
    if (code == SQLITE_DONE) return false;
    const std::string why = sqlite3_errmsg(database_);
    sqlite3_reset(handle_.get());  // returns the same error once more
    throw std::runtime_error(why);
  }

  void reset() { check(sqlite3_reset(handle_.get()), database_); }

  /// Executes a statement that yields no row.
  template <class... Values>
  void execute(const Values&... values) {
    bind(values...);
    if (step()) throw std::logic_error("a statement that yields rows was executed as a command");
    reset();
  }

  [[nodiscard]] std::int64_t integer(int column) const {
    return sqlite3_column_int64(handle_.get(), column);
  }

  [[nodiscard]] std::string text(int column) const {
    const void* bytes = sqlite3_column_blob(handle_.get(), column);
    const auto size = static_cast<std::size_t>(sqlite3_column_bytes(handle_.get(), column));
    return bytes == nullptr ? std::string() : std::string(static_cast<const char*>(bytes), size);
  }

 private:
  struct finalizer {
    void operator()(sqlite3_stmt* handle) const noexcept { sqlite3_finalize(handle); }
  };

  void bind_one(int position, std::int64_t value) {
    check(sqlite3_bind_int64(handle_.get(), position, value), database_);
  }
  void bind_one(int position, std::string_view value) {
    check(sqlite3_bind_text(handle_.get(), position, value.data(), static_cast<int>(value.size()),
                            nullptr),  // SQLITE_STATIC: SQLite does not copy it
          database_);
  }

  sqlite3* database_;
  std::unique_ptr<sqlite3_stmt, finalizer> handle_;
};

}  // namespace examples::sqlite

#endif  // EXAMPLES_SQLITE_HPP
