// SPDX-License-Identifier: MIT

// A cache stampede in three acts: a cache is in front of a database that could not carry the load
// alone; the cache is lost; the cache is still lost, but identical requests share one query.
// Start reading at stampede/template_service.hpp, the dozen lines that matter.

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <exception>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "common/temp_file.hpp"
#include "common/zipf.hpp"
#include "stampede/cache.hpp"
#include "stampede/crew.hpp"
#include "stampede/flags.hpp"
#include "stampede/interrupt.hpp"
#include "stampede/live_view.hpp"
#include "stampede/open_loop.hpp"
#include "stampede/report.hpp"
#include "stampede/template_service.hpp"
#include "stampede/template_store.hpp"
#include "stampede/text.hpp"

namespace stampede {
namespace {

constexpr std::uint64_t seed = 20'130'429;
constexpr std::size_t connections = 4;
constexpr std::chrono::hours patience(1);  // for a connection: longer than the demo lasts
constexpr std::size_t most_warmed = 500;
constexpr double overload = 4;  // arrivals per query that the database can answer
constexpr double samples_per_act = 5;

/// Loads the `count` templates that are asked for most.
/// Returns: how many queries a second the database answers when all connections are busy.
double warm_cache(template_service& service, std::size_t count) {
  std::atomic<template_id> next = 1;
  const clock::time_point start = clock::now();
  crew loaders(connections, [&] {
    for (template_id id = next++; id <= count && !interrupted; id = next++) {
      static_cast<void>(service.get_alone(id));
    }
  });
  loaders.join();
  return static_cast<double>(count) / seconds(clock::now() - start).count();
}

std::vector<template_id> draw_ids(const examples::zipf_distribution& zipf, std::size_t count,
                                  std::mt19937_64& random) {
  std::vector<template_id> ids(count);
  std::ranges::generate(ids, [&] { return zipf(random); });
  return ids;
}

/// The settings that the three acts share.
struct stage {
  store_pool& database;
  const std::vector<template_id>& ids;
  double rate;
  std::size_t threads;
  seconds sample_interval;
};

template <class Serve>
act_report play(const stage& on, const char* name, const char* explanation, const Serve& serve) {
  if (interrupted) return {};
  std::printf("\n%s: %s\n", name, explanation);
  on.database.reset_stats();
  live_view view(on.database, on.sample_interval);
  open_loop loop(on.ids, on.rate);
  loop.run(on.threads, serve, view);
  view.finish();
  return make_report(name, loop.outcomes(), on.database.stats(), view.samples());
}

three_acts play_all(const stage& on, template_service& service, cache& front) {
  const auto alone = [&](template_id id) { return service.get_alone(id); };
  const auto coalesced = [&](template_id id) { return service.get_coalesced(id); };
  live_view::print_legend();
  three_acts acts;
  acts[0] = play(on, "1 cache up", "few requests reach the database", alone);
  front.cut();
  acts[1] = play(on, "2 cache lost", "every request queries the database", alone);
  acts[2] = play(on, "3 cache lost, do_call",
                 "still no cache, but identical requests share one query", coalesced);
  return acts;
}

/// Warms the cache. Chooses the rate by the time that this took, unless the user has chosen one.
/// Returns: requests a second.
double prepare(const settings& chosen, const examples::zipf_distribution& zipf,
               template_service& service) {
  const std::size_t warmed = std::min(static_cast<std::size_t>(chosen.templates), most_warmed);
  const double capacity = warm_cache(service, warmed);
  const double hundreds = std::max(1.0, std::round(overload * capacity / 100));
  const double rate = chosen.rate > 0 ? chosen.rate : hundreds * 100;
  std::printf(
      "The cache is warmed with the %s most wanted, %.0f %% of all requests (skew %g).\n"
      "Meanwhile the database answered %.0f queries/s; requests will arrive at %s/s.\n",
      grouped(warmed).c_str(), 100 * zipf.share_of_top(warmed), chosen.skew, capacity,
      grouped(static_cast<std::uint64_t>(rate)).c_str());
  return rate;
}

void run(const settings& chosen) {
  std::mt19937_64 random(seed);
  const auto templates = static_cast<std::size_t>(chosen.templates);

  examples::temp_file file;
  create_store(file.path(), static_cast<std::int64_t>(templates), random);
  store_pool database(connections, patience,
                      [&] { return std::make_unique<store_connection>(file.path()); });
  database.open_all();
  file.remove();  // on POSIX the connections keep it open; a crash leaves nothing behind
  std::printf(
      "%s templates of %s fragments each are in SQLite, behind %zu connections (seed %s).\n",
      grouped(templates).c_str(), grouped(fragments_per_template).c_str(), connections,
      std::to_string(seed).c_str());

  cache front;
  template_service service(database, front);
  const examples::zipf_distribution zipf(templates, chosen.skew);
  const double rate = prepare(chosen, zipf, service);

  // The same requests in each act, so that the acts differ only in how they are served.
  const auto count = static_cast<std::size_t>(std::max(1.0, rate * chosen.seconds));
  const std::vector<template_id> ids = draw_ids(zipf, count, random);
  const three_acts acts = play_all({database, ids, rate, static_cast<std::size_t>(chosen.threads),
                                    seconds(chosen.seconds / samples_per_act)},
                                   service, front);
  if (interrupted) return;
  print_picture(acts);
  print_table(acts);
  print_conclusion(acts);
}

}  // namespace
}  // namespace stampede

int main(int argc, char** argv) {
  try {
    const stampede::settings chosen = stampede::parse_flags(argc, argv);
    if (chosen.help) {
      stampede::print_help();
      return 0;
    }
    stampede::interrupt_on_signal();
    stampede::run(chosen);
    if (!stampede::interrupted) return 0;
    std::fputs("\nstampede: interrupted\n", stderr);
    return 130;
  } catch (const stampede::bad_flag& error) {
    std::fprintf(stderr, "stampede: %s\n", error.what());
    return 2;
  } catch (const std::exception& error) {
    std::fprintf(stderr, "stampede: %s\n", error.what());
    return 1;
  }
}
