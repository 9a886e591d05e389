// SPDX-License-Identifier: MIT
#ifndef STAMPEDE_CONNECTION_POOL_HPP
#define STAMPEDE_CONNECTION_POOL_HPP

#include <algorithm>
#include <condition_variable>
#include <cstddef>
#include <cstdint>
#include <list>
#include <mutex>
#include <string>
#include <vector>

#include "template_store.hpp"

namespace stampede {

struct pool_figures {
  std::uint64_t done = 0;  // queries that have ended
  std::size_t asked = 0;   // queries asked for now: on a connection, or waiting for one
  std::size_t peak = 0;    // the highest `asked`
};

/// The database as the application sees it: as many queries at once as there are connections; the
/// others wait until one is free.
class connection_pool {
 public:
  connection_pool(const std::string& path, std::size_t connections) {
    for (std::size_t i = 0; i < connections; ++i) free_.push_back(&all_.emplace_back(path));
  }

  template_details load(template_id id) {
    const lease leased(*this);
    return leased.connection->load(id);
  }

  [[nodiscard]] pool_figures figures() const {
    const std::lock_guard lock(mutex_);
    return figures_;
  }

  void reset_figures() {
    const std::lock_guard lock(mutex_);
    figures_ = {.asked = figures_.asked, .peak = figures_.asked};
  }

 private:
  /// Holds a connection, and gives it back on every path.
  struct lease {
    explicit lease(connection_pool& from) : pool(from), connection(from.take()) {}
    lease(const lease&) = delete;
    lease& operator=(const lease&) = delete;
    ~lease() { pool.give_back(connection); }

    connection_pool& pool;
    store_connection* const connection;
  };

  store_connection* take() {
    std::unique_lock lock(mutex_);
    figures_.peak = std::max(figures_.peak, ++figures_.asked);
    one_is_free_.wait(lock, [&] { return !free_.empty(); });
    store_connection* taken = free_.back();
    free_.pop_back();
    return taken;
  }

  void give_back(store_connection* connection) {
    {
      const std::lock_guard lock(mutex_);
      free_.push_back(connection);  // it has been as long before: this cannot fail
      --figures_.asked;
      ++figures_.done;
    }
    one_is_free_.notify_one();
  }

  mutable std::mutex mutex_;
  std::condition_variable one_is_free_;
  std::list<store_connection> all_;      // fixed after construction
  std::vector<store_connection*> free_;  // guarded by mutex_
  pool_figures figures_;                 // guarded by mutex_
};

}  // namespace stampede

#endif  // STAMPEDE_CONNECTION_POOL_HPP
