// SPDX-License-Identifier: MIT

// Sends requests at a fixed rate, whatever the answers do, as the users of a service do. A
// request's latency counts from the moment at which it was due, so that the wait for a connection
// is part of it.

#include <curl/curl.h>
#include <sys/timerfd.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <exception>
#include <functional>
#include <list>
#include <memory>
#include <random>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "../../common/zipf.hpp"

namespace outage {
namespace {

using clock = std::chrono::steady_clock;  // CLOCK_MONOTONIC, as in the process that starts this one
using seconds = std::chrono::duration<double>;

struct settings {
  std::vector<std::string> servers;
  double start = 0;
  double length = 10;
  double rate = 100;
  double skew = 1.6;
  std::size_t templates = 10'000;
  std::uint32_t seed = 20'130'429;
  long timeout_ms = 3000;
  long connections = 200;
  std::size_t herd = 0;
};

void check(CURLcode code) {
  if (code != CURLE_OK) throw std::runtime_error(curl_easy_strerror(code));
}

void check(CURLMcode code) {
  if (code != CURLM_OK) throw std::runtime_error(curl_multi_strerror(code));
}

/// A file descriptor that becomes readable at a given time: finer than the milliseconds of poll.
class alarm_clock {
 public:
  alarm_clock() : fd_(timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC)) {
    if (fd_ < 0) throw std::runtime_error("no timer");
  }
  alarm_clock(const alarm_clock&) = delete;
  alarm_clock& operator=(const alarm_clock&) = delete;
  ~alarm_clock() { close(fd_); }

  void set(clock::time_point when) const {
    const std::int64_t ns = std::chrono::nanoseconds(when.time_since_epoch()).count();
    const itimerspec at{.it_interval = {},
                        .it_value = {.tv_sec = ns / 1'000'000'000, .tv_nsec = ns % 1'000'000'000}};
    timerfd_settime(fd_, TFD_TIMER_ABSTIME, &at, nullptr);
  }

  [[nodiscard]] int fd() const noexcept { return fd_; }

 private:
  const int fd_;
};

/// A request. The object is used again for later ones.
struct request {
  struct cleanup {
    void operator()(CURL* handle) const noexcept { curl_easy_cleanup(handle); }
  };

  explicit request(long timeout_ms) : easy(curl_easy_init()) {
    if (easy == nullptr) throw std::runtime_error("out of memory");
    check(curl_easy_setopt(easy.get(), CURLOPT_PRIVATE, this));
    check(curl_easy_setopt(easy.get(), CURLOPT_NOSIGNAL, 1L));
    check(curl_easy_setopt(easy.get(), CURLOPT_TIMEOUT_MS, timeout_ms));
    check(curl_easy_setopt(easy.get(), CURLOPT_WRITEFUNCTION, discard));
  }

  static std::size_t discard(const char*, std::size_t size, std::size_t count, void*) {
    return size * count;
  }

  const std::unique_ptr<CURL, cleanup> easy;
  clock::time_point due;
};

/// All requests, driven by this one thread. Prints a line for each that has ended: when it was due,
/// the status (0: no answer), the latency.
class open_loop {
 public:
  explicit open_loop(const settings& chosen)
      : chosen_(chosen),
        start_(clock::time_point(std::chrono::nanoseconds(
            static_cast<std::int64_t>((chosen.start > 0 ? chosen.start : now()) * 1e9)))),
        multi_(curl_multi_init()),
        random_(chosen.seed),
        ids_(chosen.templates, chosen.skew),
        gap_(chosen.rate) {
    if (multi_ == nullptr) throw std::runtime_error("out of memory");
    check(curl_multi_setopt(multi_.get(), CURLMOPT_MAX_HOST_CONNECTIONS, chosen.connections));
  }

  void run() {
    const clock::time_point end =
        start_ + std::chrono::duration_cast<clock::duration>(seconds(chosen_.length));
    clock::time_point due = start_;
    while (due < end || running_ > 0) {
      for (; due < end && due <= clock::now(); due += next_gap()) arrive(due);
      if (due < end) alarm_.set(due);
      advance(due < end);
    }
  }

 private:
  struct cleanup {
    void operator()(CURLM* handle) const noexcept { curl_multi_cleanup(handle); }
  };

  static double now() { return seconds(clock::now().time_since_epoch()).count(); }

  clock::duration next_gap() {
    return std::chrono::duration_cast<clock::duration>(seconds(gap_(random_)));
  }

  /// A request for an id of the distribution, or a herd for the next id.
  void arrive(clock::time_point due) {
    if (chosen_.herd == 0) return send(due, ids_(random_));
    ++last_id_;
    for (std::size_t i = 0; i < chosen_.herd * chosen_.servers.size(); ++i) send(due, last_id_);
  }

  void send(clock::time_point due, std::uint32_t id) {
    if (free_.empty()) free_.push_back(&all_.emplace_back(chosen_.timeout_ms));
    request& next = *free_.back();
    free_.pop_back();
    next.due = due;
    const std::string& server = chosen_.servers[sent_++ % chosen_.servers.size()];  // in turn
    const std::string url = server + "/template-details?locale=de&id=" + std::to_string(id);
    check(curl_easy_setopt(next.easy.get(), CURLOPT_URL, url.c_str()));
    check(curl_multi_add_handle(multi_.get(), next.easy.get()));
    ++running_;
  }

  /// Moves all requests on, and waits until there is something to do.
  void advance(bool more_are_due) {
    int active = 0;
    check(curl_multi_perform(multi_.get(), &active));
    int left = 0;
    while (const CURLMsg* message = curl_multi_info_read(multi_.get(), &left)) finish(*message);
    curl_waitfd wake{.fd = alarm_.fd(), .events = CURL_WAIT_POLLIN, .revents = 0};
    check(curl_multi_poll(multi_.get(), &wake, more_are_due ? 1 : 0, 1000, nullptr));
  }

  void finish(const CURLMsg& message) {
    CURL* const handle = message.easy_handle;
    const CURLcode outcome = message.data.result;
    request* done = nullptr;
    check(curl_easy_getinfo(handle, CURLINFO_PRIVATE, &done));
    long status = 0;
    if (outcome == CURLE_OK) check(curl_easy_getinfo(handle, CURLINFO_RESPONSE_CODE, &status));
    check(curl_multi_remove_handle(multi_.get(), handle));
    std::printf("%.6f,%ld,%.3f\n", seconds(done->due - start_).count(), status,
                1000 * seconds(clock::now() - done->due).count());
    free_.push_back(done);
    --running_;
  }

  const settings& chosen_;
  const clock::time_point start_;
  const std::unique_ptr<CURLM, cleanup> multi_;
  alarm_clock alarm_;
  std::mt19937_64 random_;
  const examples::zipf_distribution ids_;
  std::exponential_distribution<double> gap_;
  std::list<request> all_;
  std::vector<request*> free_;
  std::size_t running_ = 0;
  std::size_t sent_ = 0;
  std::uint32_t last_id_ = 0;
};

void add_flags(CLI::App& app, settings& chosen) {
  app.add_option("--server", chosen.servers, "where to send requests; several take turns")
      ->required();
  app.add_option("--start", chosen.start, "on the monotonic clock, in seconds; 0: now");
  app.add_option("--length", chosen.length, "in seconds")->capture_default_str();
  app.add_option("--rate", chosen.rate, "requests a second on average")
      ->check(CLI::Range(0.1, 100'000.0))
      ->capture_default_str();
  app.add_option("--skew", chosen.skew, "exponent of the Zipf distribution")
      ->check(CLI::Range(0.0, 5.0))
      ->capture_default_str();
  app.add_option("--templates", chosen.templates, "ids are 1 to this")
      ->check(CLI::Range(1, 1'000'000))
      ->capture_default_str();
  app.add_option("--seed", chosen.seed)->capture_default_str();
  app.add_option("--timeout-ms", chosen.timeout_ms, "of a request")->capture_default_str();
  app.add_option("--connections", chosen.connections, "to each server; at most")
      ->capture_default_str();
  app.add_option("--herd", chosen.herd,
                 "ids in turn, each by so many requests to every server at once")
      ->capture_default_str();
}

}  // namespace
}  // namespace outage

// NOLINTNEXTLINE(bugprone-exception-escape): what escapes ends the program, as it must
int main(int argc, char** argv) {
  outage::settings chosen;
  CLI::App app("Sends requests for templates at a fixed rate, and says what became of each.");
  outage::add_flags(app, chosen);
  CLI11_PARSE(app, argc, argv);
  if (curl_global_init(CURL_GLOBAL_DEFAULT) != CURLE_OK) return 1;
  try {
    outage::open_loop(chosen).run();
    curl_global_cleanup();
    return 0;
  } catch (const std::exception& error) {
    std::fprintf(stderr, "open_loop: %s\n", error.what());
    return 1;
  }
}
