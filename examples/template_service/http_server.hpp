// SPDX-License-Identifier: MIT
#ifndef TEMPLATE_SERVICE_HTTP_SERVER_HPP
#define TEMPLATE_SERVICE_HTTP_SERVER_HPP

#include <httplib.h>

#include <atomic>
#include <charconv>
#include <chrono>
#include <cstdint>
#include <exception>
#include <nlohmann/json.hpp>
#include <optional>
#include <singleflight/call_error.hpp>
#include <stdexcept>
#include <string>
#include <string_view>
#include <thread>
#include <vector>

#include "flights_page.hpp"
#include "log.hpp"
#include "metrics.hpp"
#include "settings.hpp"
#include "store.hpp"
#include "template.hpp"
#include "template_reader.hpp"

namespace template_service {

/// A request that makes no sense; `what()` says why.
struct bad_request : std::runtime_error {
  using std::runtime_error::runtime_error;
};

class http_server {
 public:
  /// `debug`: what `/debug/flights` shows; null: nothing is there.
  http_server(const http_settings& how, template_reader& reader, metrics& figures,
              const flights_page* debug)
      : how_(how), reader_(reader), metrics_(figures), debug_(debug) {
    server_.new_task_queue = [threads = how.threads] { return new httplib::ThreadPool(threads); };
    server_.set_tcp_nodelay(true);
    server_.set_keep_alive_max_count(1'000'000);  // the clients decide when to leave
    add_routes();
  }

  /// Listens, and serves from now on.
  /// Returns: the port.
  int start() {
    int port = how_.port;
    if (port == 0) {
      port = server_.bind_to_any_port(how_.host);
    } else if (!server_.bind_to_port(how_.host, port)) {
      port = -1;
    }
    if (port < 0) {
      throw std::runtime_error("cannot listen on " + how_.host + ':' + std::to_string(how_.port));
    }
    serving_ = std::thread([this] { server_.listen_after_bind(); });
    return port;
  }

  /// Asks clients to close their connections, gives them some time for it, and stops when every
  /// request has been answered.
  void drain() {
    draining_ = true;
    std::this_thread::sleep_for(how_.drain);
    server_.stop();
    serving_.join();
  }

 private:
  void add_routes() {
    server_.Get("/template-details",
                [this](const httplib::Request& request, httplib::Response& response) {
                  const auto start = std::chrono::steady_clock::now();
                  answer_details(request, response);
                  metrics_.count_request(response.status);
                  metrics_.time_request(std::chrono::steady_clock::now() - start);
                });
    server_.Get("/healthz", [this](const httplib::Request&, httplib::Response& response) {
      if (draining_) return fail(response, 503, "draining");
      response.set_content(R"({"status":"ok"})", json_type);
    });
    server_.Get("/metrics", [this](const httplib::Request&, httplib::Response& response) {
      response.set_content(metrics_.text(), "text/plain; version=0.0.4");
    });
    if (debug_ != nullptr) add_debug_routes();
    server_.set_post_routing_handler([this](const httplib::Request&, httplib::Response& response) {
      if (draining_) response.set_header("Connection", "close");
    });
    // Called for every answer from 400 on. Without a text it is of httplib itself, and no handler has
    // counted it.
    server_.set_error_handler([this](const httplib::Request&, httplib::Response& response) {
      if (!response.body.empty()) return;
      metrics_.count_request(response.status);
      fail(response, response.status, reason_of(response.status));
    });
  }

  void add_debug_routes() {
    server_.Get("/debug/flights", [](const httplib::Request&, httplib::Response& response) {
      // Only what is in the page itself may run: a key cannot.
      response.set_header("Content-Security-Policy", flights_page::policy);
      response.set_content(flights_page::html, "text/html; charset=utf-8");
    });
    server_.Get("/debug/flights.json",
                [this](const httplib::Request&, httplib::Response& response) {
                  response.set_header("Cache-Control", "no-store");
                  response.set_content(debug_->json(), json_type);
                });
  }

  void answer_details(const httplib::Request& request, httplib::Response& response) {
    try {
      const std::vector<template_key> keys = parse(request);
      response.status = 200;
      if (request.get_param_value("id").find(',') != std::string::npos) {
        return response.set_content(as_list(reader_.get(keys)), json_type);
      }
      const details_json details = reader_.get(keys.front());
      if (details == nullptr) {
        return fail(response, 404, "no template " + std::to_string(keys.front().id));
      }
      response.set_content(*details, json_type);
    } catch (const bad_request& error) {
      fail(response, 400, error.what());
    } catch (const store_unavailable&) {  // the reason is in the log only: clients need not know it
      fail_for_now(response, "the store cannot answer");
    } catch (const singleflight::call_error&) {
      fail_for_now(response, "the store takes too long");
    } catch (const std::exception& error) {
      log_error("request_failed", {{"reason", error.what()}});
      fail(response, 500, "this should not have happened");
    }
  }

  /// Returns: a JSON array with null for what does not exist.
  static std::string as_list(const std::vector<details_json>& all) {
    std::string list;
    for (const details_json& details : all) {
      list += (list.empty() ? "[" : ",") + (details != nullptr ? *details : "null");
    }
    return list + ']';
  }

  static std::vector<template_key> parse(const httplib::Request& request) {
    const std::string language =
        request.has_param("locale") ? request.get_param_value("locale") : "en";
    if (language != "en" && language != "de") throw bad_request("locale must be en or de");
    std::vector<template_key> keys;
    const std::string ids = request.get_param_value("id");
    for (std::string_view ids_left = ids;;) {
      const std::size_t comma = ids_left.find(',');
      keys.push_back(
          {parse_id(ids_left.substr(0, comma)), language == "de" ? locale::de : locale::en});
      if (keys.size() > most_keys) throw bad_request("id must have at most 200 numbers");
      if (comma == std::string_view::npos) return keys;
      ids_left.remove_prefix(comma + 1);
    }
  }

  static std::uint32_t parse_id(std::string_view text) {
    std::uint32_t id = 0;
    const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), id);
    if (error != std::errc() || end != text.data() + text.size() || id == 0) {
      throw bad_request("id must be a whole number from 1 to 4294967295");
    }
    return id;
  }

  static constexpr std::size_t most_keys = 200;

  /// Returns: what was wrong with a request that httplib has refused.
  static std::string reason_of(int status) {
    switch (status) {
      case 400:
        return "this is no valid HTTP request, or none that the service answers";
      case 404:
        return "there is nothing here";
      case 413:
        return "the request is too long";
      case 414:
        return "the address is too long";
      case 416:
        return "this range cannot be served";
      default:
        return "the request was refused with status " + std::to_string(status);
    }
  }

  static void fail(httplib::Response& response, int status, const std::string& reason) {
    response.status = status;
    response.set_content(nlohmann::json{{"error", reason}}.dump(), json_type);
  }

  static void fail_for_now(httplib::Response& response, const std::string& reason) {
    response.set_header("Retry-After", "1");
    fail(response, 503, reason);
  }

  static constexpr const char* json_type = "application/json";

  const http_settings how_;
  template_reader& reader_;
  metrics& metrics_;
  const flights_page* const debug_;
  std::atomic<bool> draining_ = false;
  httplib::Server server_;
  std::thread serving_;
};

}  // namespace template_service

#endif  // TEMPLATE_SERVICE_HTTP_SERVER_HPP
