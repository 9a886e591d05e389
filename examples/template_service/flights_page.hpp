// SPDX-License-Identifier: MIT
#ifndef TEMPLATE_SERVICE_FLIGHTS_PAGE_HPP
#define TEMPLATE_SERVICE_FLIGHTS_PAGE_HPP

#include <algorithm>
#include <chrono>
#include <condition_variable>
#include <cstddef>
#include <deque>
#include <mutex>
#include <nlohmann/json.hpp>
#include <singleflight/stats.hpp>
#include <string>
#include <thread>

#include "cache.hpp"
#include "template.hpp"
#include "template_reader.hpp"

namespace template_service {

/// What `/debug/flights` shows: the calls in flight, the keys that are joined most, and the last minute.
/// It is for who operates the service, not for the public: it shows keys.
class flights_page {
 public:
  static const char* const html;
  static constexpr const char* policy =
      "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; connect-src "
      "'self'";

  flights_page(const template_reader& reader, const cache& front)
      : reader_(reader), cache_(front), sampler_([this] { sample(); }) {}
  flights_page(const flights_page&) = delete;
  flights_page& operator=(const flights_page&) = delete;
  ~flights_page() {
    {
      const std::lock_guard guard(mutex_);
      ending_ = true;
    }
    end_.notify_one();
    sampler_.join();
  }

  [[nodiscard]] std::string json() const {
    using seconds = std::chrono::duration<double>;
    using nlohmann::json;
    auto calls = reader_.flights().in_flight();
    std::sort(calls.begin(), calls.end(),
              [](const auto& a, const auto& b) { return b.waited < a.waited; });
    json shown = json::array();
    for (const auto& call : calls) {
      if (shown.size() == most_shown) break;
      shown.push_back({{"key", text_of(call.key)},
                       {"waiters", call.waiters},
                       {"seconds", seconds(call.waited).count()}});
    }
    json top = json::array();
    for (const auto& [key, joins] : reader_.flights().observer().most_joined(10)) {
      top.push_back({{"key", text_of(key)}, {"joins", joins}});
    }
    const singleflight::group_stats now = reader_.flights().stats();
    const cache_stats of_cache = cache_.stats();
    json all{
        {"calls", std::move(shown)},
        {"calls_in_flight", now.in_flight},
        {"waiting", now.waiting},
        {"led", now.led},
        {"joined", now.joined},
        {"rejected", now.rejected},
        {"failed", now.failed},
        {"superseded", now.superseded},
        {"top", std::move(top)},
        {"seconds", last_minute()},
        {"cache", {{"hits", of_cache.hits}, {"misses", of_cache.misses}, {"up", of_cache.up}}}};
    if (of_cache.fleet) {
      all["fleet"] = {{"entries", of_cache.fleet->entries()},
                      {"led", of_cache.fleet->led},
                      {"waiting", of_cache.fleet->waiting}};
    }
    return all.dump(-1, ' ', false, json::error_handler_t::replace);
  }

 private:
  static constexpr std::size_t most_shown = 100;
  static constexpr std::size_t remembered = 61;  // seconds, and the one before

  static std::string text_of(const template_key& key) {
    return std::to_string(key.id) + ' ' + name(key.language);
  }

  /// Looks at the group each second until this ends.
  void sample() {
    std::unique_lock guard(mutex_);
    auto next = std::chrono::steady_clock::now();
    while (!ending_) {
      guard.unlock();
      const singleflight::group_stats now = reader_.flights().stats();
      guard.lock();
      samples_.push_back(now);
      if (samples_.size() > remembered) samples_.pop_front();
      next += std::chrono::seconds(1);
      end_.wait_until(guard, next, [this] { return ending_; });
    }
  }

  /// Returns: what was done in each second.
  [[nodiscard]] nlohmann::json last_minute() const {
    nlohmann::json all = nlohmann::json::array();
    const std::lock_guard guard(mutex_);
    for (std::size_t i = 1; i < samples_.size(); ++i) {
      const singleflight::group_stats& before = samples_[i - 1];
      const singleflight::group_stats& after = samples_[i];
      all.push_back({{"led", after.led - before.led},
                     {"joined", after.joined - before.joined},
                     {"rejected", after.rejected - before.rejected}});
    }
    return all;
  }

  const template_reader& reader_;
  const cache& cache_;
  mutable std::mutex mutex_;
  std::condition_variable end_;
  std::deque<singleflight::group_stats> samples_;  // guarded by mutex_
  bool ending_ = false;                            // likewise
  std::thread sampler_;
};

/// Fetches the JSON each second. Keys become text nodes, never markup.
inline const char* const flights_page::html = R"html(<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Flights</title>
<style>
:root { color-scheme: light dark; --led: #2563eb; --joined: #16a34a; --rejected: #dc2626; }
* { box-sizing: border-box; }
body { font: 16px/1.4 system-ui, sans-serif; max-width: 60rem; margin: 0 auto; padding: 1rem; }
h1 { font-size: 1.4rem; margin: 0 0 .5rem; }
h2 { font-size: 1.1rem; margin: 1.5rem 0 .5rem; }
dl { display: grid; grid-template-columns: repeat(auto-fill, minmax(8.5rem, 1fr)); gap: .5rem; margin: 0; }
dl div { border: 1px solid color-mix(in srgb, currentColor 25%, transparent); border-radius: .4rem; padding: .4rem .6rem; }
dt { font-size: .85rem; opacity: .8; }
dd { margin: 0; font-size: 1.3rem; font-variant-numeric: tabular-nums; }
table { border-collapse: collapse; width: 100%; table-layout: fixed; }
th, td { text-align: right; padding: .25rem .4rem; border-bottom: 1px solid color-mix(in srgb, currentColor 20%, transparent); font-variant-numeric: tabular-nums; }
th:first-child, td:first-child { text-align: left; width: 55%; overflow-wrap: anywhere; }
svg { width: 100%; height: 9rem; display: block; border: 1px solid color-mix(in srgb, currentColor 25%, transparent); border-radius: .4rem; }
.legend span { margin-right: 1rem; white-space: nowrap; }
.legend i { display: inline-block; width: .8em; height: .8em; border-radius: 2px; margin-right: .3em; }
#state { opacity: .8; margin: 0 0 1rem; }
</style>
<h1>Flights</h1>
<p id="state" role="status">loading</p>
<dl id="now"></dl>
<h2>The last minute</h2>
<svg id="plot" viewBox="0 0 600 100" preserveAspectRatio="none" role="img"
     aria-label="requests that began, joined or were refused a call, in each second"></svg>
<p class="legend"><span><i style="background:var(--led)"></i>led</span><span><i
 style="background:var(--joined)"></i>joined</span><span><i
 style="background:var(--rejected)"></i>rejected</span><span id="most"></span></p>
<h2>Calls in flight</h2>
<table id="calls"><thead><tr><th>key<th>waiters<th>waited for</thead><tbody></tbody></table>
<h2>Keys that were joined most</h2>
<table id="top"><thead><tr><th>key<th>joins</thead><tbody></tbody></table>
<script>
const at = id => document.getElementById(id);
const number = n => n.toLocaleString("en");
function rows(table, all) {
  at(table).tBodies[0].replaceChildren(...all.map(cells => {
    const row = document.createElement("tr");
    for (const cell of cells) row.insertCell().textContent = cell;
    return row;
  }));
}
function figures(all) {
  at("now").replaceChildren(...all.map(([name, value]) => {
    const box = document.createElement("div");
    box.append(Object.assign(document.createElement("dt"), {textContent: name}),
               Object.assign(document.createElement("dd"), {textContent: value}));
    return box;
  }));
}
function plot(seconds) {
  const kinds = ["led", "joined", "rejected"];
  const most = Math.max(1, ...seconds.map(s => s.led + s.joined + s.rejected));
  const bars = [];
  seconds.forEach((second, i) => {
    let y = 100;
    for (const kind of kinds) {
      const height = 100 * second[kind] / most;
      y -= height;
      const bar = document.createElementNS("http://www.w3.org/2000/svg", "rect");
      for (const [name, value] of [["x", (60 - seconds.length + i) * 10 + 1], ["y", y],
                                   ["width", 8], ["height", height]])
        bar.setAttribute(name, value);
      bar.style.fill = `var(--${kind})`;
      bars.push(bar);
    }
  });
  at("plot").replaceChildren(...bars);
  at("most").textContent = `at most ${number(most)} in a second`;
}
function show(all) {
  const sum = kind => all.seconds.reduce((total, second) => total + second[kind], 0);
  const led = sum("led"), joined = sum("joined");
  const figure = [["requests a call, last minute", led ? ((led + joined) / led).toFixed(1) : "none"],
    ["calls in flight", number(all.calls_in_flight)], ["waiting", number(all.waiting)],
    ["led", number(all.led)], ["joined", number(all.joined)], ["rejected", number(all.rejected)],
    ["failed", number(all.failed)], ["too old", number(all.superseded)],
    ["cache", all.cache.up ? "up" : "down"], ["cache hits", number(all.cache.hits)],
    ["cache misses", number(all.cache.misses)]];
  if (all.fleet) figure.push(["fleet: led", number(all.fleet.led)],
                             ["fleet: waiting", number(all.fleet.waiting)]);
  figures(figure);
  plot(all.seconds);
  rows("calls", all.calls.map(c => [c.key, number(c.waiters), c.seconds.toFixed(3) + " s"]));
  rows("top", all.top.map(t => [t.key, number(t.joins)]));
}
async function refresh() {
  try {
    const answer = await fetch("flights.json");
    if (!answer.ok) throw new Error(`status ${answer.status}`);
    show(await answer.json());
    at("state").textContent = `as of ${new Date().toLocaleTimeString()}; refreshed each second`;
  } catch (error) {
    at("state").textContent = `not refreshed: ${error.message}`;
  }
  setTimeout(refresh, 1000);
}
refresh();
</script>
</html>
)html";

}  // namespace template_service

#endif  // TEMPLATE_SERVICE_FLIGHTS_PAGE_HPP
