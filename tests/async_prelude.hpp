// SPDX-License-Identifier: MIT
// The user's coroutine type, database and thread pool that the code of docs/async.md calls.
#ifndef SINGLEFLIGHT_TESTS_ASYNC_PRELUDE_HPP
#define SINGLEFLIGHT_TESTS_ASYNC_PRELUDE_HPP

#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <singleflight/coroutine.hpp>
#include <stdexcept>
#include <stop_token>
#include <string>
#include <utility>
#include <variant>
#include <vector>

#include "tasks.hpp"

#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC diagnostic ignored \
    "-Wsubobject-linkage"  // the code of the page is in a header only here
#endif

namespace async_guide {

template <class T = void>
using task = support::lazy_task<T>;

struct template_details {
  std::string body;
  std::string base = {};  // the id of the template that this one extends
};

/// Work that is done when a test says so.
class queue {
 public:
  void post(std::function<void()> work) { work_.push_back(std::move(work)); }
  void run_all() {
    while (!work_.empty()) {
      for (const auto& work : std::exchange(work_, {})) work();
    }
  }

 private:
  std::vector<std::function<void()>> work_;
};

class database {
 public:
  explicit database(queue& answers) : answers_(answers) {}

  int loads = 0;
  bool told_to_stop = false;

  /// Resumes its caller when the answers are run.
  task<template_details> async_load(std::string id, std::stop_token unwanted = {}) {
    ++loads;
    co_await answer{answers_};
    told_to_stop = unwanted.stop_requested();
    co_return rows.at(id);
  }

  /// The rows that there are, by one query.
  template <class Ids>
  task<std::map<std::string, template_details>> async_load_many(const Ids& ids) {
    ++loads;
    std::map<std::string, template_details> found;
    for (const std::string& id : ids) {
      if (rows.count(id) > 0) found.emplace(id, rows.at(id));
    }
    co_await answer{answers_};
    co_return found;
  }

  /// Calls `done` when the answers are run.
  template <class Done>
  void load_then(const std::string& id, Done done) {
    ++loads;
    answers_.post(
        [row = rows.at(id), kept = std::make_shared<Done>(std::move(done))] { (*kept)(row); });
  }

  std::map<std::string, template_details> rows{
      {"welcome", {"Hello"}}, {"letter", {", friend", "welcome"}}, {"loop", {"o", "loop"}}};

 private:
  struct answer {
    queue& q;
    [[nodiscard]] bool await_ready() const noexcept { return false; }
    void await_suspend(std::coroutine_handle<> h) const { q.post(h); }
    void await_resume() const noexcept {}
  };

  queue& answers_;
};

inline queue answers, pool;
inline database db(answers);
inline const auto pool_executor = [](auto task) { pool.post(std::move(task)); };
inline template_details read_stream(const std::string& id) { return db.rows.at(id); }

}  // namespace async_guide

#endif  // SINGLEFLIGHT_TESTS_ASYNC_PRELUDE_HPP
