// SPDX-License-Identifier: MIT
// Processes of a fleet, which a test starts and tells what to do; worker.cpp is the program.
#ifndef SINGLEFLIGHT_TESTS_FLEET_WORKERS_HPP
#define SINGLEFLIGHT_TESTS_FLEET_WORKERS_HPP

#include <fcntl.h>
#include <poll.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <mutex>
#include <sstream>
#include <stdexcept>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "redis_server.hpp"

namespace fleet_tests {

class worker {
 public:
  using options = std::vector<std::pair<std::string, long>>;

  explicit worker(int port, const options& given = {}) {
    std::array<int, 2> in{};
    std::array<int, 2> out{};
    if (pipe2(in.data(), O_CLOEXEC) != 0 || pipe2(out.data(), O_CLOEXEC) != 0) {
      throw std::runtime_error("no pipe");
    }
    std::vector<std::string> words{"worker", "port", std::to_string(port)};
    for (const auto& [name, value] : given) {
      words.push_back(name);
      words.push_back(std::to_string(value));
    }
    process_ = std::make_unique<child>(SINGLEFLIGHT_FLEET_WORKER, std::move(words), in[0], out[1]);
    close(in[0]);
    close(out[1]);
    to_ = in[1];
    from_ = out[0];
    reader_.start([this] { read_lines(); });
    await_line("ready");
  }
  worker(const worker&) = delete;
  worker& operator=(const worker&) = delete;
  ~worker() {
    close(to_);
    process_->kill();
    reader_.join();
    close(from_);
  }

  void tell(std::string line) const {
    line += '\n';
    if (write(to_, line.data(), line.size()) != static_cast<ssize_t>(line.size())) {
      throw std::runtime_error("the worker is gone");
    }
  }

  /// Starts a load. Returns: its id.
  std::string load(const std::string& key, long lifetime, const std::string& how) {
    const std::string id = next_id();
    tell("load " + id + " " + key + " " + std::to_string(lifetime) + " " + how);
    return id;
  }
  void await_loading(const std::string& id) { await_line("loading " + id); }
  /// Returns: whether the loader of that load has run.
  [[nodiscard]] bool has_loaded(const std::string& id) const { return has("loading " + id); }
  void end(const std::string& id, const std::string& value) const {
    tell("end " + id + " " + value);
  }

  /// Returns: the value of a load, or what its caller was told, when it has ended.
  std::string result(const std::string& id) {
    std::string found;
    support::await(
        [&] {
          for (const char* begin : {"value ", "error "}) {
            if (const auto line = find(begin + id + " ")) found = *line;
          }
          return !found.empty();
        },
        ("the load " + id).c_str());
    return found.substr(found.find(' ', 6) + 1);
  }

  /// Returns: the answer to a request that has one at once.
  std::string ask(const std::string& verb, const std::string& words = {}) {
    const std::string id = next_id();
    tell(verb + " " + id + " " + words);
    return answer(id);
  }
  std::string answer(const std::string& id) {
    std::optional<std::string> line;
    support::await(
        [&] {
          line = find("done " + id);
          return line.has_value();
        },
        "an answer");
    const std::size_t end = std::string("done ").size() + id.size() + 1;
    return line->size() > end ? line->substr(end) : "";
  }

  std::map<std::string, long> stats() { return figures(ask("stats")); }
  static std::map<std::string, long> figures(const std::string& text) {
    std::map<std::string, long> all;
    std::istringstream words(text);
    std::string name;
    for (long value = 0; words >> name >> value;) all[name] = value;
    return all;
  }

  void send(int signal) const { process_->send(signal); }
  void kill() { process_->kill(); }

  [[nodiscard]] std::vector<std::string> lines() const {
    const std::lock_guard lock(mutex_);
    return lines_;
  }
  static std::string next_id() {
    static int number = 0;
    return std::to_string(++number) + ".";
  }

 private:
  void read_lines() {
    std::array<char, 65536> bytes;
    std::string rest;
    for (ssize_t size = 0; (size = read(from_, bytes.data(), bytes.size())) > 0;) {
      rest.append(bytes.data(), static_cast<std::size_t>(size));
      for (std::size_t end = 0; (end = rest.find('\n')) != rest.npos; rest.erase(0, end + 1)) {
        const std::lock_guard lock(mutex_);
        lines_.push_back(rest.substr(0, end));
      }
    }
  }
  [[nodiscard]] std::optional<std::string> find(std::string_view begin) const {
    const std::lock_guard lock(mutex_);
    for (const std::string& line : lines_) {
      if (line.starts_with(begin)) return line;
    }
    return std::nullopt;
  }
  [[nodiscard]] bool has(const std::string& line) const {
    const std::lock_guard lock(mutex_);
    return std::find(lines_.begin(), lines_.end(), line) != lines_.end();
  }
  void await_line(const std::string& line) {
    support::await([&] { return has(line); }, line.c_str());
  }

  std::unique_ptr<child> process_;
  int to_ = -1;
  int from_ = -1;
  mutable std::mutex mutex_;
  std::vector<std::string> lines_;  // guarded by mutex_
  support::threads reader_;
};

/// The processes of a fleet.
class workers {
 public:
  workers(std::size_t n, int port, const worker::options& given = {}) {
    for (std::size_t i = 0; i < n; ++i) each_.push_back(std::make_unique<worker>(port, given));
  }
  worker& operator[](std::size_t i) { return *each_[i]; }
  [[nodiscard]] std::size_t size() const noexcept { return each_.size(); }

  /// Waits until so many callers wait for another process.
  void await_waiting(long n) {
    support::await(
        [&] {
          long all = 0;
          for (const auto& each : each_) all += each->stats()["waiting"];
          return all == n;
        },
        "the callers to wait");
  }

  /// A storm, and what came of it.
  struct outcome {
    long loads = 0;
    long herds = 0;                // of them those that began while no other of their key ran
    long overlaps = 0;             // loads of a key that ran at the same time, anywhere
    long overlaps_in_process = 0;  // the same, in one process
    long wrong = 0;                // values of another key
    long failed = 0;               // callers that got an exception that no loader threw
    long entries = 0;
    long slowest = 0;  // ms
  };
  std::string begin_storm(const std::string& words) {
    const std::string id = worker::next_id();
    for (const auto& each : each_) each->tell("storm " + id + " " + words);
    return id;
  }
  outcome end_storm(const std::string& id) {
    struct span {
      std::string key = {};
      std::int64_t begin = 0;
      std::int64_t end = 0;
      std::size_t process = 0;
    };
    outcome all;
    std::vector<span> spans;
    for (std::size_t i = 0; i < each_.size(); ++i) {
      auto figures = worker::figures(each_[i]->answer(id));
      all.wrong += figures["wrong"];
      all.failed += figures["failed"];
      all.entries += figures["entries"];
      all.slowest = std::max(all.slowest, figures["slowest"]);
      for (const std::string& line : each_[i]->lines()) {
        if (!line.starts_with("span " + id)) continue;
        std::istringstream words(line.substr(5));
        span one{.process = i};
        words >> one.key >> one.begin >> one.end;
        spans.push_back(one);
      }
    }
    all.loads = static_cast<long>(spans.size());
    std::sort(spans.begin(), spans.end(), [](const span& a, const span& b) {
      return std::pair(a.key, a.begin) < std::pair(b.key, b.begin);
    });
    std::int64_t until = 0;
    for (std::size_t i = 0; i < spans.size(); ++i) {
      if (i == 0 || spans[i].key != spans[i - 1].key || spans[i].begin >= until) {
        ++all.herds;
        until = 0;
      }
      until = std::max(until, spans[i].end);
      for (std::size_t j = i + 1; j < spans.size() && spans[j].key == spans[i].key; ++j) {
        if (spans[j].begin >= spans[i].end) continue;
        ++all.overlaps;
        if (spans[j].process == spans[i].process) ++all.overlaps_in_process;
      }
    }
    return all;
  }
  outcome storm(const std::string& words) { return end_storm(begin_storm(words)); }

 private:
  std::vector<std::unique_ptr<worker>> each_;
};

}  // namespace fleet_tests

#endif  // SINGLEFLIGHT_TESTS_FLEET_WORKERS_HPP
