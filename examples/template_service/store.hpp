// SPDX-License-Identifier: MIT
#ifndef TEMPLATE_SERVICE_STORE_HPP
#define TEMPLATE_SERVICE_STORE_HPP

#include <atomic>
#include <chrono>
#include <cstdint>
#include <exception>
#include <map>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>
#include <stdexcept>
#include <string>
#include <type_traits>
#include <vector>

#include "../common/connection_pool.hpp"
#include "log.hpp"
#include "template.hpp"

namespace template_service {

/// The store cannot answer now.
struct store_unavailable : std::runtime_error {
  using std::runtime_error::runtime_error;
};

/// A template as the store has it.
struct template_row {
  std::int64_t version = 0;
  std::int64_t fragments = 0;
  std::int64_t relatives = 0;  // templates with which it shares a section
  std::string text;
};

struct store_stats {
  std::uint64_t answered = 0;
  std::uint64_t failed = 0;
  double seconds = 0;  // taken by the answered queries, waiting for a connection included
};

/// The templates. The log says when the store goes down and when it is up again, not each failure.
class store {
 public:
  store() = default;
  store(const store&) = delete;
  store& operator=(const store&) = delete;
  virtual ~store() = default;

  /// Drops the tables and creates new ones, with templates 1 to `templates`.
  virtual void fill(std::uint32_t templates) = 0;

  /// Returns: null if there is no such template.
  /// Throws: `store_unavailable`.
  details_json load(const template_key& key) {
    return timed([&]() -> details_json {
      const std::optional<template_row> row = query(key);
      return row ? as_json(key, *row) : nullptr;
    });
  }

  /// The same for many, by one query.
  /// Returns: the answers in the order of the keys, which have one language.
  std::vector<details_json> load(const std::vector<template_key>& keys) {
    return timed([&] {
      const std::map<std::uint32_t, template_row> rows = query(keys);
      std::vector<details_json> all;
      for (const template_key& key : keys) {
        const auto row = rows.find(key.id);
        all.push_back(row != rows.end() ? as_json(key, row->second) : nullptr);
      }
      return all;
    });
  }

  [[nodiscard]] store_stats stats() const {
    return {answered_, failed_, static_cast<double>(nanoseconds_) / 1e9};
  }
  [[nodiscard]] virtual examples::pool_stats connections() const = 0;

 private:
  virtual std::optional<template_row> query(const template_key& key) = 0;
  virtual std::map<std::uint32_t, template_row> query(const std::vector<template_key>& keys) = 0;

  template <class Query>
  std::invoke_result_t<const Query&> timed(const Query& run) {
    const auto start = std::chrono::steady_clock::now();
    try {
      auto answer = run();
      count_answer(std::chrono::steady_clock::now() - start);
      return answer;
    } catch (const examples::pool_exhausted& error) {  // overloaded, which is neither up nor down
      ++failed_;
      throw store_unavailable(error.what());
    } catch (const std::exception& error) {
      count_failure(error.what());
      throw store_unavailable(error.what());
    }
  }

  static details_json as_json(const template_key& key, const template_row& row) {
    const nlohmann::ordered_json details{{"id", key.id},
                                         {"locale", name(key.language)},
                                         {"version", row.version},
                                         {"fragments", row.fragments},
                                         {"relatives", row.relatives},
                                         {"text", row.text}};
    return std::make_shared<const std::string>(details.dump());
  }

  void count_answer(std::chrono::nanoseconds took) {
    ++answered_;
    nanoseconds_ += static_cast<std::uint64_t>(took.count());
    if (down_.exchange(false)) log_info("store_up");
  }

  void count_failure(const char* reason) {
    ++failed_;
    if (!down_.exchange(true)) log_error("store_down", {{"reason", reason}});
  }

  std::atomic<std::uint64_t> answered_ = 0;
  std::atomic<std::uint64_t> failed_ = 0;
  std::atomic<std::uint64_t> nanoseconds_ = 0;
  std::atomic<bool> down_ = false;
};

}  // namespace template_service

#endif  // TEMPLATE_SERVICE_STORE_HPP
