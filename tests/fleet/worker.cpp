// SPDX-License-Identifier: MIT
// A process of a fleet, for tests: it obeys lines on its standard input, and says on its standard
// output what happens. workers.hpp is the other end.
//
//   load <id> <key> <lifetime> <how>  how: value (the loader returns at once), throw, hold (it
//                                     waits for `end` or `fail`), or a key, which the loader loads
//                                     after an `end`
//   end <id> <value>, fail <id>       for a loader that waits
//   find <id> <key>                   a GET
//   invalidate <id> <key>
//   stats <id>, refusals <id>
//   meet <id> <key> <time> <microseconds> <lifetime>
//                                     a load at that time, by a clock that all share
//   storm <id> <threads> <keys> <loads> <microseconds> <lifetime> <failing %>
//
// It says `loading <id>` when a loader runs, `value <id> <value>` or `error <id> <what>` when a
// load has ended, `done <id> …` for the others.

#include <unistd.h>

#include <array>
#include <atomic>
#include <chrono>
#include <cstdint>
#include <future>
#include <iostream>
#include <map>
#include <mutex>
#include <random>
#include <singleflight/fleet.hpp>
#include <singleflight/group.hpp>
#include <singleflight/hiredis_client.hpp>
#include <singleflight/redis_leases.hpp>
#include <sstream>
#include <stdexcept>
#include <string>
#include <string_view>
#include <thread>
#include <vector>

namespace {

using clock = std::chrono::steady_clock;
using std::chrono::milliseconds;

struct loader_failed : std::runtime_error {
  loader_failed() : std::runtime_error("the loader failed") {}
};

class worker {
 public:
  explicit worker(const std::map<std::string, std::string>& given) : given_(given) {}
  worker(const worker&) = delete;
  worker& operator=(const worker&) = delete;
  ~worker() {
    for (std::thread& thread : threads_) thread.join();
  }

  void obey(const std::string& line) {
    std::istringstream words(line);
    std::string verb;
    std::string id;
    std::string key;
    words >> verb >> id;
    if (verb == "load") {
      long lifetime = 0;
      std::string how;
      words >> key >> lifetime >> how;
      {
        const std::lock_guard lock(mutex_);
        held_.try_emplace(id);
      }
      threads_.emplace_back([this, id, key, lifetime, how] { load(id, key, lifetime, how); });
    } else if (verb == "end") {
      std::string value;
      words >> value;
      held(id).set_value(value);
    } else if (verb == "fail") {
      held(id).set_exception(std::make_exception_ptr(loader_failed()));
    } else if (verb == "find") {
      words >> key;
      const auto reply = client_.execute({"GET", key});
      say("done " + id + " " +
          (reply.what == singleflight::redis_reply::kind::text   ? reply.text
           : reply.what == singleflight::redis_reply::kind::none ? "(away)"
                                                                 : "(none)"));
    } else if (verb == "invalidate") {
      words >> key;
      say("done " + id + (fleet_.invalidate(key) ? " yes" : " no"));
    } else if (verb == "stats") {
      say("done " + id + " " + stats());
    } else if (verb == "refusals") {
      std::string all;
      for (const auto& [name, times] : leases_.refusals()) all += " " + name;
      say("done " + id + all);
    } else if (verb == "meet") {
      threads_.emplace_back([this, line] { meet(line); });
    } else if (verb == "storm") {
      threads_.emplace_back([this, line] { storm(line); });
    }
  }

 private:
  [[nodiscard]] long option(const std::string& name, long otherwise) const {
    const auto found = given_.find(name);
    return found == given_.end() ? otherwise : std::stol(found->second);
  }

  void say(const std::string& line) {
    const std::lock_guard lock(saying_);
    std::cout << line << std::endl;
  }

  std::promise<std::string>& held(const std::string& id) {
    const std::lock_guard lock(mutex_);
    return held_.at(id);
  }

  void load(const std::string& id, const std::string& key, long lifetime, const std::string& how) {
    try {
      const std::string value = flights_.do_call(key, [&] {
        return load_shared(key, milliseconds(lifetime), [&]() -> std::string {
          say("loading " + id);
          if (how == "value") return "value-of-" + id;
          if (how == "throw") throw loader_failed();
          std::string told = held(id).get_future().get();
          if (how == "hold") return told;
          return "with-" + flights_
                               .do_call(how,
                                        [&] {
                                          return fleet_.load(how, milliseconds(lifetime), [&] {
                                            say("loading " + id + "-inner");
                                            return "inner-of-" + id;
                                          });
                                        })
                               .value();
        });
      });
      say("value " + id + " " + value);
    } catch (const std::exception& error) {
      say("error " + id + " " + error.what());
    }
  }

  [[nodiscard]] std::string stats() const {
    const auto now = fleet_.stats();
    std::ostringstream text;
    text << "hits " << now.hits << " led " << now.led << " followed " << now.followed
         << " handed_over " << now.handed_over << " taken_over " << now.taken_over << " alone "
         << now.alone << " refused " << now.refused << " unreachable " << now.unreachable
         << " lost_fills " << now.lost_fills << " waiting " << now.waiting << " entries "
         << now.entries() << " changes " << changes_ << " opened " << client_.stats().opened;
    return text.str();
  }

  /// Shares the load with the other processes; with the option `fleet 0` it looks again and loads.
  template <class Fn>
  std::string load_shared(const std::string& key, milliseconds lifetime, const Fn& fn) {
    if (option("fleet", 1) != 0) return fleet_.load(key, lifetime, fn);
    const auto hit = client_.execute({"GET", key});
    if (hit.what == singleflight::redis_reply::kind::text) return hit.text;
    std::string value = fn();
    const std::string ms = std::to_string(lifetime.count());
    if (lifetime > milliseconds(0)) (void)client_.execute({"SET", key, value, "PX", ms});
    return value;
  }

  /// Says when the loader ended, if it ran, and when the load returned.
  void meet(const std::string& line) {
    std::istringstream words(line);
    std::string verb;
    std::string id;
    std::string key;
    std::int64_t at = 0;
    long microseconds = 0;
    long lifetime = 0;
    words >> verb >> id >> key >> at >> microseconds >> lifetime;
    std::this_thread::sleep_until(clock::time_point(std::chrono::nanoseconds(at)));
    std::int64_t ended = 0;
    const std::string value = load_shared(key, milliseconds(lifetime), [&] {
      std::this_thread::sleep_for(std::chrono::microseconds(microseconds));
      ended = clock::now().time_since_epoch().count();
      return key;
    });
    const auto back = clock::now().time_since_epoch().count();
    say("done " + id + " loaded " + std::to_string(ended) + " back " + std::to_string(back));
  }

  /// Many threads want the same few keys, whose values live shortly. Says when each loader began
  /// and ended, by a clock that all processes share.
  void storm(const std::string& line) {
    std::istringstream words(line);
    std::string verb;
    std::string id;
    unsigned threads = 0;
    unsigned keys = 0;
    long loads = 0;
    long microseconds = 0;
    long lifetime = 0;
    unsigned failing = 0;
    words >> verb >> id >> threads >> keys >> loads >> microseconds >> lifetime >> failing;
    std::atomic<long> left = loads;
    std::atomic<long> wrong = 0;
    std::atomic<long> failed = 0;
    std::atomic<long> entries = 0;
    std::atomic<long> slowest = 0;
    std::vector<std::thread> crowd;
    for (unsigned t = 0; t < threads; ++t) {
      crowd.emplace_back([&, t] {
        std::minstd_rand random(t + static_cast<unsigned>(::getpid()) * 100);
        while (left-- > 0) {
          const std::string key = id + "/" + std::to_string(random() % keys);
          const auto begin = clock::now();
          try {
            const auto hit = client_.execute({"GET", key});
            std::string value = hit.text;
            if (hit.what != singleflight::redis_reply::kind::text) {
              value = flights_.do_call(key, [&] {
                ++entries;
                return load_shared(key, milliseconds(lifetime), [&] {
                  const auto from = clock::now();
                  std::this_thread::sleep_for(std::chrono::microseconds(microseconds));
                  const bool fails = random() % 100 < failing;
                  say("span " + key + " " + std::to_string(from.time_since_epoch().count()) + " " +
                      std::to_string(clock::now().time_since_epoch().count()));
                  if (fails) throw loader_failed();
                  return key + "=" + std::to_string(::getpid());
                });
              });
            }
            if (!value.starts_with(key + "=")) ++wrong;
          } catch (const loader_failed&) {  // which is its own, or of a caller in this process
          } catch (const std::exception& error) {
            ++failed;
            say("failure " + std::string(error.what()));
          }
          const auto took = std::chrono::duration_cast<milliseconds>(clock::now() - begin).count();
          long before = slowest;
          while (took > before && !slowest.compare_exchange_weak(before, took)) {
          }
        }
      });
    }
    for (std::thread& thread : crowd) thread.join();
    say("done " + id + " wrong " + std::to_string(wrong) + " failed " + std::to_string(failed) +
        " entries " + std::to_string(entries) + " slowest " + std::to_string(slowest));
  }

  const std::map<std::string, std::string> given_;
  std::atomic<int> changes_ = 0;
  singleflight::hiredis_client client_{
      {.port = static_cast<int>(option("port", 6379)),
       .connections = static_cast<std::size_t>(option("connections", 16)),
       .wait_connections = static_cast<std::size_t>(option("wait_connections", 4)),
       .timeout = milliseconds(option("timeout", 5000)),
       .longest_pause = milliseconds(option("longest_pause", 50)),
       .on_change = [this](bool, std::string_view) { ++changes_; }}};
  singleflight::redis_leases<singleflight::hiredis_client> leases_{client_};
  singleflight::fleet<std::string, singleflight::redis_leases<singleflight::hiredis_client>> fleet_{
      leases_,
      {.lease = milliseconds(option("lease", 60'000)),
       .max_wait = milliseconds(option("max_wait", 60'000)),
       .attempts = static_cast<std::size_t>(option("attempts", 1000))}};
  singleflight::group<std::string, std::string> flights_;
  std::mutex saying_;
  std::mutex mutex_;
  std::map<std::string, std::promise<std::string>> held_;  // guarded by mutex_
  std::vector<std::thread> threads_;
};

}  // namespace

/// Options are pairs of words: port 6379 lease 100.
// NOLINTNEXTLINE(bugprone-exception-escape): what escapes ends the program, as it must
int main(int argc, char** argv) {
  std::map<std::string, std::string> given;
  for (int i = 1; i + 1 < argc; i += 2) given[argv[i]] = argv[i + 1];
  worker process(given);
  std::cout << "ready" << std::endl;
  std::string line;
  while (std::getline(std::cin, line)) process.obey(line);
}
