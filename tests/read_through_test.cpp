// SPDX-License-Identifier: MIT
// `read_through`: what a cache keeps, for how long, and what it never keeps. Time is the test's own.
#include <gtest/gtest.h>

#include <array>
#include <atomic>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <future>
#include <limits>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <ratio>
#include <singleflight/read_through.hpp>
#include <stdexcept>
#include <string>
#include <string_view>
#include <system_error>
#include <thread>
#include <tuple>
#include <utility>
#include <vector>

#include "support.hpp"

#if defined(SINGLEFLIGHT_TESTS_THREAD_EXIT_UNWINDS)
#include <pthread.h>
#endif
#if defined(__cpp_lib_jthread)
#include <stop_token>
#endif

namespace {

using namespace std::chrono_literals;
using singleflight::cache_entry;
using singleflight::call_context;
using singleflight::call_error;
using singleflight::keep;
using singleflight::read_options;

/// Stands still until the test moves it.
struct test_clock {
  using duration = std::chrono::nanoseconds;
  using rep = duration::rep;
  using period = duration::period;
  using time_point = std::chrono::time_point<test_clock>;
  [[maybe_unused]] static constexpr bool is_steady = false;
  static time_point now() noexcept { return time_point(duration(ticks)); }
  static void pass(duration d) { ticks += d.count(); }
  inline static std::atomic<rep> ticks = 0;
};

using entry = cache_entry<int, test_clock>;

/// A cache of which each operation can be watched or made to fail.
class test_cache {
 public:
  std::optional<entry> find(const std::string& key) {
    before_find();
    ++finds;
    if (find_fails) throw std::runtime_error("the cache is down");
    const std::lock_guard lock(mutex_);
    const auto at = entries_.find(key);
    return at == entries_.end() ? std::nullopt : std::optional(at->second);
  }
  void put(const std::string& key, const entry& e) {
    before_put();
    ++puts;
    if (put_fails) throw std::runtime_error("the cache is down");
    {
      const std::lock_guard lock(mutex_);
      entries_.insert_or_assign(key, e);
    }
    after_put();
    if (answer_of_put_is_lost) throw std::runtime_error("connection reset");
  }
  void erase(const std::string& key) {
    before_erase();
    ++erases;
    if (erase_fails) throw std::runtime_error("the cache is down");
    const std::lock_guard lock(mutex_);
    entries_.erase(key);
  }

  std::atomic<int> finds = 0;
  std::atomic<int> puts = 0;
  std::atomic<int> erases = 0;
  std::atomic<bool> find_fails = false;
  std::atomic<bool> put_fails = false;
  std::atomic<bool> answer_of_put_is_lost = false;
  std::atomic<bool> erase_fails = false;
  std::function<void()> before_find = [] {};
  std::function<void()> before_erase = [] {};
  std::function<void()> before_put = [] {};
  std::function<void()> after_put = [] {};

 private:
  std::mutex mutex_;
  std::map<std::string, entry> entries_;
};

template <class Executor = singleflight::no_refresh>
using reader =
    singleflight::read_through<std::string, int, test_cache&, Executor, std::hash<std::string>,
                               std::equal_to<std::string>, test_clock>;

constexpr read_options exact{.lifetime = 10s, .absent_lifetime = 2s, .jitter = 0};
constexpr read_options with_stale{
    .lifetime = 10s, .absent_lifetime = 2s, .jitter = 0, .stale = 60s, .retry_after = 1s};

class ReadThrough : public testing::Test {
 protected:
  int load() { return ++loads; }
  std::optional<int> get(reader<>& r, const std::string& key = "a") {
    return r.get(key, [this] { return load(); });
  }

  test_cache cache;
  int loads = 0;
};

int fails() { throw std::runtime_error("the store is down"); }

/// The counters, in the order of their declaration.
std::array<std::uint64_t, 9> all_of(const singleflight::read_stats& s) {
  return {s.hits,         s.stale_hits, s.misses, s.second_look_hits, s.loads,
          s.failed_loads, s.not_put,    s.undone, s.cache_errors};
}
constexpr std::array<std::uint64_t, 9> none_of_all{};

TEST_F(ReadThrough, HasCountedNothingAtFirst) {
  const reader<> r(cache, exact);
  EXPECT_EQ(all_of(r.stats()), none_of_all);
  EXPECT_EQ(all_of(singleflight::read_stats{}), none_of_all);
}

TEST_F(ReadThrough, HasOptionsThatFitMostCaches) {
  const read_options defaults;
  EXPECT_EQ(defaults.lifetime, 30s);
  EXPECT_EQ(defaults.absent_lifetime, 5s);
  EXPECT_EQ(defaults.jitter, 0.1);
  EXPECT_EQ(defaults.stale, 0s);
  EXPECT_EQ(defaults.retry_after, 1s);
}

// --- Hits, misses, lifetimes -----------------------------------------------------------------------

TEST_F(ReadThrough, LoadsOnceWhileTheEntryIsFresh) {
  reader<> r(cache, exact);
  EXPECT_EQ(get(r), 1);
  test_clock::pass(10s - 1ns);
  EXPECT_EQ(get(r), 1);
  test_clock::pass(1ns);
  EXPECT_EQ(get(r), 2);
  const auto stats = r.stats();
  EXPECT_EQ(stats.hits, 1U);
  EXPECT_EQ(stats.misses, 2U);
  EXPECT_EQ(stats.loads, 2U);
  EXPECT_EQ(stats.second_look_hits, 0U) << "the second look is no miss and no hit of its own";
  EXPECT_EQ(r.flights().stats().led, 2U);
}

TEST_F(ReadThrough, TakesEveryFormOfLoader) {
  reader<> r(cache, exact);
  EXPECT_EQ(r.get("a", [](const std::string& key) { return static_cast<int>(key.size()); }), 1);
  EXPECT_EQ(r.get("bb",
                  [](const std::string& key, const call_context& c) {
                    return static_cast<int>(key.size()) + (c.forgotten() ? 10 : 0);
                  }),
            2);
  EXPECT_EQ(r.get("c", [](const call_context&) { return 3; }), 3);
#if defined(__cpp_lib_jthread)
  EXPECT_EQ(r.get("d", [](std::stop_token t) { return t.stop_requested() ? 0 : 4; }), 4);
  EXPECT_EQ(r.get("e", [](const auto&, std::stop_token t) { return t.stop_possible() ? 5 : 0; }),
            5);
#endif
}

// An optional would convert them where no compiler warns.
TEST_F(ReadThrough, TakesWhatConvertsToItsValue) {
  reader<> r(cache, exact);
  EXPECT_EQ(r.get("a", [] { return short{1}; }), 1);
  EXPECT_EQ(r.get("b", [] { return std::optional<short>(2); }), 2);
  EXPECT_EQ(r.get("c", [] { return std::optional<short>(); }), std::nullopt);
  EXPECT_EQ(r.get("d", [] { return keep{short{4}, 1s}; }), 4);
  EXPECT_EQ(r.get("e", [] { return keep{std::optional<short>(5), 1s}; }), 5);
  EXPECT_EQ(r.get("f", [] { return std::nullopt; }), std::nullopt);
  struct row {
    operator std::optional<int>() const { return 7; }
  };
  EXPECT_EQ(r.get("g", [] { return row(); }), 7);
  EXPECT_EQ(cache.find("b")->value, 2);
  EXPECT_EQ(cache.find("c")->value, std::nullopt);
}

template <class Key>
struct forgetful_cache {
  std::optional<cache_entry<int>> find(const Key& /*key*/) { return std::nullopt; }
  void put(const Key& /*key*/, const cache_entry<int>& /*e*/) {}
  void erase(const Key& /*key*/) {}
};

TEST(ReadThroughKey, BeyondTheRangeOfKeyIsRefused) {
  using key = std::uint64_t;
  forgetful_cache<key> none;
  singleflight::read_through<key, int, forgetful_cache<key>&> r(none);
  bool ran = false;
  EXPECT_THROW(std::ignore = r.get(-1, [&] { return static_cast<int>(ran = true); }),
               std::invalid_argument);
  EXPECT_THROW(r.invalidate(-1), std::invalid_argument);
  EXPECT_THROW(r.write(-1, [&] { ran = true; }), std::invalid_argument);
  EXPECT_FALSE(ran);
  EXPECT_EQ(r.get(7, [](key own) { return static_cast<int>(own); }), 7);
}

struct transparent_hash {
  using is_transparent = void;
  std::size_t operator()(std::string_view s) const { return std::hash<std::string_view>()(s); }
};

TEST(ReadThroughKey, IsWhatTheGroupTakes) {
  forgetful_cache<std::string> none;
  singleflight::read_through<std::string, int, forgetful_cache<std::string>&,
                             singleflight::no_refresh, transparent_hash, std::equal_to<>>
      r(none);
  const auto length = [](const std::string& key) { return static_cast<int>(key.size()); };
  EXPECT_EQ(r.get(std::string_view("key"), length), 3);
  EXPECT_EQ(r.get({"keyhole", 3}, {.attempts = 2}, length), 3);
  r.invalidate(std::string_view("key"));
  r.write({"keyhole", 3}, [] {});
}

// https://github.com/ZiggyCreatures/FusionCache/issues/628: the time was taken after the load.
TEST_F(ReadThrough, CountsTheLifetimeFromTheBeginningOfTheLoad) {
  reader<> r(cache, exact);
  std::ignore = r.get("a", [&] {
    test_clock::pass(7s);
    return load();
  });
  test_clock::pass(3s);
  EXPECT_EQ(get(r), 2);
}

// https://github.com/jellydator/ttlcache/issues/44: who waits for a load that takes longer than its
// lifetime gets its value all the same.
TEST_F(ReadThrough, GivesAValueThatIsTooOldToBeKeptToThoseWhoWait) {
  reader<> r(cache, exact);
  EXPECT_EQ(r.get("a",
                  [&] {
                    test_clock::pass(20s);
                    return load();
                  }),
            1);
}

// https://github.com/prezly/theme-kit-js/pull/1042: most of the requests were for what does not exist.
TEST_F(ReadThrough, KeepsThatThereIsNoneForAShorterTime) {
  reader<> r(cache, exact);
  const auto none = [&]() -> std::optional<int> {
    ++loads;
    return std::nullopt;
  };
  EXPECT_EQ(r.get("a", none), std::nullopt);
  EXPECT_EQ(r.get("a", none), std::nullopt);
  EXPECT_EQ(loads, 1);
  EXPECT_EQ(r.stats().hits, 1U);
  test_clock::pass(2s);
  EXPECT_EQ(r.get("a", none), std::nullopt);
  EXPECT_EQ(loads, 2);
}

TEST_F(ReadThrough, KeepsNothingWhoseLifetimeIsZero) {
  reader<> r(cache, {.lifetime = 10s, .absent_lifetime = 0s, .jitter = 0});
  std::ignore = r.get("a", []() -> std::optional<int> { return std::nullopt; });
  EXPECT_EQ(cache.puts, 0);
  EXPECT_EQ(r.get("a", [] { return keep{5, 0s}; }), 5);
  EXPECT_EQ(r.get("a", [] { return keep<int>{.value = 5}; }), 5);
  EXPECT_EQ(cache.puts, 0);
}

TEST_F(ReadThrough, LetsTheLoaderChooseTheLifetime) {
  reader<> r(cache, exact);
  EXPECT_EQ(r.get("a", [] { return keep{5, 100s}; }), 5);
  EXPECT_EQ(r.get("b", [] { return keep{std::optional<int>(), 100s}; }), std::nullopt);
  test_clock::pass(99s);
  EXPECT_EQ(get(r, "a"), 5);
  EXPECT_EQ(get(r, "b"), std::nullopt);
  test_clock::pass(1s);
  EXPECT_EQ(get(r, "a"), 1);
}

// https://github.com/novuhq/novu/pull/2296: in both directions, so that the mean is what was asked for.
TEST_F(ReadThrough, ChangesLifetimesAtRandom) {
  reader<> r(cache, {.lifetime = 100s, .jitter = 0.1});
  int shorter = 0;
  const auto now = test_clock::now();
  for (int i = 0; i < 200; ++i) {
    const std::string key = std::to_string(i);
    std::ignore = get(r, key);
    const auto fresh = cache.find(key)->fresh_until - now;
    EXPECT_GE(fresh, 90s);
    EXPECT_LE(fresh, 110s);
    shorter += fresh < 100s ? 1 : 0;
  }
  EXPECT_GT(shorter, 20);
  EXPECT_LT(shorter, 180);
}

TEST_F(ReadThrough, KeepsLongLifetimesToTheTickWithoutJitter) {
  constexpr auto odd = 24h * 365 + 1ns;  // which no double holds
  reader<> r(cache, {.lifetime = odd, .jitter = 0});
  EXPECT_EQ(get(r), 1);
  EXPECT_EQ(cache.find("a")->fresh_until - test_clock::now(), odd);
}

TEST_F(ReadThrough, RefusesAJitterThatMakesNoSense) {
  for (const double jitter : {-0.1, 1.0, std::numeric_limits<double>::quiet_NaN()}) {
    EXPECT_THROW(reader<>(cache, {.jitter = jitter}), std::invalid_argument);
  }
}

TEST_F(ReadThrough, KeepsForAllTimeWhatTheClockCannotCount) {
  reader<> r(cache, {.lifetime = std::chrono::hours::max(), .jitter = 0.1, .stale = 1h});
  EXPECT_EQ(get(r), 1);
  EXPECT_GT(cache.find("a")->fresh_until - test_clock::now(), 2000h * 24 * 30);
  EXPECT_GE(cache.find("a")->usable_until, cache.find("a")->fresh_until);
}

TEST_F(ReadThrough, KeepsNothingLongerThanTheClockCanCount) {
  reader<> r(cache, {.lifetime = std::chrono::hours::max(), .jitter = 0, .stale = 1h});
  test_clock::pass(1s);
  EXPECT_EQ(get(r), 1);
  std::ignore = r.get("b", [] { return keep{7, std::chrono::hours::max()}; });
  EXPECT_EQ(cache.find("b")->fresh_until, test_clock::time_point::max());
  std::ignore = r.get("c", [] { return keep{7, std::chrono::hours::min()}; });
  EXPECT_EQ(cache.find("c"), std::nullopt);
  EXPECT_EQ(cache.find("a")->fresh_until, test_clock::time_point::max());
  EXPECT_EQ(cache.find("a")->usable_until, test_clock::time_point::max());
}

TEST_F(ReadThrough, ReadsThroughThreeFunctions) {
  std::map<std::string, cache_entry<int>> entries;
  singleflight::read_through<std::string, int,
                             singleflight::cache_functions<
                                 std::function<std::optional<cache_entry<int>>(const std::string&)>,
                                 std::function<void(const std::string&, const cache_entry<int>&)>,
                                 std::function<void(const std::string&)>>>
      r({[&](const std::string& key) {
           return entries.contains(key) ? std::optional(entries[key]) : std::nullopt;
         },
         [&](const std::string& key, const cache_entry<int>& e) { entries[key] = e; },
         [&](const std::string& key) { entries.erase(key); }});
  EXPECT_EQ(r.get("a", [] { return 1; }), 1);
  EXPECT_EQ(r.get("a", [] { return 2; }), 1);
  r.invalidate("a");
  EXPECT_EQ(r.get("a", [] { return 3; }), 3);
}

// --- Many callers ----------------------------------------------------------------------------------

// https://github.com/cloudflare/pingora/issues/110
TEST_F(ReadThrough, LooksAgainBeforeItLoads) {
  reader<> r(cache, exact);
  // Another caller fills the cache between this one's look and its entry to the group.
  int looks = 0;
  singleflight::read_through<
      std::string, int,
      singleflight::cache_functions<std::function<std::optional<entry>(const std::string&)>,
                                    std::function<void(const std::string&, const entry&)>,
                                    std::function<void(const std::string&)>>,
      singleflight::no_refresh, std::hash<std::string>, std::equal_to<std::string>, test_clock>
      late({[&](const std::string& key) {
              auto found = cache.find(key);
              if (++looks == 1) {
                EXPECT_EQ(get(r), 1);
              }
              return found;
            },
            [&](const std::string& key, const entry& e) { cache.put(key, e); },
            [&](const std::string& key) { cache.erase(key); }},
           exact);
  EXPECT_EQ(late.get("a", fails), 1);
  EXPECT_EQ(late.stats().second_look_hits, 1U);
  EXPECT_EQ(late.stats().loads, 0U);
  EXPECT_EQ(late.stats().misses, 1U);
}

// https://github.com/kubescape/kubevuln/pull/619: joiners were counted as loads.
TEST_F(ReadThrough, CountsEachReadOnceAndEachLoadOnce) {
  reader<> r(cache, exact);
  support::threads followers;
  std::ignore = r.get("a", [&] {
    for (int i = 0; i < 4; ++i) followers.start([&] { EXPECT_EQ(r.get("a", fails), 1); });
    support::await([&] { return r.flights().stats().waiting == 4; }, "the followers");
    return load();
  });
  followers.join();
  EXPECT_EQ(r.stats().misses, 5U);
  EXPECT_EQ(r.stats().loads, 1U);
  EXPECT_EQ(r.stats().hits, 0U);
  EXPECT_EQ(r.stats().undone, 0U);
  EXPECT_EQ(cache.puts, 1);
}

// https://github.com/jellydator/ttlcache/issues/167: an adaptor that lost it.
TEST_F(ReadThrough, GivesTheExceptionOfTheLoaderToAll) {
  reader<> r(cache, exact);
  EXPECT_THROW(r.get("a", fails), std::runtime_error);
  EXPECT_EQ(cache.puts, 0) << "an error is not kept";
  EXPECT_EQ(r.stats().misses, 1U);
  EXPECT_EQ(get(r), 1);
  EXPECT_EQ(r.stats().misses, 2U);
  EXPECT_EQ(r.stats().failed_loads, 1U);
}

// --- A cache that fails ----------------------------------------------------------------------------

// https://github.com/api7/aisix/pull/1149: four timeouts in one request.
TEST_F(ReadThrough, AsksACacheThatDoesNotAnswerOnce) {
  reader<> r(cache, exact);
  cache.find_fails = true;
  EXPECT_EQ(get(r), 1);
  EXPECT_EQ(cache.finds, 1);
  EXPECT_EQ(cache.puts, 0);
  EXPECT_EQ(r.stats().cache_errors, 1U);
  EXPECT_EQ(r.stats().misses, 1U);
}

TEST_F(ReadThrough, DoesNotPutIfTheSecondLookFails) {
  reader<> r(cache, exact);
  std::atomic<int> entered = 0;
  // The first look misses, the second one throws.
  singleflight::cache_functions functions{
      [&](const std::string& key) {
        if (++entered == 2) cache.find_fails = true;
        return cache.find(key);
      },
      [&](const std::string& key, const entry& e) { cache.put(key, e); },
      [&](const std::string& key) { cache.erase(key); }};
  singleflight::read_through<std::string, int, decltype(functions)&, singleflight::no_refresh,
                             std::hash<std::string>, std::equal_to<std::string>, test_clock>
      through(functions, exact);
  EXPECT_EQ(through.get("a", [] { return 1; }), 1);
  EXPECT_EQ(cache.puts, 0);
}

TEST_F(ReadThrough, FailsNoReadBecauseOfAPutOrAnErase) {
  reader<> r(cache, exact);
  cache.put_fails = true;
  EXPECT_EQ(get(r), 1);
  EXPECT_EQ(r.stats().cache_errors, 1U);
  cache.put_fails = false;
  cache.erase_fails = true;
  cache.after_put = [&] { EXPECT_THROW(r.invalidate("a"), std::runtime_error); };
  EXPECT_EQ(get(r), 2);
  EXPECT_EQ(r.stats().cache_errors, 2U);
}

// --- Writes ----------------------------------------------------------------------------------------

// https://github.com/google/guava/issues/1881, in four steps: miss, read, write and invalidate, put.
TEST_F(ReadThrough, KeepsNothingThatWasReadBeforeAWrite) {
  reader<> r(cache, exact);
  int stored = 1;
  EXPECT_EQ(r.get("a",
                  [&] {
                    const int read = stored;
                    r.write("a", [&] { stored = 2; });
                    return read;
                  }),
            1);
  EXPECT_EQ(r.stats().not_put, 1U);
  EXPECT_EQ(cache.find("a"), std::nullopt);
  EXPECT_EQ(r.get("a", [&] { return stored; }), 2);
}

// https://github.com/microlinkhq/keyvhq/pull/275, and exactly between the question and the put.
TEST_F(ReadThrough, TakesBackWhatItHasPutAfterAWrite) {
  reader<> r(cache, exact);
  cache.before_put = [&] { r.write("a", [] {}); };
  EXPECT_EQ(get(r), 1);
  EXPECT_EQ(cache.find("a"), std::nullopt);
  EXPECT_EQ(r.stats().undone, 1U);
  cache.before_put = [] {};
  cache.after_put = [&] { r.write("a", [] {}); };
  EXPECT_EQ(get(r), 2);
  EXPECT_EQ(cache.find("a"), std::nullopt);
}

// The put reports an error and has been done all the same.
TEST_F(ReadThrough, TakesBackAlsoWhatSeemsNotToHaveBeenPut) {
  reader<> r(cache, exact);
  cache.before_put = [&] { r.write("a", [] {}); };
  cache.answer_of_put_is_lost = true;
  EXPECT_EQ(get(r), 1);
  EXPECT_EQ(cache.find("a"), std::nullopt);
}

TEST_F(ReadThrough, InvalidatesAfterAWriteThatThrew) {
  reader<> r(cache, exact);
  std::ignore = get(r);
  EXPECT_THROW(r.write("a", [] { throw std::runtime_error("connection reset"); }),
               std::runtime_error);
  EXPECT_EQ(cache.find("a"), std::nullopt);
  cache.erase_fails = true;
  EXPECT_THROW(r.write("a", []() -> int { throw std::logic_error("not the cache's"); }),
               std::logic_error);
  EXPECT_EQ(r.stats().cache_errors, 1U);
  EXPECT_THROW(r.write("a", [] {}), std::runtime_error) << "the writer must know";
  EXPECT_EQ(r.stats().cache_errors, 1U) << "which has seen it";
}

// Who reads while the writer stores puts the old value into the cache.
TEST_F(ReadThrough, InvalidatesAfterTheWriterHasStored) {
  reader<> r(cache, exact);
  int stored = 1;
  const auto read = [&] { return r.get("a", [&] { return stored; }); };
  r.write("a", [&] {
    EXPECT_EQ(read(), 1);
    stored = 2;
  });
  EXPECT_EQ(read(), 2);
  EXPECT_EQ(r.write("a",
                    [&] {
                      EXPECT_EQ(read(), 2);
                      return stored = 3;
                    }),
            3);
  EXPECT_EQ(read(), 3);
}

TEST_F(ReadThrough, ReturnsWhatTheWriterReturns) {
  reader<> r(cache, exact);
  EXPECT_EQ(*r.write("a", [] { return std::make_unique<int>(7); }), 7);
  int object = 0;
  EXPECT_EQ(&r.write("a", [&]() -> int& { return object; }), &object);
}

// https://github.com/hmchangw/newchat/pull/188: who comes after the write must not join the old load.
TEST_F(ReadThrough, LoadsAnewForWhoComesAfterAWrite) {
  reader<> r(cache, exact);
  std::ignore = r.get("a", [&] {
    r.invalidate("a");
    std::thread([&] { EXPECT_EQ(r.get("a", [] { return 2; }), 2); }).join();
    return 1;
  });
  EXPECT_EQ(get(r), 2) << "the old load did not put its value over the new one";
}

// --- Stale entries ---------------------------------------------------------------------------------

TEST_F(ReadThrough, ServesAStaleEntryWhereTheLoadFails) {
  reader<> r(cache, with_stale);
  EXPECT_EQ(get(r), 1);
  test_clock::pass(10s);
  cache.before_put = [&] { EXPECT_EQ(r.stats().failed_loads, 1U) << "which is why it puts"; };
  EXPECT_EQ(r.get("a", fails), 1);
  EXPECT_EQ(r.stats().stale_hits, 1U);
  EXPECT_EQ(r.stats().failed_loads, 1U);
  EXPECT_EQ(get(r), 1) << "nobody loads for a while";
  EXPECT_EQ(loads, 1);
  EXPECT_EQ(cache.puts, 2);
  test_clock::pass(1s);
  EXPECT_EQ(get(r), 2);
}

// https://github.com/spiceai/spiceai/issues/14126: the windows were not bounded.
TEST_F(ReadThrough, ServesNoEntryBeyondItsTime) {
  reader<> r(cache, with_stale);
  EXPECT_EQ(get(r), 1);
  const auto usable_until = cache.find("a")->usable_until;
  for (int i = 0; i < 69; ++i) {
    test_clock::pass(1s);
    EXPECT_EQ(r.get("a", fails), 1);
  }
  EXPECT_EQ(cache.find("a")->usable_until, usable_until) << "a failure gives no longer life";
  EXPECT_LE(cache.find("a")->fresh_until, usable_until);
  test_clock::pass(1s);
  const int puts = cache.puts;
  EXPECT_THROW(r.get("a", fails), std::runtime_error);
  EXPECT_EQ(cache.puts, puts) << "it is not put again";
  EXPECT_EQ(get(r), 1 + 1);
}

// It was usable when the load began, and is not when the load has failed.
TEST_F(ReadThrough, ServesNoEntryWhoseTimeEndsDuringTheLoad) {
  reader<> r(cache, with_stale);
  EXPECT_EQ(get(r), 1);
  test_clock::pass(10s);
  EXPECT_THROW(r.get("a",
                     [] {
                       test_clock::pass(60s);
                       return fails();
                     }),
               std::runtime_error);
  EXPECT_EQ(r.stats().misses, 2U);
  EXPECT_EQ(r.stats().stale_hits, 0U);
}

// https://github.com/streamlit/streamlit/pull/14690: after a failure, an end and a recovery the next
// stale window works as the first.
TEST_F(ReadThrough, RecoversAfterAnEntryThatHasEnded) {
  reader<> r(cache, with_stale);
  EXPECT_EQ(get(r), 1);
  test_clock::pass(10s);
  EXPECT_EQ(r.get("a", fails), 1);
  test_clock::pass(60s);
  EXPECT_EQ(get(r), 2);
  test_clock::pass(10s);
  EXPECT_EQ(r.get("a", fails), 2);
}

// https://github.com/ZiggyCreatures/FusionCache/issues/648: a stale entry was served after it was erased.
TEST_F(ReadThrough, ServesNoStaleEntryAfterAWrite) {
  reader<> r(cache, with_stale);
  EXPECT_EQ(get(r), 1);
  test_clock::pass(10s);
  r.invalidate("a");
  EXPECT_THROW(r.get("a", fails), std::runtime_error);
}

// The load began before the write and failed after it: the old entry must not come back.
TEST_F(ReadThrough, DoesNotProlongAnEntryThatWasWrittenMeanwhile) {
  reader<> r(cache, with_stale);
  EXPECT_EQ(get(r), 1);
  test_clock::pass(10s);
  std::ignore = r.get("a", [&]() -> int {
    r.invalidate("a");
    throw std::runtime_error("the store is down");
  });
  EXPECT_EQ(cache.find("a"), std::nullopt);
}

// Each by the entry that it has found itself: also a follower.
TEST_F(ReadThrough, ServesTheStaleEntryToFollowers) {
  reader<> r(cache, with_stale);
  EXPECT_EQ(get(r), 1);
  test_clock::pass(10s);
  support::threads followers;
  EXPECT_EQ(r.get("a",
                  [&]() -> int {
                    followers.start([&] { EXPECT_EQ(r.get("a", fails), 1); });
                    support::await([&] { return r.flights().stats().waiting == 1; },
                                   "the follower");
                    throw std::runtime_error("the store is down");
                  }),
            1);
  followers.join();
  EXPECT_EQ(r.stats().stale_hits, 2U);
}

// A deadline is soft where there is a stale entry: the caller waits until then for a newer one.
TEST_F(ReadThrough, ServesTheStaleEntryAtTheDeadline) {
  reader<> r(cache, with_stale);
  EXPECT_EQ(get(r), 1);
  test_clock::pass(10s);
  EXPECT_EQ(r.get("a",
                  [&] {
                    std::thread([&] { EXPECT_EQ(r.get("a", {.timeout = 1ms}, fails), 1); }).join();
                    return load();
                  }),
            2);
  EXPECT_EQ(r.flights().stats().timed_out, 1U);
}

// --- Refreshing on an executor ---------------------------------------------------------------------

/// Keeps tasks until the test runs them.
struct queue {
  std::vector<std::function<void()>>* tasks;
  template <class Task>
  void operator()(Task task) const {
    tasks->push_back(std::move(task));
  }
};

class Refresh : public ReadThrough {
 protected:
  void run_tasks() {
    for (const auto& task : std::exchange(tasks, {})) task();
  }
  std::vector<std::function<void()>> tasks;
};

TEST_F(Refresh, ServesTheStaleEntryMeanwhile) {
  reader<queue> r(cache, with_stale, queue{&tasks});
  const auto load_one = [this] { return load(); };
  EXPECT_EQ(r.get("a", load_one), 1);
  EXPECT_TRUE(tasks.empty()) << "a miss is loaded here";
  test_clock::pass(10s);
  EXPECT_EQ(r.get("a", load_one), 1);
  // https://github.com/mcollina/async-cache-dedupe/issues/164: one refresh for each stale key.
  EXPECT_EQ(r.get("a", load_one), 1);
  ASSERT_EQ(tasks.size(), 1U);
  EXPECT_EQ(loads, 1);
  run_tasks();
  EXPECT_EQ(loads, 2);
  EXPECT_EQ(r.get("a", fails), 2);
  EXPECT_EQ(r.stats().stale_hits, 2U);
  EXPECT_EQ(r.stats().hits, 1U);
}

TEST_F(Refresh, ServesNoEntryBeyondItsTime) {
  reader<queue> r(cache, with_stale, queue{&tasks});
  EXPECT_EQ(r.get("a", [this] { return load(); }), 1);
  test_clock::pass(70s);
  EXPECT_EQ(r.get("a", [this] { return load(); }), 2);
  EXPECT_TRUE(tasks.empty());
}

TEST_F(Refresh, LooksAgainBeforeItLoads) {
  reader<queue> r(cache, with_stale, queue{&tasks});
  reader<> other(cache, with_stale);
  EXPECT_EQ(get(other), 1);
  test_clock::pass(10s);
  EXPECT_EQ(r.get("a", fails), 1);
  EXPECT_EQ(get(other), 2);
  run_tasks();
  EXPECT_EQ(r.stats().loads, 0U);
  EXPECT_EQ(r.stats().second_look_hits, 1U);
}

TEST_F(Refresh, ThatFailsIsNotTriedAgainSoon) {
  reader<queue> r(cache, with_stale, queue{&tasks});
  EXPECT_EQ(r.get("a", [this] { return load(); }), 1);
  test_clock::pass(10s);
  EXPECT_EQ(r.get("a", fails), 1);
  run_tasks();
  EXPECT_EQ(r.get("a", fails), 1);
  EXPECT_TRUE(tasks.empty());
  test_clock::pass(1s);
  EXPECT_EQ(r.get("a", [this] { return load(); }), 1);
  run_tasks();
  EXPECT_EQ(r.get("a", fails), 2);
}

struct full_queue {
  template <class Task>
  void operator()(Task) const {
    throw std::runtime_error("the queue is full");
  }
};

TEST_F(Refresh, IsSkippedWhereTheExecutorIsFull) {
  reader<full_queue> r(cache, with_stale);
  EXPECT_EQ(r.get("a", [this] { return load(); }), 1);
  test_clock::pass(10s);
  EXPECT_EQ(r.get("a", fails), 1);
  EXPECT_EQ(r.get("a", fails), 1);
  support::expect_idle(r.flights());
}

TEST_F(Refresh, IsSkippedWhereTheLoaderCannotBeCopied) {
  struct loader {
    loader() = default;
    loader(const loader&) { throw std::runtime_error("no memory"); }
    loader& operator=(const loader&) = delete;
    ~loader() = default;
    int operator()() const { return 7; }
  };
  reader<queue> r(cache, with_stale, queue{&tasks});
  EXPECT_EQ(r.get("a", [this] { return load(); }), 1);
  test_clock::pass(10s);
  const loader seven;
  EXPECT_EQ(r.get("a", seven), 1);
  EXPECT_TRUE(tasks.empty());
  EXPECT_EQ(r.stats().stale_hits, 1U);
}

TEST_F(Refresh, LeavesNothingOldInTheCacheEither) {
  reader<queue> r(cache, with_stale, queue{&tasks});
  EXPECT_EQ(r.get("a", [this] { return load(); }), 1);
  test_clock::pass(10s);
  EXPECT_EQ(r.get("a",
                  [&] {
                    r.invalidate("a");
                    return 7;
                  }),
            1);
  run_tasks();
  EXPECT_EQ(cache.find("a"), std::nullopt);
}

// The destructor waits for the refresh, which uses the cache, the options and the executor.
TEST_F(Refresh, IsWaitedForByTheDestructor) {
  std::thread worker;
  std::promise<void> began;
  {
    const auto on_thread = [&](auto task) { worker = std::thread(std::move(task)); };
    reader<std::function<void(std::function<void()>)>> r(cache, with_stale, on_thread);
    EXPECT_EQ(r.get("a", [this] { return load(); }), 1);
    test_clock::pass(10s);
    EXPECT_EQ(r.get("a",
                    [&] {
                      began.set_value();
                      std::this_thread::yield();
                      return 2;
                    }),
              1);
    began.get_future().wait();
  }
  worker.join();
  EXPECT_EQ(cache.find("a")->value, 2);
}

// --- Threads that end ------------------------------------------------------------------------------

#if defined(SINGLEFLIGHT_TESTS_THREAD_EXIT_UNWINDS)

void exits() { pthread_exit(nullptr); }

/// Runs it on a thread, which ends in there.
template <class Fn>
void expect_to_end(Fn fn) {
  std::thread([&] {
    fn();
    ADD_FAILURE() << "the thread has not ended";
  }).join();
}

// A thread that is ended where an exception would be caught ends there, and no error is counted.
TEST_F(ReadThrough, LetsItsThreadEndInTheCache) {
  reader<> r(cache, exact);
  cache.before_find = exits;
  expect_to_end([&] { std::ignore = get(r); });
  cache.before_find = [] {};
  cache.before_put = exits;
  expect_to_end([&] { std::ignore = get(r); });
  cache.before_put = [&] { r.invalidate("a"); };
  cache.after_put = [&] { cache.before_erase = exits; };
  expect_to_end([&] { std::ignore = get(r); });
  EXPECT_EQ(r.stats().cache_errors, 0U);
  support::expect_idle(r.flights());
}

TEST_F(ReadThrough, LetsItsThreadEndInTheLoader) {
  reader<> r(cache, with_stale);
  EXPECT_EQ(get(r), 1);
  test_clock::pass(10s);
  const auto load_and_exit = []() -> int {
    exits();
    return 0;
  };
  expect_to_end([&] { std::ignore = r.get("a", load_and_exit); });
  EXPECT_EQ(cache.puts, 1) << "the old entry";
  EXPECT_EQ(r.stats().loads, 2U);
  EXPECT_EQ(r.stats().failed_loads, 0U);
  EXPECT_EQ(r.stats().stale_hits, 0U);
}

TEST_F(ReadThrough, InvalidatesAfterAWriteInWhichItsThreadEnds) {
  reader<> r(cache, exact);
  EXPECT_EQ(get(r), 1);
  expect_to_end([&] { r.write("a", exits); });
  EXPECT_EQ(cache.find("a"), std::nullopt);
  EXPECT_EQ(get(r), 2);
}

struct exiting_executor {
  template <class Task>
  void operator()(Task) const {
    exits();
  }
};

TEST_F(Refresh, LetsItsThreadEndInTheExecutor) {
  reader<exiting_executor> r(cache, with_stale);
  EXPECT_EQ(r.get("a", [this] { return load(); }), 1);
  test_clock::pass(10s);
  expect_to_end([&] { std::ignore = r.get("a", [this] { return load(); }); });
  EXPECT_EQ(r.stats().stale_hits, 0U) << "nobody was served";
  support::expect_idle(r.flights());
}

#endif

// --- Many threads ----------------------------------------------------------------------------------

// Readers and writers of one key: after each write no reader gets what was there before it, for long.
TEST_F(ReadThrough, EndsWithTheLastWrittenValue) {
  reader<> r(cache, exact);
  std::atomic<int> stored = 0;
  for (int round = 0; round < 200; ++round) {
    support::threads all(4, [&](std::size_t me) {
      for (int i = 0; i < 20; ++i) {
        if (me == 0) {
          r.write("a", [&] { ++stored; });
        } else {
          EXPECT_TRUE(r.get("a", [&] { return stored.load(); }));
        }
      }
    });
    all.join();
    ASSERT_EQ(r.get("a", [&] { return stored.load(); }), stored);
  }
}

}  // namespace
