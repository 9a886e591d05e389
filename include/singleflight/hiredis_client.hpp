// SPDX-License-Identifier: MIT
#ifndef SINGLEFLIGHT_HIREDIS_CLIENT_HPP
#define SINGLEFLIGHT_HIREDIS_CLIENT_HPP

#include <fcntl.h>
#include <hiredis/hiredis.h>
#include <netdb.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/types.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <cerrno>
#include <chrono>
#include <condition_variable>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <functional>
#include <initializer_list>
#include <memory>
#include <mutex>
#include <optional>
#include <span>
#include <stdexcept>
#include <string>
#include <string_view>
#include <thread>
#include <utility>
#include <vector>

#include "fleet.hpp"
#include "redis_leases.hpp"

namespace singleflight::inline SINGLEFLIGHT_ABI {

/// Where Redis is, and how long a caller may be kept by it.
struct hiredis_options {
  /// The server's name or address.
  std::string host = "127.0.0.1";
  /// The server's port.
  int port = 6379;
  std::string unix_socket = {};  ///< Its path, in place of host and port.
  std::string user = {};         ///< For a server with access control lists.
  /// Sent by AUTH, unless it is empty.
  std::string password = {};
  /// The number of the database, chosen by SELECT.
  int database = 0;

  std::size_t connections = 16;  ///< At most, for commands.
  /// At most, for commands that block. Callers of `fleet` that find none free ask again and again.
  std::size_t wait_connections = 4;
  /// For a command and its reply, a new connection included; and before that, to wait for one of
  /// the connections to be free.
  std::chrono::milliseconds timeout{50};
  /// Between two attempts to reach a server that is away, at most. The first follows at once, then
  /// the pauses grow from 10 ms.
  std::chrono::milliseconds longest_pause{1000};

  /// Hears of each change: Redis does not answer, and why; or it does again. Called from a thread
  /// of the client's own, one call at a time. Must not throw.
  std::function<void(bool up, std::string_view why)> on_change = {};
};

/// What a client has done since it was made, and what it is doing now.
struct hiredis_stats {
  std::uint64_t opened = 0;     ///< Connections, those of the prober included.
  std::uint64_t exhausted = 0;  ///< Commands given up because every connection was in use.
  std::size_t in_use = 0;       ///< Connections that work, those that block not included.
  std::size_t waiting = 0;      ///< Commands that wait for a connection.
  /// Whether the server is taken to be reachable.
  bool up = true;
};

/// For adapters of other clients that are made on hiredis.
inline redis_reply to_redis_reply(const redisReply& from) {
  using kind = redis_reply::kind;
  switch (from.type) {
    case REDIS_REPLY_STRING:
    case REDIS_REPLY_STATUS:
      return {.what = kind::text, .text = std::string(from.str, from.len)};
    case REDIS_REPLY_ERROR:
      return {.what = kind::error, .text = std::string(from.str, from.len)};
    case REDIS_REPLY_INTEGER:
      return {.what = kind::number, .number = from.integer};
    case REDIS_REPLY_ARRAY: {
      redis_reply list{.what = kind::list};
      list.list.reserve(from.elements);
      for (std::size_t i = 0; i < from.elements; ++i) {
        list.list.push_back(to_redis_reply(*from.element[i]));
      }
      return list;
    }
    default:
      return {.what = kind::null};
  }
}

namespace detail {

using redis_clock = std::chrono::steady_clock;

/// Why there is no reply.
inline redis_reply no_reply(std::string_view why) { return {.text = std::string(why)}; }

/// One connection to Redis. Its socket never blocks: each command has a deadline of its own, which
/// a server that sends a byte now and then cannot put off.
class redis_connection {
 public:
  /// Returns: null, with `why` set, if the server could not be reached or let nobody in.
  static std::unique_ptr<redis_connection> open(const hiredis_options& options,
                                                const std::string& address, std::uint64_t epoch,
                                                redis_clock::time_point until, std::string& why) {
    std::unique_ptr<redis_connection> made(new redis_connection(options, address, epoch));
    if (!made->connected(until, why) || !made->introduced(options, until, why)) return nullptr;
    return made;
  }

  /// Sends a command and waits for its reply. Without one, the connection is of no more use.
  redis_reply command(std::span<const std::string_view> words, redis_clock::time_point until) {
    used_up_ = true;
    std::vector<const char*> texts;
    std::vector<std::size_t> lengths;
    for (const std::string_view word : words) {
      texts.push_back(word.data() != nullptr ? word.data() : "");
      lengths.push_back(word.size());
    }
    char* formatted = nullptr;
    const auto length = redisFormatCommandArgv(&formatted, static_cast<int>(words.size()),
                                               texts.data(), lengths.data());
    if (length < 0) return no_reply("out of memory");
    const std::unique_ptr<char, void (*)(char*)> bytes(formatted, redisFreeCommand);
    std::string why;
    if (!sent({formatted, static_cast<std::size_t>(length)}, until, why)) return no_reply(why);
    return received(until);
  }

  /// Returns: whether the last command got its reply, and nothing more.
  [[nodiscard]] bool sound() const noexcept { return !used_up_; }

  /// Returns: whether nothing has happened since. What a server sends unasked is that it has closed
  /// the connection.
  [[nodiscard]] bool quiet() const noexcept {
    pollfd events{.fd = socket(), .events = POLLIN, .revents = 0};
    return ::poll(&events, 1, 0) == 0;
  }

  [[nodiscard]] std::uint64_t epoch() const noexcept { return epoch_; }

 private:
  struct free_context {
    void operator()(redisContext* context) const noexcept { redisFree(context); }
  };
  struct free_reply {
    void operator()(redisReply* reply) const noexcept { freeReplyObject(reply); }
  };

  redis_connection(const hiredis_options& options, const std::string& address, std::uint64_t epoch)
      : context_(options.unix_socket.empty()
                     ? redisConnectNonBlock(address.c_str(), options.port)
                     : redisConnectUnixNonBlock(options.unix_socket.c_str())),
        epoch_(epoch) {}

  [[nodiscard]] int socket() const noexcept { return static_cast<int>(context_->fd); }

  bool connected(redis_clock::time_point until, std::string& why) {
    if (context_ == nullptr) return failed("out of memory", why);
    if (context_->err != 0) return failed(context_->errstr, why);
    ::fcntl(socket(), F_SETFD, FD_CLOEXEC);
    if (!ready(POLLOUT, until)) return failed("no connection in time", why);
    int error = 0;
    socklen_t size = sizeof error;
    if (::getsockopt(socket(), SOL_SOCKET, SO_ERROR, &error, &size) != 0) error = errno;
    if (error != 0) return failed(std::strerror(error), why);
    return true;
  }

  bool introduced(const hiredis_options& options, redis_clock::time_point until, std::string& why) {
    if (!options.password.empty()) {
      std::vector<std::string_view> auth{"AUTH", options.password};
      if (!options.user.empty()) auth.insert(auth.begin() + 1, options.user);
      if (!accepted(auth, until, why)) return false;
    }
    if (options.database == 0) return true;
    const std::string number = std::to_string(options.database);
    return accepted(std::array<std::string_view, 2>{"SELECT", number}, until, why);
  }

  bool accepted(std::span<const std::string_view> words, redis_clock::time_point until,
                std::string& why) {
    redis_reply reply = command(words, until);
    if (reply.what == redis_reply::kind::text) return true;
    return failed(reply.text, why);
  }

  static bool failed(std::string_view reason, std::string& why) {
    why = reason;
    return false;
  }

  /// Returns: whether the socket is ready, or broken, before the deadline.
  [[nodiscard]] bool ready(short events, redis_clock::time_point until) const noexcept {
    using std::chrono::milliseconds;
    for (;;) {
      const auto left = std::chrono::ceil<milliseconds>(until - redis_clock::now());
      const auto most = std::clamp(left, milliseconds(0), milliseconds(60'000));
      pollfd waited{.fd = socket(), .events = events, .revents = 0};
      const int found = ::poll(&waited, 1, static_cast<int>(most.count()));
      if (found > 0) return true;
      if (found < 0 && errno != EINTR) return false;
      if (redis_clock::now() >= until) return false;
    }
  }

  /// hiredis' own write would end a process that does not ignore SIGPIPE.
  bool sent(std::string_view bytes, redis_clock::time_point until, std::string& why) const {
    while (!bytes.empty()) {
      const ssize_t written = ::send(socket(), bytes.data(), bytes.size(), MSG_NOSIGNAL);
      if (written > 0) {
        bytes.remove_prefix(static_cast<std::size_t>(written));
      } else if (written < 0 && errno != EAGAIN && errno != EWOULDBLOCK && errno != EINTR) {
        return failed(std::strerror(errno), why);
      } else if (!ready(POLLOUT, until)) {
        return failed("no reply in time", why);
      }
    }
    return true;
  }

  redis_reply received(redis_clock::time_point until) {
    for (;;) {
      void* got = nullptr;
      if (redisGetReplyFromReader(context_.get(), &got) != REDIS_OK) break;
      if (got != nullptr) {
        const std::unique_ptr<redisReply, free_reply> reply(static_cast<redisReply*>(got));
        redis_reply converted = to_redis_reply(*reply);
        used_up_ = context_->reader->pos != context_->reader->len;
        return converted;
      }
      if (!ready(POLLIN, until)) return no_reply("no reply in time");
      if (redisBufferRead(context_.get()) != REDIS_OK) break;
    }
    return no_reply(context_->errstr);
  }

  std::unique_ptr<redisContext, free_context> context_;
  const std::uint64_t epoch_;
  bool used_up_ = false;
};

/// At most `size` connections, opened when they are needed. A connection belongs to an epoch; those
/// of earlier ones are closed.
class redis_pool {
 public:
  explicit redis_pool(std::size_t size) : size_(size) { idle_.reserve(size); }

  /// One of the places, given back on every path; a connection that was in trouble is closed.
  class place {
   public:
    place(redis_pool& from, std::chrono::milliseconds patience) : pool_(from) {
      taken_ = pool_.take(patience, connection);
    }
    place(const place&) = delete;
    place& operator=(const place&) = delete;
    ~place() {
      if (taken_) pool_.give_back(std::move(connection));
    }
    [[nodiscard]] explicit operator bool() const noexcept { return taken_; }

    std::unique_ptr<redis_connection> connection;  // null: to be opened

   private:
    redis_pool& pool_;
    bool taken_ = false;
  };

  /// Closes the connections that nobody uses, and those in use when they are given back.
  void renew() {
    std::vector<std::unique_ptr<redis_connection>> closed;
    closed.reserve(size_);
    const std::lock_guard lock(mutex_);
    ++epoch_;
    idle_.swap(closed);
  }

  [[nodiscard]] std::uint64_t epoch() const {
    const std::lock_guard lock(mutex_);
    return epoch_;
  }

  void add_to(hiredis_stats& stats) const {
    const std::lock_guard lock(mutex_);
    stats.exhausted += exhausted_;
    stats.in_use += in_use_;
    stats.waiting += waiting_;
  }

 private:
  bool take(std::chrono::milliseconds patience, std::unique_ptr<redis_connection>& connection) {
    std::unique_lock lock(mutex_);
    const auto is_free = [this] { return in_use_ < size_; };
    if (!is_free()) {
      ++waiting_;
      const bool freed = one_is_free_.wait_for(lock, patience, is_free);
      --waiting_;
      if (!freed) {
        ++exhausted_;
        return false;
      }
    }
    ++in_use_;
    if (!idle_.empty()) {
      connection = std::move(idle_.back());
      idle_.pop_back();
    }
    return true;
  }

  void give_back(std::unique_ptr<redis_connection> connection) noexcept {
    if (connection != nullptr && !connection->sound()) connection.reset();
    {
      const std::lock_guard lock(mutex_);
      --in_use_;
      if (connection != nullptr && connection->epoch() == epoch_) {
        idle_.push_back(std::move(connection));  // reserved: cannot fail
      }
    }
    one_is_free_.notify_one();
  }

  const std::size_t size_;
  mutable std::mutex mutex_;
  std::condition_variable one_is_free_;
  std::vector<std::unique_ptr<redis_connection>> idle_;  // all below guarded by mutex_
  std::uint64_t epoch_ = 0;
  std::uint64_t exhausted_ = 0;
  std::size_t in_use_ = 0;
  std::size_t waiting_ = 0;
};

/// What a client is in one process: its connections, and the prober, the thread that alone looks
/// for a server that is away.
class redis_link {
 public:
  explicit redis_link(const hiredis_options& options)
      : process(::getpid()),
        options_(options),
        commands_(options.connections),
        waits_(options.wait_connections),
        prober_([this] { probe_until_ended(); }) {
    // Callers that come at once find the server, if it answers in time.
    std::unique_lock lock(mutex_);
    changed_.wait_for(lock, options_.timeout, [this] { return probed_; });
  }
  redis_link(const redis_link&) = delete;
  redis_link& operator=(const redis_link&) = delete;
  ~redis_link() {
    {
      const std::lock_guard lock(mutex_);
      ending_ = true;
    }
    changed_.notify_all();
    prober_.join();
  }

  redis_reply execute(std::span<const std::string_view> command) {
    std::optional<redis_reply> reply = execute(commands_, options_.timeout, command, {});
    return reply ? *std::move(reply) : no_reply("every connection is in use");
  }

  std::optional<redis_reply> execute_blocking(std::span<const std::string_view> command,
                                              std::chrono::milliseconds block) {
    constexpr std::chrono::milliseconds late(100);  // a server that is idle looks only that often
    return execute(waits_, std::chrono::milliseconds(0), command, block + late);
  }

  [[nodiscard]] bool up() const noexcept { return !is_open(period_); }

  [[nodiscard]] hiredis_stats stats() const {
    hiredis_stats now{.opened = opened_, .up = up()};
    commands_.add_to(now);
    return now;
  }

  const pid_t process;

 private:
  /// The time between two changes of state. While it is odd, the server is left alone.
  using period = std::uint64_t;
  static bool is_open(period at) noexcept { return at % 2 == 1; }

  /// Returns: nothing if no connection is free.
  std::optional<redis_reply> execute(redis_pool& pool, std::chrono::milliseconds patience,
                                     std::span<const std::string_view> command,
                                     std::chrono::milliseconds extra) {
    if (!up()) return no_reply("the server is away");
    redis_pool::place place(pool, patience);
    if (!place) return std::nullopt;
    const period began = period_;  // it may have gone while this caller waited for a place
    if (is_open(began)) return no_reply("the server is away");
    const auto until = redis_clock::now() + options_.timeout;
    if (place.connection == nullptr || !place.connection->quiet()) {
      std::string why;
      place.connection = open(pool.epoch(), until, why);
      if (place.connection == nullptr) {
        trip(began, why);
        return no_reply(why);
      }
    }
    redis_reply reply = place.connection->command(command, until + extra);
    if (reply.what == redis_reply::kind::none) trip(began, reply.text);
    if (reply.what == redis_reply::kind::error && is_of_a_replica(reply.text))
      look_for_the_master();
    return reply;
  }

  std::unique_ptr<redis_connection> open(std::uint64_t epoch, redis_clock::time_point until,
                                         std::string& why) {
    ++opened_;
    return redis_connection::open(options_, address(), epoch, until, why);
  }

  [[nodiscard]] std::string address() const {
    const std::lock_guard lock(mutex_);
    return address_;
  }

  static bool is_of_a_replica(std::string_view error) noexcept {
    return error.starts_with("READONLY") || error.starts_with("MASTERDOWN");
  }

  /// Leaves the server alone, unless the failed command began before it was last seen well.
  void trip(period began, const std::string& why) {
    {
      const std::lock_guard lock(mutex_);
      if (period_ != began) return;
      why_ = why;
      ++period_;
    }
    changed_.notify_all();
    commands_.renew();
    waits_.renew();
  }

  /// The name may stand for another server by now. The prober resolves it again, not too often, and
  /// then all connections are replaced.
  void look_for_the_master() {
    {
      const std::lock_guard lock(mutex_);
      moved_ = true;
    }
    changed_.notify_all();
  }

  void probe_until_ended() {
    using std::chrono::milliseconds;
    std::unique_lock lock(mutex_);
    milliseconds pause(0);
    redis_clock::time_point up_since;
    redis_clock::time_point looked;
    bool said = false;  // that the server is away
    for (;;) {
      changed_.wait(lock, [&] { return ending_ || is_open(period_) || moved_; });
      if (ending_) return;
      if (is_open(period_)) {
        if (probed_ && !std::exchange(said, true)) {
          // A server that comes and goes is not asked at the rate of its failures.
          if (redis_clock::now() - up_since > options_.longest_pause) pause = milliseconds(0);
          tell(lock, false);
        }
        if (changed_.wait_for(lock, pause * random_between(0.5, 1), [&] { return ending_; }))
          return;
      } else {
        const auto earliest = looked + options_.longest_pause;
        changed_.wait_until(lock, earliest, [&] { return ending_ || is_open(period_); });
        if (ending_) return;
        if (is_open(period_)) continue;
      }
      moved_ = false;
      lock.unlock();
      std::string why;
      const std::optional<std::string> found = answering_address(why);
      lock.lock();
      looked = redis_clock::now();
      if (found) address_ = *found;
      if (is_open(period_)) {
        pause = std::clamp(pause * 2, milliseconds(10), options_.longest_pause);
        if (found) {
          if (std::exchange(said, false)) tell(lock, true);
          up_since = looked;
          ++period_;
        } else {
          why_ = why;
        }
        probed_ = true;
        changed_.notify_all();
      } else if (found) {
        lock.unlock();
        commands_.renew();
        waits_.renew();
        lock.lock();
      }
    }
  }

  void tell(std::unique_lock<std::mutex>& lock, bool is_up) {
    if (!options_.on_change) return;
    const std::string why = is_up ? std::string() : why_;
    lock.unlock();
    options_.on_change(is_up, why);
    lock.lock();
  }

  /// Returns: nothing, with `why` set, if no address of the host answers.
  std::optional<std::string> answering_address(std::string& why) {
    for (const std::string& candidate : addresses(why)) {
      const auto until = redis_clock::now() + options_.timeout;
      ++opened_;
      const auto connection = redis_connection::open(options_, candidate, 0, until, why);
      if (connection == nullptr) continue;
      const std::array<std::string_view, 1> ping{"PING"};
      redis_reply reply = connection->command(ping, until);
      // A user without permission for PING has been let in all the same.
      if (reply.what == redis_reply::kind::text || reply.text.starts_with("NOPERM"))
        return candidate;
      why = std::move(reply.text);
    }
    return std::nullopt;
  }

  /// May take long where names are not resolved, which is why nobody but the prober does it.
  std::vector<std::string> addresses(std::string& why) const {
    if (!options_.unix_socket.empty()) return {options_.unix_socket};
    addrinfo hints{};
    hints.ai_socktype = SOCK_STREAM;
    addrinfo* found = nullptr;
    if (const int error = ::getaddrinfo(options_.host.c_str(), nullptr, &hints, &found);
        error != 0) {
      why = ::gai_strerror(error);
      return {};
    }
    const std::unique_ptr<addrinfo, void (*)(addrinfo*)> owner(found, ::freeaddrinfo);
    std::vector<std::string> texts;
    for (const addrinfo* each = found; each != nullptr; each = each->ai_next) {
      std::array<char, NI_MAXHOST> text{};
      if (::getnameinfo(each->ai_addr, each->ai_addrlen, text.data(), text.size(), nullptr, 0,
                        NI_NUMERICHOST) == 0) {
        texts.emplace_back(text.data());
      }
    }
    return texts;
  }

  const hiredis_options options_;
  redis_pool commands_;
  redis_pool waits_;
  std::atomic<std::uint64_t> opened_ = 0;
  mutable std::mutex mutex_;
  std::condition_variable changed_;
  std::atomic<period> period_ = 1;  // written under mutex_
  std::string address_;             // all below guarded by mutex_
  std::string why_;                 // it was last found to be away
  bool probed_ = false;             // the prober has looked once
  bool moved_ = false;              // a server has said that it is not the master
  bool ending_ = false;
  std::thread prober_;  // the last member: it uses the others
};

}  // namespace detail

/// A client of Redis on hiredis 0.14 or newer, for `redis_leases` and for the service's own
/// commands:
///
///     singleflight::hiredis_client redis({.host = "cache", .on_change = log_it});
///     auto reply = redis.execute({"GET", key});
///
/// What it makes of trouble:
///   * Each command has a deadline, also with a server that sends a byte now and then. A connection
///     whose reply did not come in time is closed, never used again.
///   * After one failure no command is sent until the server is back: they all return at once that
///     it is away. One thread alone looks for it, with growing pauses. So one caller pays for a
///     server that hangs, and once.
///   * Commands that block have connections of their own, so that they keep nobody else waiting.
///   * A server that says READONLY or MASTERDOWN may have been demoted: its name is resolved again,
///     at most once in `longest_pause`, and all connections are replaced.
///   * After `fork` the child makes connections of its own. Make clients after forking where you
///     can: the child keeps the parent's sockets open until it ends, and a fork while another
///     thread uses the client is safe only if the child calls `exec`.
///
/// It speaks RESP2 without TLS, to one server: `MOVED` of Redis Cluster is an error reply like
/// others.
///
/// Thread safety: all members may be called at once from any thread, except the destructor.
/// Blocks: `execute` for at most twice `timeout`, the constructor once. Names are resolved by
/// another thread; the destructor waits for that.
class hiredis_client {
 public:
  /// Does not fail if the server is away.
  /// Throws: `std::invalid_argument` if the options make no sense, `std::system_error` if there is
  ///   no thread.
  explicit hiredis_client(hiredis_options options)
      : options_(checked(std::move(options))), link_(new detail::redis_link(options_)) {}

  hiredis_client(const hiredis_client&) = delete;
  hiredis_client& operator=(const hiredis_client&) = delete;
  ~hiredis_client() {
    const detail::redis_link* const last = link_;
    if (last->process == ::getpid()) delete last;  // else its threads are the parent's
  }

  /// Sends a command. Throws: `std::bad_alloc`.
  redis_reply execute(std::span<const std::string_view> command) { return link().execute(command); }
  /// Executes a command as above.
  redis_reply execute(std::initializer_list<std::string_view> command) {
    return link().execute({command.begin(), command.size()});
  }

  /// Sends a command that Redis may answer only after `time`. Throws: `std::bad_alloc`.
  /// Returns: nothing, at once, if no connection for such commands is free.
  std::optional<redis_reply> execute_blocking(std::span<const std::string_view> command,
                                              std::chrono::milliseconds time) {
    return link().execute_blocking(command, time);
  }

  /// Returns: whether commands are sent.
  [[nodiscard]] bool up() const noexcept { return link_.load()->up(); }

  /// Returns: the counters and gauges.
  [[nodiscard]] hiredis_stats stats() const { return link_.load()->stats(); }

 private:
  static hiredis_options checked(hiredis_options options) {
    using namespace std::chrono_literals;
    if (options.unix_socket.empty() && (options.port < 1 || options.port > 65'535)) {
      throw std::invalid_argument("singleflight: hiredis_options::port must be 1 to 65535");
    }
    if (!options.user.empty() && options.password.empty()) {
      throw std::invalid_argument("singleflight: hiredis_options::user needs a password");
    }
    if (options.connections < 1) {
      throw std::invalid_argument("singleflight: hiredis_options::connections must be at least 1");
    }
    if (options.timeout < 1ms || options.timeout > 1min) {
      throw std::invalid_argument(
          "singleflight: hiredis_options::timeout must be 1 ms to 1 minute");
    }
    if (options.longest_pause < 10ms || options.longest_pause > 1min) {
      throw std::invalid_argument(
          "singleflight: hiredis_options::longest_pause must be 10 ms to 1 minute");
    }
    return options;
  }

  /// This process's link. In a child of `fork` a new one: threads do not survive it.
  detail::redis_link& link() {
    detail::redis_link* now = link_.load(std::memory_order_acquire);
    const pid_t process = ::getpid();
    if (now->process == process) return *now;
    auto made = std::make_unique<detail::redis_link>(options_);
    if (link_.compare_exchange_strong(now, made.get())) return *made.release();
    return *now;  // another thread of this process has made one
  }

  const hiredis_options options_;
  std::atomic<detail::redis_link*> link_;
};

}  // namespace singleflight::inline SINGLEFLIGHT_ABI

#endif  // SINGLEFLIGHT_HIREDIS_CLIENT_HPP
