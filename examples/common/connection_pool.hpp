// SPDX-License-Identifier: MIT
#ifndef SINGLEFLIGHT_EXAMPLES_CONNECTION_POOL_HPP
#define SINGLEFLIGHT_EXAMPLES_CONNECTION_POOL_HPP

#include <algorithm>
#include <chrono>
#include <condition_variable>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <stdexcept>
#include <utility>
#include <vector>

namespace examples {

/// Thrown to a caller that has waited for a connection as long as the pool allows.
struct pool_exhausted : std::runtime_error {
  using std::runtime_error::runtime_error;
};

struct pool_stats {
  std::size_t in_use = 0;       // connections
  std::size_t waiting = 0;      // callers
  std::size_t peak = 0;         // the highest sum of these two
  std::uint64_t done = 0;       // uses that have ended
  std::uint64_t opened = 0;     // connections
  std::uint64_t exhausted = 0;  // callers that gave up their wait
};

/// At most `size` connections, opened when they are first needed and again when they have become
/// unusable. A caller that finds all of them in use waits for one, but no longer than `patience`.
template <class Connection>
class connection_pool {
 public:
  using connect_function = std::function<std::unique_ptr<Connection>()>;

  connection_pool(std::size_t size, std::chrono::milliseconds patience, connect_function connect)
      : size_(size), patience_(patience), connect_(std::move(connect)) {
    idle_.reserve(size);
  }

  /// Opens all connections. To be called before the pool is used.
  void open_all() {
    while (idle_.size() < size_) idle_.push_back(open());
  }

  /// Calls `work` with a connection, which is closed if that throws.
  /// Throws: `pool_exhausted`; what connecting and `work` throw.
  template <class Work>
  auto with_connection(const Work& work) {
    place taken(*this);
    if (taken.connection == nullptr || !taken.connection->usable()) taken.connection = open();
    auto result = work(*taken.connection);
    taken.sound = true;
    return result;
  }

  [[nodiscard]] pool_stats stats() const {
    const std::lock_guard lock(mutex_);
    return stats_;
  }

  /// Sets the counters to zero, and the peak to what is asked for now.
  void reset_stats() {
    const std::lock_guard lock(mutex_);
    stats_ = {
        .in_use = stats_.in_use, .waiting = stats_.waiting, .peak = stats_.in_use + stats_.waiting};
  }

 private:
  /// One of the `size` places, released on every path.
  struct place {
    explicit place(connection_pool& from) : pool(from), connection(from.take()) {}
    place(const place&) = delete;
    place& operator=(const place&) = delete;
    ~place() {
      if (!sound) connection.reset();
      pool.put_back(std::move(connection));
    }

    connection_pool& pool;
    std::unique_ptr<Connection> connection;  // null: not open yet
    bool sound = false;
  };

  std::unique_ptr<Connection> take() {
    std::unique_lock lock(mutex_);
    ++stats_.waiting;
    stats_.peak = std::max(stats_.peak, stats_.in_use + stats_.waiting);
    const bool has_place =
        one_is_free_.wait_for(lock, patience_, [&] { return stats_.in_use < size_; });
    --stats_.waiting;
    if (!has_place) {
      ++stats_.exhausted;
      throw pool_exhausted("every connection is in use");
    }
    ++stats_.in_use;
    if (idle_.empty()) return nullptr;
    std::unique_ptr<Connection> connection = std::move(idle_.back());
    idle_.pop_back();
    return connection;
  }

  std::unique_ptr<Connection> open() {
    std::unique_ptr<Connection> connection = connect_();
    const std::lock_guard lock(mutex_);
    ++stats_.opened;
    return connection;
  }

  void put_back(std::unique_ptr<Connection> connection) {
    {
      const std::lock_guard lock(mutex_);
      --stats_.in_use;
      ++stats_.done;
      if (connection != nullptr) idle_.push_back(std::move(connection));  // cannot throw: reserved
    }
    one_is_free_.notify_one();
  }

  const std::size_t size_;
  const std::chrono::milliseconds patience_;
  const connect_function connect_;
  mutable std::mutex mutex_;
  std::condition_variable one_is_free_;
  std::vector<std::unique_ptr<Connection>> idle_;  // guarded by mutex_
  pool_stats stats_;                               // guarded by mutex_
};

}  // namespace examples

#endif  // SINGLEFLIGHT_EXAMPLES_CONNECTION_POOL_HPP
