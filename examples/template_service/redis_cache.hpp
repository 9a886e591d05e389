// SPDX-License-Identifier: MIT
#ifndef TEMPLATE_SERVICE_REDIS_CACHE_HPP
#define TEMPLATE_SERVICE_REDIS_CACHE_HPP

#include <hiredis/hiredis.h>
#include <sys/time.h>

#include <atomic>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <stdexcept>
#include <string>
#include <utility>

#include "../common/connection_pool.hpp"
#include "cache.hpp"
#include "circuit_breaker.hpp"
#include "quiet_socket.hpp"
#include "settings.hpp"
#include "template.hpp"

namespace template_service {

struct redis_error : std::runtime_error {
  using std::runtime_error::runtime_error;
};

class redis_connection {
 public:
  explicit redis_connection(const redis_settings& server) {
    const auto us = std::chrono::microseconds(server.timeout).count();
    const timeval timeout{.tv_sec = us / 1'000'000, .tv_usec = us % 1'000'000};
    context_.reset(redisConnectWithTimeout(server.host.c_str(), server.port, timeout));
    if (context_ == nullptr) throw redis_error("out of memory");
    if (context_->err != 0) throw redis_error(context_->errstr);
    if (redisSetTimeout(context_.get(), timeout) != REDIS_OK) throw redis_error(context_->errstr);
  }

  [[nodiscard]] bool usable() const noexcept { return is_quiet(context_->fd); }

  details_json get(const std::string& key) {
    const reply got = command("GET %b", key.data(), key.size());
    if (got->type != REDIS_REPLY_STRING) return nullptr;
    return std::make_shared<const std::string>(got->str, got->len);
  }

  void set(const std::string& key, const std::string& value, std::chrono::milliseconds lifetime) {
    const auto ms = static_cast<long long>(lifetime.count());
    command("SET %b %b PX %lld", key.data(), key.size(), value.data(), value.size(), ms);
  }

  void ping() { command("PING"); }

 private:
  struct free_reply {
    void operator()(redisReply* reply) const noexcept { freeReplyObject(reply); }
  };
  struct free_context {
    void operator()(redisContext* context) const noexcept { redisFree(context); }
  };
  using reply = std::unique_ptr<redisReply, free_reply>;

  template <class... Arguments>
  reply command(const char* format, Arguments... arguments) {
    reply got(static_cast<redisReply*>(redisCommand(context_.get(), format, arguments...)));
    if (got == nullptr) throw redis_error(context_->errstr);
    if (got->type == REDIS_REPLY_ERROR) throw redis_error(std::string(got->str, got->len));
    return got;
  }

  std::unique_ptr<redisContext, free_context> context_;
};

/// A cache that all processes share. Redis has little time to answer, and after one failure no
/// request asks it until it is back: threads that wait for a dead cache could do other work.
class redis_cache final : public cache {
 public:
  explicit redis_cache(const redis_settings& server)
      : pool_(server.connections, server.timeout,
              [this, server] {
                // Redis may have gone down while this caller waited for a connection.
                if (breaker_.open()) throw redis_error("down");
                return std::make_unique<redis_connection>(server);
              }),
        breaker_(
            "cache", [server] { redis_connection(server).ping(); }, server.probe_interval) {}

  details_json find(const template_key& key) override {
    details_json found;
    const bool answered =
        attempt([&](redis_connection& redis) { found = redis.get(name_of(key)); });
    if (answered) return counted(std::move(found));
    ++unavailable_;
    return nullptr;
  }

  void put(const template_key& key, const details_json& details,
           std::chrono::milliseconds lifetime) override {
    attempt([&](redis_connection& redis) { redis.set(name_of(key), *details, lifetime); });
  }

  [[nodiscard]] cache_stats stats() const override {
    cache_stats all = cache::stats();
    all.unavailable = unavailable_;
    all.up = !breaker_.open();
    return all;
  }

  [[nodiscard]] examples::pool_stats connections() const { return pool_.stats(); }

 private:
  static std::string name_of(const template_key& key) {
    return "template-details:" + std::to_string(key.id) + ':' + name(key.language);
  }

  /// Returns: whether Redis answered.
  template <class Work>
  bool attempt(const Work& work) {
    const std::optional<circuit_breaker::period> began = breaker_.admit();
    if (!began) return false;
    try {
      return pool_.with_connection([&](redis_connection& redis) {
        work(redis);
        return true;
      });
    } catch (const redis_error& error) {
      if (breaker_.trip(*began, error.what())) pool_.close_idle();
    } catch (const examples::pool_exhausted&) {
      // Too many callers, or Redis hangs: then the callers that have a connection trip the breaker.
    }
    return false;
  }

  examples::connection_pool<redis_connection> pool_;
  std::atomic<std::uint64_t> unavailable_ = 0;
  circuit_breaker breaker_;
};

}  // namespace template_service

#endif  // TEMPLATE_SERVICE_REDIS_CACHE_HPP
