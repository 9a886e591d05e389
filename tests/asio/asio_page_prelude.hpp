// SPDX-License-Identifier: MIT
// What the code of docs/asio.md uses.
#ifndef SINGLEFLIGHT_TESTS_ASIO_PAGE_PRELUDE_HPP
#define SINGLEFLIGHT_TESTS_ASIO_PAGE_PRELUDE_HPP

#include <atomic>
#include <boost/asio/any_io_executor.hpp>
#include <boost/asio/bind_executor.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/this_coro.hpp>
#include <boost/asio/thread_pool.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <boost/fiber/condition_variable.hpp>
#include <boost/fiber/fiber.hpp>
#include <chrono>
#include <exception>
#include <map>
#include <mutex>
#include <optional>
#include <singleflight/boost_asio.hpp>
#include <singleflight/group.hpp>
#include <string>
#include <utility>
#include <vector>

#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC diagnostic ignored \
    "-Wsubobject-linkage"  // the code of the page is in a header only here
#endif

namespace asio_page {

namespace asio = boost::asio;
using namespace std::chrono_literals;

struct template_details {
  std::string body;
};

struct database {
  std::atomic<int> loads = 0;

  asio::awaitable<template_details> load(std::string id) {
    ++loads;
    co_await asio::post(co_await asio::this_coro::executor, asio::use_awaitable);
    co_return template_details{"row " + id};
  }
  template <class Ids>
  asio::awaitable<std::map<std::string, template_details>> load_many(const Ids& ids) {
    ++loads;
    std::map<std::string, template_details> found;
    for (const std::string& id : ids) {
      if (id != "none") found[id] = {"row " + id};
    }
    co_await asio::post(co_await asio::this_coro::executor, asio::use_awaitable);
    co_return found;
  }
  template_details blocking_load(const std::string& id) {
    ++loads;
    return {"row " + id};
  }
};
inline database db;

inline std::string used;
inline void use(const template_details& details) { used = details.body; }

}  // namespace asio_page

#endif  // SINGLEFLIGHT_TESTS_ASIO_PAGE_PRELUDE_HPP
