// SPDX-License-Identifier: MIT
// A loader that fills a cache leaves nothing in it that was read before a write: put unless forgotten,
// look again whether it was, and if so erase. Every order of the steps of one reader and one writer is
// tried on a real group.
#include <gtest/gtest.h>

#include <array>
#include <cstddef>
#include <functional>
#include <optional>
#include <singleflight/group.hpp>
#include <string>
#include <thread>
#include <tuple>
#include <utility>

#include "support.hpp"

namespace {

using singleflight::call_context;

enum version { old_one, new_one };

/// The steps of a writer and of a loader, in one order of all that there are.
class schedule {
 public:
  using group = singleflight::group<std::string, version>;

  /// The writer's steps, each of which comes before that step of the loader, or after the last one.
  explicit schedule(std::array<std::size_t, 3> gaps) : gaps_(gaps) {}

  /// Runs what the writer does before the next step of the loader.
  void step() {
    while (written_ < gaps_.size() && gaps_[written_] <= steps_) write();
    ++steps_;
  }
  void finish() {
    while (written_ < gaps_.size()) write();
  }

  group flights;
  version stored = old_one;
  std::optional<version> cached;

 private:
  void write() {
    switch (written_++) {
      case 0:
        stored = new_one;
        break;
      case 1:
        flights.forget("a");
        break;
      default:
        cached.reset();
    }
  }

  std::array<std::size_t, 3> gaps_;
  std::size_t written_ = 0;
  std::size_t steps_ = 0;
};

using loader = std::function<version(schedule&, const call_context&)>;

/// How many orders there are, and how many of them leave the old value in the cache.
std::pair<int, int> try_all_orders(const loader& load) {
  constexpr std::size_t gaps = 6;  // one before each step of the longest loader, one after
  int tried = 0;
  int stale = 0;
  for (std::size_t store = 0; store < gaps; ++store) {
    for (std::size_t forget = store; forget < gaps; ++forget) {
      for (std::size_t erase = forget; erase < gaps; ++erase) {
        schedule s({store, forget, erase});
        std::ignore = s.flights.do_call("a", [&](const call_context& c) { return load(s, c); });
        s.finish();
        ++tried;
        stale += s.cached == old_one ? 1 : 0;
      }
    }
  }
  return {tried, stale};
}

version load_from_store(schedule& s) {
  s.step();
  return s.stored;
}

TEST(Fill, PutUnlessForgottenThenLookAgainAndEraseLeavesNothingOld) {
  const auto [tried, stale] = try_all_orders([](schedule& s, const call_context& c) {
    const version row = load_from_store(s);
    s.step();
    if (c.forgotten()) return row;
    s.step();
    s.cached = row;
    s.step();
    if (c.forgotten()) {
      s.step();
      s.cached.reset();
    }
    return row;
  });
  EXPECT_EQ(tried, 56);
  EXPECT_EQ(stale, 0);
}

// Guava's, Caffeine's and many a service's defect: https://github.com/google/guava/issues/1881
TEST(Fill, PutAloneKeepsAnOldValue) {
  const auto [tried, stale] = try_all_orders([](schedule& s, const call_context&) {
    const version row = load_from_store(s);
    s.step();
    s.cached = row;
    return row;
  });
  EXPECT_EQ(tried, 56);
  EXPECT_GT(stale, 0);
}

// https://github.com/microlinkhq/keyvhq/pull/275: what was looked at before the put is over by then.
TEST(Fill, PutUnlessForgottenAloneKeepsAnOldValue) {
  const auto [tried, stale] = try_all_orders([](schedule& s, const call_context& c) {
    const version row = load_from_store(s);
    s.step();
    if (c.forgotten()) return row;
    s.step();
    s.cached = row;
    return row;
  });
  EXPECT_EQ(tried, 56);
  EXPECT_GT(stale, 0);
}

#if defined(__cpp_lib_jthread)
// A call that all callers have left is not forgotten: its value fills the cache, or a slow load never
// would.
TEST(Fill, IsDoneByACallThatEverybodyHasLeft) {
  schedule::group flights;
  std::optional<version> cached;
  std::stop_source caller;
  std::thread executor;
  EXPECT_THROW(std::ignore = flights.do_call_on(
                   "a", [&](auto task) { executor = std::thread(std::move(task)); },
                   {.stop = caller.get_token()},
                   [&](const call_context& c) {
                     caller.request_stop();
                     support::await([&] { return flights.stats().waiting == 0; },
                                    "the caller to leave");
                     if (!c.forgotten()) cached = new_one;
                     return new_one;
                   }),
               singleflight::call_error);
  executor.join();
  EXPECT_EQ(cached, new_one);
}
#endif

}  // namespace
