// SPDX-License-Identifier: MIT
// A network that fails as a test says, between clients and a server on loopback.
#ifndef SINGLEFLIGHT_TESTS_FLEET_FAULT_PROXY_HPP
#define SINGLEFLIGHT_TESTS_FLEET_FAULT_PROXY_HPP

#include <arpa/inet.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <array>
#include <atomic>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <mutex>
#include <optional>
#include <stdexcept>
#include <string>
#include <string_view>
#include <thread>
#include <vector>

#include "redis_server.hpp"

namespace fleet_tests {

class fault_proxy {
 public:
  enum class fault {
    none,
    refuse,       ///< Connections end when they are made.
    reset,        ///< The request is not passed on; the connection is reset.
    hang,         ///< The request is not passed on, and nothing comes back.
    lose_reply,   ///< The request is passed on, then the connection is reset.
    keep_reply,   ///< The request is passed on, and nothing comes back.
    cut,          ///< Of the reply some bytes come, then the connection is reset.
    drip,         ///< The reply comes byte by byte.
    delay,        ///< The reply comes late.
    garbage,      ///< What comes back is not the protocol.
    double_reply  ///< The reply comes twice.
  };

  explicit fault_proxy(int server) : server_(server) {
    listener_ = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    socklen_t size = sizeof address;
    if (bind(listener_, reinterpret_cast<sockaddr*>(&address), size) != 0 ||
        listen(listener_, 128) != 0 ||
        getsockname(listener_, reinterpret_cast<sockaddr*>(&address), &size) != 0) {
      throw std::runtime_error("the proxy cannot listen");
    }
    port_ = ntohs(address.sin_port);
    threads_.start([this] { accept_until_ended(); });
  }
  fault_proxy(const fault_proxy&) = delete;
  fault_proxy& operator=(const fault_proxy&) = delete;
  ~fault_proxy() {
    ending_ = true;
    threads_.join();
    close(listener_);
  }

  [[nodiscard]] int port() const noexcept { return port_; }

  /// From now on requests that contain `text` meet this fault, `times` times.
  void set(fault what, std::string text = {}, int times = 1'000'000'000,
           std::chrono::milliseconds delay = {}) {
    const std::lock_guard lock(mutex_);
    fault_ = what;
    text_ = std::move(text);
    times_ = times;
    delay_ = delay;
  }
  void clear() { set(fault::none); }

  /// Connections made from now on go to another server, as when a name gets another address.
  void lead_to(int server) { server_ = server; }

  /// The connections that there are now are forgotten without a word, as by a firewall.
  void forget_connections() { ++forgotten_; }

  [[nodiscard]] std::uint64_t accepted() const noexcept { return accepted_; }
  [[nodiscard]] std::uint64_t met() const noexcept { return met_; }  ///< Requests that met a fault.

 private:
  static constexpr int tick_ms = 10;

  void accept_until_ended() {
    support::threads connections;
    while (!ending_) {
      pollfd waited{.fd = listener_, .events = POLLIN, .revents = 0};
      if (poll(&waited, 1, tick_ms) <= 0) continue;
      const int client = accept4(listener_, nullptr, nullptr, SOCK_CLOEXEC);
      if (client < 0) continue;
      ++accepted_;
      if (meets({}) == fault::refuse) {
        reset(client);
        continue;
      }
      connections.start([this, client, age = forgotten_.load()] { pass(client, age); });
    }
  }

  /// The fault that this request meets. An empty one stands for a connection that is made.
  fault meets(std::string_view request) {
    const std::lock_guard lock(mutex_);
    if (fault_ == fault::none || times_ == 0) return fault::none;
    if ((fault_ == fault::refuse) != request.empty()) return fault::none;
    if (request.find(text_) == request.npos) return fault::none;
    --times_;
    ++met_;
    return fault_;
  }

  static void reset(int connection) {
    const linger at_once{.l_onoff = 1, .l_linger = 0};
    setsockopt(connection, SOL_SOCKET, SO_LINGER, &at_once, sizeof at_once);
    close(connection);
  }

  static bool send_all(int to, std::string_view bytes) {
    while (!bytes.empty()) {
      const ssize_t sent = send(to, bytes.data(), bytes.size(), MSG_NOSIGNAL);
      if (sent <= 0) return false;
      bytes.remove_prefix(static_cast<std::size_t>(sent));
    }
    return true;
  }

  void sleep(std::chrono::milliseconds time) const {
    const auto until = std::chrono::steady_clock::now() + time;
    while (!ending_ && std::chrono::steady_clock::now() < until) {
      std::this_thread::sleep_for(std::chrono::milliseconds(1));
    }
  }

  void pass(int client, std::uint64_t age) {
    const int server = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    address.sin_port = htons(static_cast<std::uint16_t>(server_.load()));
    const int on = 1;
    setsockopt(server, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    setsockopt(client, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    if (connect(server, reinterpret_cast<sockaddr*>(&address), sizeof address) == 0) {
      while (!ending_ && pass_some(client, server, age)) {
      }
    }
    reset(client);
    reset(server);
  }

  /// Returns: whether the connection goes on.
  bool pass_some(int client, int server, std::uint64_t age) {
    std::array<pollfd, 2> both{pollfd{.fd = client, .events = POLLIN, .revents = 0},
                               pollfd{.fd = server, .events = POLLIN, .revents = 0}};
    if (poll(both.data(), both.size(), tick_ms) <= 0) return true;
    if (age != forgotten_) {  // nothing is passed on, and nobody is told
      sleep(std::chrono::milliseconds(tick_ms));
      return true;
    }
    std::array<char, 65536> bytes;
    if (both[0].revents != 0) {
      const ssize_t size = recv(client, bytes.data(), bytes.size(), 0);
      if (size <= 0) return false;
      const std::string_view request(bytes.data(), static_cast<std::size_t>(size));
      const fault now = meets(request);
      if (now == fault::reset) return false;
      if (now == fault::hang) return hang(client);
      if (now == fault::garbage) return send_all(client, "*3\r\n:1\r\n$-7\r\n\xff\xfe");
      if (!send_all(server, request)) return false;
      return now == fault::none || spoil_reply(now, client, server);
    }
    const ssize_t size = recv(server, bytes.data(), bytes.size(), 0);
    return size > 0 && send_all(client, {bytes.data(), static_cast<std::size_t>(size)});
  }

  bool spoil_reply(fault how, int client, int server) {
    std::array<char, 65536> bytes;
    const ssize_t size = recv(server, bytes.data(), bytes.size(), 0);
    if (size <= 0) return false;
    const std::string_view reply(bytes.data(), static_cast<std::size_t>(size));
    switch (how) {
      case fault::keep_reply:
        return hang(client);
      case fault::cut:
        send_all(client, reply.substr(0, reply.size() / 2));
        return false;
      case fault::drip:
        for (std::size_t i = 0; i < reply.size() && !ending_; ++i) {
          if (!send_all(client, reply.substr(i, 1))) return false;
          sleep(std::chrono::milliseconds(5));
        }
        return true;
      case fault::delay:
        sleep(delay());
        return send_all(client, reply);
      case fault::double_reply:
        return send_all(client, std::string(reply) + std::string(reply));
      default:
        return false;  // lost
    }
  }

  /// Says nothing more until the client goes.
  bool hang(int client) const {
    std::array<char, 4096> bytes;
    while (!ending_) {
      pollfd waited{.fd = client, .events = POLLIN, .revents = 0};
      if (poll(&waited, 1, tick_ms) > 0 && recv(client, bytes.data(), bytes.size(), 0) <= 0) break;
    }
    return false;
  }

  [[nodiscard]] std::chrono::milliseconds delay() {
    const std::lock_guard lock(mutex_);
    return delay_;
  }

  std::atomic<int> server_;  // its port
  int listener_ = -1;
  int port_ = 0;
  std::atomic<bool> ending_ = false;
  std::atomic<std::uint64_t> accepted_ = 0;
  std::atomic<std::uint64_t> met_ = 0;
  std::atomic<std::uint64_t> forgotten_ = 0;
  std::mutex mutex_;
  fault fault_ = fault::none;  // all below guarded by mutex_
  std::string text_;
  int times_ = 0;
  std::chrono::milliseconds delay_{};
  support::threads threads_;
};

}  // namespace fleet_tests

#endif  // SINGLEFLIGHT_TESTS_FLEET_FAULT_PROXY_HPP
