// SPDX-License-Identifier: MIT
// A real Redis of the test's own, and programs that the test starts.
// All end with the test, by their id.
#ifndef SINGLEFLIGHT_TESTS_FLEET_REDIS_SERVER_HPP
#define SINGLEFLIGHT_TESTS_FLEET_REDIS_SERVER_HPP

#include <arpa/inet.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <cstdlib>
#include <filesystem>
#include <map>
#include <memory>
#include <singleflight/hiredis_client.hpp>
#include <stdexcept>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "../support.hpp"

namespace fleet_tests {

/// Not one of the highest: a node of a cluster takes the port 10,000 above, too.
inline int free_port() {
  const int probe = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  socklen_t size = sizeof address;
  if (bind(probe, reinterpret_cast<sockaddr*>(&address), size) != 0 ||
      getsockname(probe, reinterpret_cast<sockaddr*>(&address), &size) != 0) {
    throw std::runtime_error("no free port");
  }
  close(probe);
  const int port = ntohs(address.sin_port);
  return port > 55'000 ? free_port() : port;
}

/// A program that was started, and is killed with this. Only for threads that outlive it.
class child {
 public:
  /// `in` and `out`, where given, become its standard input and output.
  child(const std::string& program, std::vector<std::string> arguments, int in = -1, int out = -1) {
    std::vector<char*> words;
    for (std::string& word : arguments) words.push_back(word.data());
    words.push_back(nullptr);
    id_ = fork();
    if (id_ < 0) throw std::runtime_error("cannot fork");
    if (id_ != 0) return;
    prctl(PR_SET_PDEATHSIG, SIGKILL);  // if the test, or this thread of it, is killed
    if (in >= 0) dup2(in, 0);
    if (out >= 0) dup2(out, 1);
    execv(program.c_str(), words.data());
    _exit(127);
  }
  child(const child&) = delete;
  child& operator=(const child&) = delete;
  ~child() { kill(); }

  void send(int signal) const { ::kill(id_, signal); }
  void kill() {
    if (id_ <= 0) return;
    send(SIGKILL);
    waitpid(id_, nullptr, 0);
    id_ = 0;
  }

 private:
  pid_t id_ = 0;
};

/// The server is in Debian's redis-server, and by another name in its redis-tools. Another one, as
/// valkey-server, may be named by SINGLEFLIGHT_REDIS.
inline std::string redis_program() {
  if (const char* const other = std::getenv("SINGLEFLIGHT_REDIS")) return other;
  for (const char* path : {"/usr/bin/redis-server", "/usr/bin/redis-check-rdb"}) {
    if (access(path, X_OK) == 0) return path;
  }
  throw std::runtime_error("there is no redis-server");
}

/// What a server answers to a command, on a connection of its own.
inline singleflight::redis_reply ask(int port, const std::vector<std::string_view>& command) {
  using namespace std::chrono_literals;
  std::string why;
  const auto connection = singleflight::detail::redis_connection::open(
      {.port = port}, "127.0.0.1", 0, std::chrono::steady_clock::now() + 5s, why);
  if (connection == nullptr) return {.text = why};
  return connection->command(command, std::chrono::steady_clock::now() + 5s);
}

/// A directory that ends with this.
class temporary_directory {
 public:
  temporary_directory() {
    std::string pattern = std::filesystem::temp_directory_path() / "singleflight-fleet-XXXXXX";
    if (mkdtemp(pattern.data()) == nullptr) throw std::runtime_error("no temporary directory");
    path_ = pattern;
  }
  temporary_directory(const temporary_directory&) = delete;
  temporary_directory& operator=(const temporary_directory&) = delete;
  ~temporary_directory() {
    std::error_code ignored;
    std::filesystem::remove_all(path_, ignored);
  }
  [[nodiscard]] const std::string& path() const noexcept { return path_; }

 private:
  std::string path_;
};

using options_of_redis = std::vector<std::string>;

class redis_server {
 public:
  explicit redis_server(options_of_redis options = {}, int port = free_port())
      : port_(port), options_(std::move(options)) {
    start();
  }

  void start() {
    std::vector<std::string> arguments{"redis-server",
                                       "--port",
                                       std::to_string(port_),
                                       "--bind",
                                       "127.0.0.1",
                                       "--save",
                                       "",
                                       "--dir",
                                       directory_.path(),
                                       "--logfile",
                                       "redis.log"};
    arguments.insert(arguments.end(), options_.begin(), options_.end());
    process_ = std::make_unique<child>(redis_program(), std::move(arguments));
    support::await([&] { return reply({"PING"}).what != singleflight::redis_reply::kind::none; },
                   "Redis to start");
  }
  void kill() { process_->kill(); }
  void stop() const { process_->send(SIGSTOP); }
  void go_on() const { process_->send(SIGCONT); }

  /// It can no longer save what it has, and notices.
  void lose_directory() const {
    std::filesystem::remove_all(directory_.path());
    support::await(
        [&] {
          (void)reply({"BGSAVE"});
          return text({"INFO", "persistence"}).find("rdb_last_bgsave_status:err") !=
                 std::string::npos;
        },
        "a save to fail");
  }

  [[nodiscard]] int port() const noexcept { return port_; }
  [[nodiscard]] singleflight::hiredis_options options() const {
    using namespace std::chrono_literals;
    return {.port = port_, .timeout = 5s};  // one that is slow is not taken for one that is away
  }

  /// What it answers to a command, on a connection of its own.
  [[nodiscard]] singleflight::redis_reply reply(
      const std::vector<std::string_view>& command) const {
    return ask(port_, command);
  }
  [[nodiscard]] std::string text(const std::vector<std::string_view>& command) const {
    const auto got = reply(command);
    if (got.what == singleflight::redis_reply::kind::null) return "(nil)";
    if (got.what == singleflight::redis_reply::kind::number) return std::to_string(got.number);
    return got.text;
  }
  /// A figure of INFO.
  [[nodiscard]] long long info(const std::string& name) const {
    const std::string all = text({"INFO", "everything"});
    const std::size_t at = all.find("\n" + name + ":");
    return at == all.npos ? 0 : std::atoll(all.c_str() + at + name.size() + 2);
  }
  /// How often each command was executed, those of scripts included.
  [[nodiscard]] std::map<std::string, long long> calls() const {
    std::map<std::string, long long> counted;
    const std::string all = text({"INFO", "commandstats"});
    constexpr std::string_view mark = "\ncmdstat_";
    for (std::size_t at = all.find(mark); at != all.npos; at = all.find(mark, at + 1)) {
      const std::size_t colon = all.find(':', at);
      counted[all.substr(at + mark.size(), colon - at - mark.size())] =
          std::atoll(all.c_str() + colon + sizeof("calls="));
    }
    return counted;
  }

 private:
  const int port_;
  const options_of_redis options_;
  const temporary_directory directory_;
  std::unique_ptr<child> process_;  // the last member: it ends before its directory
};

}  // namespace fleet_tests

#endif  // SINGLEFLIGHT_TESTS_FLEET_REDIS_SERVER_HPP
