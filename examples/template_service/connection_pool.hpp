// SPDX-License-Identifier: MIT
#ifndef TEMPLATE_SERVICE_CONNECTION_POOL_HPP
#define TEMPLATE_SERVICE_CONNECTION_POOL_HPP

#include <poll.h>

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

namespace template_service {

/// All connections of a pool have been in use for as long as a caller may wait for one.
struct pool_exhausted : std::runtime_error {
  using std::runtime_error::runtime_error;
};

struct pool_stats {
  std::size_t in_use = 0;
  std::size_t waiting = 0;
  std::uint64_t opened = 0;     // connections
  std::uint64_t exhausted = 0;  // callers that waited in vain
};

/// Returns: whether nothing has happened on an idle connection. What a server sends unasked is that it
/// has closed it.
inline bool is_quiet(int socket) noexcept {
  pollfd events{.fd = socket, .events = POLLIN, .revents = 0};
  return poll(&events, 1, 0) == 0;
}

/// At most `size` connections, opened when they are first needed and again when they have become
/// unusable. Whoever finds all of them in use waits for one, but no longer than `patience`: an endless
/// queue helps nobody.
template <class Connection>
class connection_pool {
 public:
  using connect_function = std::function<std::unique_ptr<Connection>()>;

  connection_pool(std::size_t size, std::chrono::milliseconds patience, connect_function connect)
      : size_(size), patience_(patience), connect_(std::move(connect)) {
    idle_.reserve(size);
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

 private:
  /// One of the `size` places, given back on every path.
  struct place {
    explicit place(connection_pool& from) : pool(from), connection(from.take()) {}
    place(const place&) = delete;
    place& operator=(const place&) = delete;
    ~place() {
      if (!sound) connection.reset();
      pool.give_back(std::move(connection));
    }

    connection_pool& pool;
    std::unique_ptr<Connection> connection;  // null: to be opened
    bool sound = false;
  };

  std::unique_ptr<Connection> take() {
    std::unique_lock lock(mutex_);
    ++stats_.waiting;
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

  void give_back(std::unique_ptr<Connection> connection) {
    {
      const std::lock_guard lock(mutex_);
      --stats_.in_use;
      if (connection != nullptr) idle_.push_back(std::move(connection));  // reserved: cannot fail
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

}  // namespace template_service

#endif  // TEMPLATE_SERVICE_CONNECTION_POOL_HPP
