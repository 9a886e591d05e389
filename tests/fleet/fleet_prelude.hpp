// SPDX-License-Identifier: MIT
// What the code of docs/fleet.md takes for granted: somebody's database.
#ifndef SINGLEFLIGHT_TESTS_FLEET_FLEET_PRELUDE_HPP
#define SINGLEFLIGHT_TESTS_FLEET_FLEET_PRELUDE_HPP

#include <atomic>
#include <chrono>
#include <map>
#include <mutex>
#include <singleflight/fleet.hpp>
#include <singleflight/group.hpp>
#include <singleflight/hiredis_client.hpp>
#include <singleflight/redis_leases.hpp>
#include <string>
#include <utility>

namespace fleet_guide {

using namespace std::chrono_literals;

class database {
 public:
  std::atomic<int> loads = 0;

  std::string load(const std::string& id) {
    ++loads;
    const std::lock_guard lock(mutex_);
    return rows_[id];
  }
  void store(const std::string& id, const std::string& text) {
    const std::lock_guard lock(mutex_);
    rows_[id] = text;
  }

 private:
  std::mutex mutex_;
  std::map<std::string, std::string> rows_;  // guarded by mutex_
};
inline database db;

}  // namespace fleet_guide

#endif  // SINGLEFLIGHT_TESTS_FLEET_FLEET_PRELUDE_HPP
