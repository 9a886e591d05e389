// SPDX-License-Identifier: MIT
#ifndef TEMPLATE_SERVICE_REDIS_CACHE_HPP
#define TEMPLATE_SERVICE_REDIS_CACHE_HPP

#include <atomic>
#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <singleflight/fleet.hpp>
#include <singleflight/hiredis_client.hpp>
#include <singleflight/redis_leases.hpp>
#include <stdexcept>
#include <string>
#include <string_view>
#include <utility>

#include "cache.hpp"
#include "log.hpp"
#include "settings.hpp"
#include "template.hpp"

namespace template_service {

/// An answer as bytes: none, where there is no such template.
struct details_codec {
  static std::string_view encode(const details_json& details) noexcept {
    return details == nullptr ? std::string_view() : *details;
  }
  static details_json decode(std::string&& bytes) {
    return bytes.empty() ? nullptr : std::make_shared<const std::string>(std::move(bytes));
  }
};

struct cache_unavailable : std::runtime_error {
  cache_unavailable() : std::runtime_error("the cache does not answer") {}
};

/// A cache that all processes share, and by which one of them loads what several want. Redis is
/// given little time to answer, and after one failure it is left alone until it is back.
class redis_cache final : public cache {
 public:
  explicit redis_cache(const redis_settings& how)
      : with_fleet_(how.fleet),
        redis_({.host = how.host,
                .port = how.port,
                .connections = how.connections,
                .timeout = how.timeout,
                .longest_pause = how.probe_interval,
                .on_change = log_change}),
        leases_(redis_, log_refusal),
        fleet_(leases_, {.lease = how.lease, .max_wait = how.max_wait}) {}

  cached_details find(const template_key& key) override {
    using kind = singleflight::redis_reply::kind;
    singleflight::redis_reply reply = redis_.execute({"GET", name_of(key)});
    if (reply.what == kind::text) return counted(details_codec::decode(std::move(reply.text)));
    if (reply.what == kind::null) return counted(std::nullopt);
    ++unavailable_;
    throw cache_unavailable();  // who reads then does not ask it again for this request
  }

  void put(const template_key& key, const details_json& details,
           std::chrono::milliseconds lifetime) override {
    const std::string ms = std::to_string(lifetime.count());
    redis_.execute({"SET", name_of(key), details_codec::encode(details), "PX", ms});
  }

  void erase(const template_key& key) override { redis_.execute({"DEL", name_of(key)}); }

  /// The fleet has put the answer then, so this process need not.
  singleflight::keep<details_json> load(
      const template_key& key, std::chrono::milliseconds lifetime,
      const std::function<singleflight::keep<details_json>()>& load) override {
    if (!with_fleet_) return load();
    return {fleet_.load(name_of(key), lifetime, load), std::chrono::milliseconds(0)};
  }

  [[nodiscard]] cache_stats stats() const override {
    cache_stats all = cache::stats();
    all.unavailable = unavailable_;
    all.up = redis_.up();
    if (with_fleet_) all.fleet = fleet_.stats();
    return all;
  }

 private:
  using leases = singleflight::redis_leases<singleflight::hiredis_client>;

  static std::string name_of(const template_key& key) {
    return "template-details:" + std::to_string(key.id) + ':' + name(key.language);
  }

  static void log_change(bool up, std::string_view why) {
    if (up) return log_info("cache_up");
    log_warning("cache_down", {{"reason", why}});
  }
  static void log_refusal(std::string_view name, std::string_view text) {
    log_warning("cache_refuses", {{"error", name}, {"reason", text}});
  }

  const bool with_fleet_;
  std::atomic<std::uint64_t> unavailable_ = 0;
  singleflight::hiredis_client redis_;
  leases leases_;
  singleflight::fleet<details_json, leases, details_codec> fleet_;
};

}  // namespace template_service

#endif  // TEMPLATE_SERVICE_REDIS_CACHE_HPP
