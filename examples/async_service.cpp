// SPDX-License-Identifier: MIT
// An HTTP service on two threads whose requests are coroutines: /template-details?id=ID asks a slow
// backend, another HTTP server, once for all the requests for one ID that come at the same time.
//
//     async_service PORT BACKEND_PORT DEADLINE_MS     (PORT 0: any that is free)
//
// A request waits as long as the deadline says, then it gets 504. When the last client has hung up,
// the request to the backend is cancelled. /stats shows who waits.

#include <boost/asio/awaitable.hpp>
#include <boost/asio/co_spawn.hpp>
#include <boost/asio/deferred.hpp>
#include <boost/asio/detached.hpp>
#include <boost/asio/experimental/parallel_group.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/signal_set.hpp>
#include <boost/asio/strand.hpp>
#include <boost/asio/this_coro.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <boost/beast/core.hpp>
#include <boost/beast/http.hpp>
#include <chrono>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <exception>
#include <singleflight/boost_asio.hpp>
#include <stdexcept>
#include <string>
#include <string_view>
#include <system_error>
#include <thread>
#include <utility>

namespace {

namespace asio = boost::asio;
namespace beast = boost::beast;
namespace http = beast::http;
using asio::use_awaitable;
using asio::ip::tcp;
using request = http::request<http::empty_body>;
using response = http::response<http::string_body>;

struct service {
  tcp::endpoint backend;
  std::chrono::milliseconds patience;
  singleflight::group<std::string, std::string> flights{};
};

/// Asks the backend. Whoever wants the answer waits for this one coroutine, which is cancelled when
/// nobody does any more.
asio::awaitable<std::string> load(const service& s, const std::string& id) {
  beast::tcp_stream stream(co_await asio::this_coro::executor);
  co_await stream.async_connect(s.backend, use_awaitable);
  const request ask(http::verb::get, "/" + id, 11);
  co_await http::async_write(stream, ask, use_awaitable);
  beast::flat_buffer buffer;
  response answer;
  co_await http::async_read(stream, buffer, answer, use_awaitable);
  if (answer.result() != http::status::ok) throw std::runtime_error("the backend failed");
  co_return std::move(answer.body());
}

response text(http::status status, std::string body) {
  response r(status, 11);
  r.body() = std::move(body);
  return r;
}

response failure(const std::exception_ptr& error) {
  try {
    std::rethrow_exception(error);
  } catch (const singleflight::call_error& e) {
    const bool late = e.code() == std::errc::timed_out;
    return text(late ? http::status::gateway_timeout : http::status::service_unavailable, e.what());
  } catch (const std::exception& e) {
    return text(http::status::bad_gateway, e.what());
  }
}

std::string stats(const service& s) {
  const auto now = s.flights.stats();
  return "waiting " + std::to_string(now.waiting) + ", in flight " + std::to_string(now.in_flight);
}

/// Serves the requests of one connection, on a strand.
asio::awaitable<void> serve(beast::tcp_stream stream, service& s) {
  constexpr std::string_view path = "/template-details?id=";
  beast::flat_buffer buffer;
  for (bool alive = true; alive;) {
    request ask;
    co_await http::async_read(stream, buffer, ask, use_awaitable);
    response answer = text(http::status::not_found, "there is nothing here");
    if (ask.target() == "/stats") answer = text(http::status::ok, stats(s));
    if (ask.target().starts_with(path)) {
      const auto start = [&](const std::string& id) { return load(s, id); };
      // Whichever comes first cancels the other. Where something can be read before the answer, the
      // client has hung up. (async_wait of Asio would also end where there is nothing.)
      auto [order, error, details, gone, bytes] =
          co_await asio::experimental::make_parallel_group(
              singleflight::async_call(s.flights, stream.get_executor(),
                                       std::string(ask.target().substr(path.size())),
                                       {.deadline = std::chrono::steady_clock::now() + s.patience},
                                       start, asio::deferred),
              stream.socket().async_receive(buffer.prepare(1), tcp::socket::message_peek,
                                            asio::deferred))
              .async_wait(asio::experimental::wait_for_one(), use_awaitable);
      if (order[0] == 1) co_return;
      answer = error != nullptr ? failure(error) : text(http::status::ok, *details);
    }
    answer.prepare_payload();
    alive = ask.keep_alive();
    co_await http::async_write(stream, answer, use_awaitable);
  }
}

asio::awaitable<void> accept(tcp::acceptor& acceptor, service& s) {
  for (;;) {
    tcp::socket socket =
        co_await acceptor.async_accept(asio::make_strand(acceptor.get_executor()), use_awaitable);
    const auto strand = socket.get_executor();
    asio::co_spawn(strand, serve(beast::tcp_stream(std::move(socket)), s), asio::detached);
  }
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 4) {
    std::fputs("usage: async_service PORT BACKEND_PORT DEADLINE_MS\n", stderr);
    return 2;
  }
  const auto local = [](const char* port) {
    return tcp::endpoint(asio::ip::address_v4::loopback(),
                         static_cast<asio::ip::port_type>(std::atoi(port)));
  };
  service s{local(argv[2]), std::chrono::milliseconds(std::atoi(argv[3]))};
  asio::io_context io(2);
  tcp::acceptor acceptor(io, local(argv[1]));
  asio::signal_set signals(io, SIGINT, SIGTERM);
  signals.async_wait([&](auto, auto) { io.stop(); });
  asio::co_spawn(io, accept(acceptor, s), asio::detached);
  std::printf("listening on %d\n", acceptor.local_endpoint().port());
  std::fflush(stdout);
  std::thread second([&] { io.run(); });
  io.run();
  second.join();
}
