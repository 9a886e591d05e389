// SPDX-License-Identifier: MIT
// One of the two Asios, by the name `asio`, and what the tests of both share.
#ifndef SINGLEFLIGHT_TESTS_EITHER_ASIO_HPP
#define SINGLEFLIGHT_TESTS_EITHER_ASIO_HPP

#if defined(SINGLEFLIGHT_TESTS_BOOST_ASIO)
#include <boost/asio/bind_allocator.hpp>
#include <boost/asio/bind_cancellation_slot.hpp>
#include <boost/asio/bind_executor.hpp>
#include <boost/asio/co_spawn.hpp>
#include <boost/asio/deferred.hpp>
#include <boost/asio/detached.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/asio/strand.hpp>
#include <boost/asio/thread_pool.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <boost/asio/use_future.hpp>
#include <singleflight/boost_asio.hpp>

namespace asio = boost::asio;
inline constexpr auto& deferred = asio::deferred;
using error_code = boost::system::error_code;
using system_error = boost::system::system_error;
#else
#include <asio/bind_allocator.hpp>
#include <asio/bind_cancellation_slot.hpp>
#include <asio/bind_executor.hpp>
#include <asio/co_spawn.hpp>
#include <asio/detached.hpp>
#include <asio/experimental/deferred.hpp>
#include <asio/io_context.hpp>
#include <asio/steady_timer.hpp>
#include <asio/strand.hpp>
#include <asio/thread_pool.hpp>
#include <asio/use_awaitable.hpp>
#include <asio/use_future.hpp>
#include <singleflight/asio.hpp>

inline constexpr auto& deferred = asio::experimental::deferred;
using asio::error_code;
using asio::system_error;
#endif

#include <gtest/gtest.h>

#include <chrono>
#include <exception>
#include <memory>
#include <optional>
#include <singleflight/group.hpp>
#include <system_error>
#include <thread>
#include <utility>
#include <variant>

#include "../executors.hpp"
#include "../support.hpp"

// Asio 1.22 knows the coroutines of g++ alone.
#if defined(ASIO_HAS_CO_AWAIT) || defined(BOOST_ASIO_HAS_CO_AWAIT)
#define SINGLEFLIGHT_TESTS_ASIO_COROUTINES
#endif

using singleflight::async_call;
using clock_type = std::chrono::steady_clock;
using executor_type = asio::io_context::executor_type;
using strand_type = asio::strand<executor_type>;
using namespace std::chrono_literals;

/// What a handler was given.
struct answer {
  int calls = 0;
  std::optional<int> value;
  std::exception_ptr error;
  bool led = false;
  bool shared = false;

  [[nodiscard]] std::error_code code() const { return support::call_error_of(error); }
};

/// A handler that notes what it is given.
inline auto into(answer& a) {
  return [&a](std::exception_ptr error, singleflight::result<int> r) {
    ++a.calls;
    a.error = std::move(error);
    if (a.error != nullptr) return;
    a.led = r.led();
    a.shared = r.shared();
    a.value = *r;
  };
}

/// The leader of a call that this thread has begun.
template <class Group, class Key>
auto lead(Group& flights, const Key& key) {
  using token = singleflight::leader<typename Group::value_type>;
  return std::get<token>(flights.lead_or_follow(key));
}

inline int must_not_load() {
  ADD_FAILURE() << "the caller's own loader ran";
  return -1;
}

/// Runs the context until the condition holds.
template <class Condition>
void run_until(asio::io_context& io, const Condition& condition, const char* what) {
  support::await(
      [&] {
        io.restart();
        io.poll();
        return condition();
      },
      what);
}

/// A context that threads run until this is destroyed.
class running_context {
 public:
  explicit running_context(std::size_t threads)
      : threads_(threads, [this](std::size_t) { io.run(); }) {}
  running_context(const running_context&) = delete;
  running_context& operator=(const running_context&) = delete;
  ~running_context() { work_.reset(); }

  asio::io_context io;

 private:
  asio::executor_work_guard<executor_type> work_{io.get_executor()};
  support::threads threads_;
};

#endif  // SINGLEFLIGHT_TESTS_EITHER_ASIO_HPP
