// SPDX-License-Identifier: MIT
// The cost of a caller by standalone Asio, beside a bare asio::post of the same handler. One thread.

#include <benchmark/benchmark.h>

#include <asio/io_context.hpp>
#include <asio/post.hpp>
#include <chrono>
#include <cstdint>
#include <exception>
#include <singleflight/asio.hpp>
#include <string>
#include <utility>
#include <variant>

#include "harness.hpp"

namespace {

using group = singleflight::group<std::uint64_t, std::uint64_t>;
using token = singleflight::leader<std::uint64_t>;

constexpr int at_once = 100;

/// One row: `call(io, flights, handler)` a hundred times, then `end(flights)`, then all handlers run.
template <class Call>
void add(const char* name, const Call& call, singleflight::group_options options = {}) {
  benchmark::RegisterBenchmark((std::string("asio/") + name).c_str(), [=](benchmark::State& state) {
    asio::io_context io(1);
    group flights(options);
    std::int64_t called = 0;
    for (auto _ : state) {
      call(io, flights, [&](auto&&...) { ++called; });
      io.restart();
      io.poll();
    }
    if (called != state.iterations() * at_once) state.SkipWithError("a handler was not called");
    state.SetItemsProcessed(called);
  });
}

void register_rows() {
  const auto far = std::chrono::steady_clock::now() + std::chrono::hours(24);
  const auto leads = [](const singleflight::asio_options& options) {
    return [=](asio::io_context& io, group& flights, const auto& handler) {
      for (std::uint64_t i = 0; i < at_once; ++i) {
        singleflight::async_call(
            flights, io, i, options, [](token lead) { std::move(lead).set_value(1); }, handler);
      }
    };
  };
  const auto follows = [](const singleflight::asio_options& options) {
    return [=](asio::io_context& io, group& flights, const auto& handler) {
      auto leader = std::get<token>(flights.lead_or_follow(1));
      for (int i = 0; i < at_once; ++i) {
        singleflight::async_call(
            flights, io, 1, options, [] { return 0; }, handler);
      }
      std::move(leader).set_value(1);
    };
  };
  add("post", [](asio::io_context& io, group&, const auto& handler) {
    for (int i = 0; i < at_once; ++i) asio::post(io, [handler] { handler(); });
  });
  add("unshared", leads({}));
  add("unshared_deadline", leads({.deadline = far}));
  add("follower", follows({}));
  add("follower_deadline", follows({.deadline = far}));
}

}  // namespace

int main(int argc, char** argv) {
  return bench::run(argc, argv, bench::process::with_threads, &register_rows);
}
