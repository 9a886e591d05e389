// SPDX-License-Identifier: MIT
// `do_many` beside other callers: overlapping sets of keys, single callers, callers that leave, circles.
#include <gtest/gtest.h>
#include <pthread.h>

#include <array>
#include <atomic>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <exception>
#include <functional>
#include <future>
#include <optional>
#include <random>
#include <singleflight/group.hpp>
#include <stdexcept>
#include <system_error>
#include <thread>
#include <tuple>
#include <utility>
#include <vector>

#include "busy_batch.hpp"
#include "executors.hpp"
#include "held_call.hpp"
#include "support.hpp"

#if defined(__cpp_lib_jthread)
#include <stop_token>
#endif

namespace {

using namespace std::chrono_literals;
using singleflight::call_context;
using singleflight::outcome;
using group = singleflight::group<int, int>;

/// Settles each key with ten times itself.
constexpr auto tenfold = [](auto& missing) {
  for (const int key : missing) missing.set(key, 10 * key);
};

/// A `do_many` on a thread of its own, whose loader waits until the test goes on.
class held_bulk {
 public:
  template <class Fn>
  held_bulk(group& flights, std::vector<int> ids, singleflight::bulk_options options, Fn load)
      : thread_([this, &flights, ids = std::move(ids), options, load] {
          rows = flights.do_many(ids, options, [&](auto& missing) {
            begun_.set_value();
            go_.get_future().wait();
            load(missing);
          });
        }) {
    begun_.get_future().wait();
  }
  held_bulk(group& flights, std::vector<int> ids)
      : held_bulk(flights, std::move(ids), {}, tenfold) {}
  held_bulk(const held_bulk&) = delete;
  held_bulk& operator=(const held_bulk&) = delete;
  ~held_bulk() {
    if (thread_.joinable()) end();
  }
  void end() {
    go_.set_value();
    thread_.join();
  }

  std::vector<outcome<int>> rows;

 private:
  std::promise<void> begun_;
  std::promise<void> go_;
  std::thread thread_;
};

// --- Sharing ---------------------------------------------------------------------------------------

TEST(BulkSharing, JoinsCallsOfOthersAndLoadsTheRest) {
  group flights;
  support::held_call single(flights);  // for key 0
  std::vector<outcome<int>> rows;
  std::vector<int> loaded;
  std::thread bulk([&] {
    rows = flights.do_many({2, 0, 1, 0}, [&](auto& missing) {
      loaded.assign(missing.begin(), missing.end());
      tenfold(missing);
    });
  });
  support::await_followers(flights, 1);
  support::await([&] { return flights.stats().in_flight == 1; }, "the bulk to end its own calls");
  single.end(7);
  bulk.join();
  EXPECT_EQ(loaded, (std::vector{2, 1}));
  EXPECT_EQ(rows[0].value(), 20);
  EXPECT_EQ(rows[1].value(), 7);
  EXPECT_EQ(rows[3].value(), 7);
  auto joined = std::move(rows[3]).result();
  EXPECT_FALSE(joined.led());
  EXPECT_TRUE(joined.shared());
  EXPECT_EQ(flights.stats().joined, 1U);
  EXPECT_EQ(flights.stats().led, 3U);
}

TEST(BulkSharing, DoesNotRunItsLoaderIfAllKeysAreJoined) {
  group flights;
  support::held_call single(flights);
  std::thread bulk([&] { EXPECT_EQ(flights.do_many({0}, [](auto&) { FAIL(); })[0].value(), 7); });
  support::await_followers(flights, 1);
  single.end(7);
  bulk.join();
  EXPECT_EQ(flights.stats().batches, 0U);
}

// https://github.com/slatedb/slatedb/pull/1810: a key waited for the slowest of its batch.
TEST(BulkSharing, AnswersTheFollowersOfASettledKeyWhileTheOthersLoad) {
  group flights;
  std::promise<void> answered;
  std::thread follower;
  const auto rows = flights.do_many({1, 2}, [&](auto& missing) {
    follower = std::thread([&] {
      EXPECT_EQ(*flights.do_call(1, [] { return 0; }), 10);
      answered.set_value();
    });
    support::await_followers(flights, 1);
    missing.set(1, 10);
    answered.get_future().wait();
    missing.set(2, 20);
  });
  follower.join();
  EXPECT_TRUE(rows[0].has_value());
  EXPECT_EQ(rows[1].value(), 20);
}

// https://github.com/overblog/dataloader-php/pull/84; of a peer that released the first key alone.
TEST(BulkSharing, TellsTheFollowersOfEveryKeyThatTheLoaderHasThrown) {
  group flights;
  std::array<std::exception_ptr, 5> errors;
  support::threads followers;
  const auto rows = flights.do_many({0, 1, 2, 3, 4}, [&](auto&) {
    for (std::size_t i = 0; i < errors.size(); ++i) {
      followers.start([&, i] {
        try {
          std::ignore = flights.do_call(static_cast<int>(i), [] { return 0; });
        } catch (...) {
          errors[i] = std::current_exception();
        }
      });
    }
    support::await_followers(flights, errors.size());
    throw std::runtime_error("connection reset");
  });
  followers.join();
  for (std::size_t i = 0; i < errors.size(); ++i) {
    support::expect_same(errors[i], rows[0].error());
    support::expect_same(errors[i], rows[i].error());
  }
  support::expect_idle(flights);
  EXPECT_EQ(flights.stats().failed, 5U);
}

// Of a peer whose single caller got a zero and no error.
TEST(BulkSharing, TellsASingleFollowerThatTheLoaderGaveNoValue) {
  group flights;
  std::exception_ptr error;
  support::threads followers;
  std::ignore = flights.do_many({1}, [&](auto&) {
    followers.start([&] {
      try {
        std::ignore = flights.do_call(1, [] { return 0; });
      } catch (...) {
        error = std::current_exception();
      }
    });
    support::await_followers(flights, 1);
  });
  followers.join();
  EXPECT_EQ(support::call_error_of(error), std::errc::no_such_file_or_directory);
}

// https://github.com/nicia-ai/typegraph/pull/24: the keys of later batches must not be held back.
TEST(BulkSharing, LeavesTheKeysOfLaterBatchesToOthers) {
  group flights({.shards = 1});
  std::vector<std::vector<int>> batches;
  const auto rows = flights.do_many({1, 2, 3, 4}, {.max_batch = 2}, [&](auto& missing) {
    batches.emplace_back(missing.begin(), missing.end());
    if (batches.size() == 1) {
      for (const int key : {1, 2, 3, 4}) {
        const bool mine = key == missing[0] || key == missing[1];
        if (!mine) {
          EXPECT_EQ(*flights.do_call(key, [] { return 5; }), 5);
        }
      }
    }
    tenfold(missing);
  });
  EXPECT_EQ(batches.size(), 2U);
  for (int i = 0; i < 4; ++i) EXPECT_EQ(rows[static_cast<std::size_t>(i)].value(), 10 * (i + 1));
}

// https://github.com/ben-manes/caffeine/issues/601, https://github.com/cache2k/cache2k/issues/116: equal
// sets were loaded twice.
TEST(BulkSharing, LoadsAKeyOfOverlappingSetsByOneLoaderAtATime) {
  group flights;
  constexpr std::size_t threads = 8;
  std::array<std::atomic<int>, 16> loading{};
  std::atomic<int> loads = 0;
  support::threads callers(threads, [&](std::size_t me) {
    std::minstd_rand random(static_cast<unsigned>(me) + 1);
    for (int round = 0; round < 300; ++round) {
      std::vector<int> ids;
      for (int i = 0; i < 6; ++i) ids.push_back(static_cast<int>(random() % loading.size()));
      const auto rows = flights.do_many(
          ids, {.max_batch = round % 3 == 0 ? std::size_t{2} : std::size_t{100}},
          [&](auto& missing) {
            for (const int key : missing) {
              EXPECT_EQ(loading[static_cast<std::size_t>(key)]++, 0) << "loaded twice at a time";
              ++loads;
            }
            for (const int key : missing) {
              --loading[static_cast<std::size_t>(key)];
              missing.set(key, 10 * key);
            }
          });
      for (std::size_t i = 0; i < ids.size(); ++i) EXPECT_EQ(rows[i].value(), 10 * ids[i]);
      EXPECT_EQ(*flights.do_call(ids[0], [&] { return 10 * ids[0]; }), 10 * ids[0]);
    }
  });
  callers.join();
  const auto stats = flights.stats();
  EXPECT_GT(stats.led, 0U);
  EXPECT_EQ(stats.rejected, 0U);
  EXPECT_LE(static_cast<std::uint64_t>(loads), stats.led);
  support::expect_idle(flights);
}

// Two callers that hold what the other wants, and ask in opposite order.
TEST(BulkSharing, DoesNotHangWhereSetsCross) {
  group flights;
  support::latch both(2);
  support::threads callers(2, [&](std::size_t me) {
    const std::vector<int> ids = me == 0 ? std::vector{1, 2, 3} : std::vector{3, 2, 1, 4};
    const auto rows = flights.do_many(ids, [&](auto& missing) { tenfold(missing); });
    both.arrive_and_wait();
    for (std::size_t i = 0; i < ids.size(); ++i) EXPECT_EQ(rows[i].value(), 10 * ids[i]);
  });
  callers.join();

  // Now so that each surely holds one key when it asks for the other's.
  std::promise<void> first_began;
  std::thread first([&] {
    const auto rows = flights.do_many({1}, [&](auto& missing) {
      first_began.set_value();
      support::await_followers(flights, 1);
      tenfold(missing);
    });
    EXPECT_EQ(rows[0].value(), 10);
  });
  first_began.get_future().wait();
  const auto rows = flights.do_many({2, 1}, [&](auto& missing) {
    EXPECT_EQ(missing.size(), 1U);
    tenfold(missing);
  });
  first.join();
  EXPECT_EQ(rows[1].value(), 10);
}

// Others are waited for when there is nothing left to load.
TEST(BulkSharing, LoadsAllItsBatchesBeforeItWaitsForOthers) {
  for (const bool on_executor : {false, true}) {
    group flights;
    support::held_call single(flights);  // for key 0
    std::thread bulk([&] {
      const std::vector<int> ids{0, 1, 2};
      const auto rows = on_executor
                            ? flights.do_many_on(
                                  ids, [](const auto& task) { task(); }, {.max_batch = 1}, tenfold)
                            : flights.do_many(ids, {.max_batch = 1}, tenfold);
      EXPECT_EQ(rows[0].value(), 7);
      EXPECT_EQ(rows[2].value(), 20);
    });
    support::await([&] { return flights.stats().batches == 2 && flights.stats().in_flight == 1; },
                   "the batches");
    single.end(7);
    bulk.join();
  }
}

// --- Circles ---------------------------------------------------------------------------------------

// Each of two loaders asks, inside, for a key of the other's: one is refused, none hangs.
// https://github.com/ChilliCream/graphql-platform/issues/4280
TEST(BulkSharing, RefusesOneOfTwoLoadersThatAskForEachOthersKeys) {
  group flights;
  support::latch both_load(2);
  std::atomic<int> refused = 0;
  support::threads callers(2, [&](std::size_t me) {
    const int mine = static_cast<int>(me) + 1;
    const int theirs = 3 - mine;
    const auto rows = flights.do_many({mine}, [&](auto& missing) {
      both_load.arrive_and_wait();
      const auto inner = flights.do_many({theirs, 100 + mine}, tenfold);
      EXPECT_TRUE(inner[1].has_value());
      if (!inner[0].has_value()) {
        EXPECT_EQ(support::call_error_of(inner[0].error()),
                  std::errc::resource_deadlock_would_occur);
        ++refused;
      }
      tenfold(missing);
    });
    EXPECT_EQ(rows[0].value(), 10 * mine);
  });
  callers.join();
  EXPECT_EQ(refused, 1);
  support::expect_idle(flights);
}

// A circle that comes into being while the bulk runs its loader, after it has joined.
TEST(BulkSharing, RefusesACircleThatClosedAfterItHadJoined) {
  group flights;
  std::promise<void> other_began;
  std::promise<void> joined;
  std::thread other([&] {
    std::ignore = flights.do_call(1, [&] {
      other_began.set_value();
      joined.get_future().wait();
      return *flights.do_call(9, [] { return 0; });  // which the first thread leads
    });
  });
  other_began.get_future().wait();
  std::ignore = flights.do_call(9, [&] {
    const auto rows = flights.do_many({1, 2}, [&](auto& missing) {
      EXPECT_EQ(flights.stats().waiting, 1U);
      joined.set_value();
      support::await_followers(flights, 2);
      tenfold(missing);
    });
    EXPECT_EQ(support::call_error_of(rows[0].error()), std::errc::resource_deadlock_would_occur);
    EXPECT_EQ(rows[1].value(), 20);
    return 9;
  });
  other.join();
  support::expect_idle(flights);
}

// While it runs its loader the caller waits for nobody, whatever it has joined: no false alarm.
TEST(BulkSharing, IsNotInTheGraphOfWaitsWhileItsLoaderRuns) {
  group flights;
  std::promise<void> other_began;
  std::promise<void> go;
  std::thread other([&] {
    std::ignore = flights.do_call(1, [&] {
      other_began.set_value();
      go.get_future().wait();
      return *flights.do_call(2, [] { return 0; });  // which the bulk leads, and ends first
    });
  });
  other_began.get_future().wait();
  std::ignore = flights.do_call(9, [&] {
    const auto rows = flights.do_many({1, 2}, [&](auto& missing) {
      go.set_value();
      support::await_followers(flights, 2);
      tenfold(missing);
    });
    EXPECT_EQ(rows[0].value(), 20);
    EXPECT_EQ(rows[1].value(), 20);
    return 9;
  });
  other.join();
}

/// Asks for a key by a callback inside the loader of that context.
template <class Told>
void ask_inside(group& flights, int key, const call_context& inside, Told told) {
  flights.async_call(
      key, singleflight::resume_inline, {.inside = &inside},
      [](const singleflight::leader<int>&) { ADD_FAILURE() << "it has not been joined"; },
      [told](outcome<int> got) { told(std::move(got)); });
}

TEST(BulkSharing, RefusesAnAsynchronousCallInsideItsLoaderForItsOwnKey) {
  group flights;
  std::vector<std::exception_ptr> errors;
  const auto rows = flights.do_many({1, 2}, [&](auto& missing, const call_context& context) {
    for (const int key : {1, 2, 1}) {
      ask_inside(flights, key, context, [&](const auto& got) { errors.push_back(got.error()); });
    }
    tenfold(missing);
  });
  ASSERT_EQ(errors.size(), 3U);
  for (const auto& e : errors)
    EXPECT_EQ(support::call_error_of(e), std::errc::resource_deadlock_would_occur);
  EXPECT_EQ(rows[1].value(), 20);
}

// Its thread is free when the loader is done, whatever still waits inside the loader.
TEST(BulkSharing, LeavesNothingInTheGraphOfWaitsWhenItsLoaderIsDone) {
  group flights;
  std::promise<void> began, go;
  int told = 0;
  std::thread other([&] {
    std::ignore = flights.do_call(5, [&] {
      began.set_value();
      go.get_future().wait();
      return *flights.do_call(7, [] { return 0; });
    });
  });
  began.get_future().wait();
  std::ignore = flights.do_call(7, [&] {
    std::ignore = flights.do_many({1}, [&](auto& missing, const call_context& context) {
      ask_inside(flights, 5, context, [&](const auto& got) { told = got.value(); });
      tenfold(missing);
    });
    go.set_value();
    support::await_followers(flights, 2);
    return 70;
  });
  other.join();
  EXPECT_EQ(told, 70);
}

// --- Full calls, old calls, calls that failed ------------------------------------------------------

TEST(BulkSharing, IsRefusedByAFullCall) {
  group flights({.max_waiters = 0});
  support::held_call single(flights);
  const auto rows = flights.do_many({0, 1}, tenfold);
  EXPECT_EQ(support::call_error_of(rows[0].error()), std::errc::resource_unavailable_try_again);
  EXPECT_EQ(rows[1].value(), 10);
  EXPECT_EQ(flights.stats().rejected, 1U);
}

TEST(BulkSharing, LoadsTheKeyOfAFullCallItselfWhereTheGroupSaysSo) {
  group flights({.max_waiters = 0, .when_full = singleflight::group_options::run_alone});
  support::held_call single(flights);
  const auto rows = flights.do_many({0, 1, 0}, [](auto& missing) {
    EXPECT_EQ(missing.size(), 2U);
    missing.rest(5);
  });
  EXPECT_EQ(rows[0].value(), 5);
  EXPECT_EQ(rows[2].value(), 5);
  EXPECT_EQ(flights.stats().rejected, 1U);
  single.end(7);
  EXPECT_EQ(single.value, 7);
}

TEST(BulkSharing, TriesTheKeysAgainTogetherWhoseCallsFailed) {
  group flights;
  std::vector<std::vector<int>> loads;
  std::vector<outcome<int>> rows;
  std::thread bulk;
  std::ignore = flights.do_many({3, 1, 2}, [&](auto& missing) {
    bulk = std::thread([&] {
      rows = flights.do_many({1, 2, 3, 4}, {.call = {.attempts = 2}}, [&](auto& mine) {
        loads.emplace_back(mine.begin(), mine.end());
        tenfold(mine);
      });
    });
    support::await_followers(flights, 3);
    missing.set(2, 5);
    throw std::runtime_error("connection reset");
  });
  bulk.join();
  EXPECT_EQ(loads, (std::vector<std::vector<int>>{{4}, {1, 3}}));
  EXPECT_EQ(rows[0].value(), 10);
  EXPECT_EQ(rows[1].value(), 5);
  EXPECT_EQ(rows[2].value(), 30);
  EXPECT_EQ(rows[3].value(), 40);
  EXPECT_EQ(flights.stats().joined, 3U);
  EXPECT_EQ(flights.stats().batches, 3U);
}

TEST(BulkSharing, GoesOnToNewerCallsWhereTheOldOnesHang) {
  group flights({.max_age = 20ms});
  held_bulk hung(flights, {1, 2});
  const auto rows = flights.do_many({1, 2, 3}, tenfold);
  for (const auto& row : rows) EXPECT_TRUE(row.has_value());
  EXPECT_GE(flights.stats().superseded, 2U);
  hung.end();
  EXPECT_EQ(hung.rows[0].value(), 10);
  support::expect_idle(flights);
}

// --- Threads of a loader ---------------------------------------------------------------------------

TEST(BulkSharing, LetsManyThreadsUseItsBatchAtOnce) {
  group flights({.shards = 2});
  const auto load = [&](auto& missing, const singleflight::call_context& context) {
    support::use_by_many_threads(flights, missing, context);
  };
  support::expect_tenfold(flights.do_many(support::many_keys(), load));
  support::expect_tenfold(
      flights.do_many_on(support::many_keys(), support::inline_executor, {}, load));
  support::expect_idle(flights);
}

// --- Leaving ---------------------------------------------------------------------------------------

TEST(BulkLeaving, GivesWhatIsThereAtItsDeadline) {
  group flights;
  held_bulk slow(flights, {1, 2});
  support::held_call single(flights);
  const auto rows = flights.do_many({0, 1, 5}, {.call = {.timeout = 20ms}}, tenfold);
  EXPECT_EQ(support::call_error_of(rows[0].error()), std::errc::timed_out);
  EXPECT_EQ(support::call_error_of(rows[1].error()), std::errc::timed_out);
  EXPECT_EQ(rows[2].value(), 50);
  EXPECT_EQ(flights.stats().timed_out, 2U);
  EXPECT_EQ(flights.stats().waiting, 0U);
  slow.end();
  EXPECT_EQ(slow.rows[0].value(), 10) << "the others do not notice";
}

TEST(BulkLeaving, BeginsNothingAfterItsDeadline) {
  group flights;
  const auto past = std::chrono::steady_clock::now();
  const auto rows = flights.do_many({1, 2, 1}, {.call = {.deadline = past}}, [](auto&) { FAIL(); });
  for (const auto& row : rows) EXPECT_EQ(support::call_error_of(row.error()), std::errc::timed_out);
  EXPECT_EQ(flights.stats().rejected, 2U);
  EXPECT_EQ(flights.stats().timed_out, 2U);
}

// A deadline that passes while the caller loads does not take away what others have loaded meanwhile.
TEST(BulkLeaving, TakesWhatOthersHaveLoadedThoughItsOwnLoadTookLonger) {
  group flights;
  held_bulk other(flights, {1});
  const auto deadline = std::chrono::steady_clock::now() + 1ms;
  const auto rows = flights.do_many({1, 2}, {.call = {.deadline = deadline}}, [&](auto& missing) {
    other.end();
    support::await([&] { return std::chrono::steady_clock::now() > deadline; }, "the deadline");
    tenfold(missing);
  });
  if (rows[1].error() == nullptr) {  // unless the machine was too slow to begin in time
    EXPECT_EQ(rows[1].value(), 20);
    EXPECT_EQ(rows[0].value(), 10);
  }
}

#if defined(__cpp_lib_jthread)

TEST(BulkLeaving, LeavesAtItsStopRequest) {
  group flights;
  held_bulk slow(flights, {1, 2});
  std::stop_source stop;
  std::vector<outcome<int>> rows;
  std::thread bulk([&] {
    rows = flights.do_many({1, 2, 3}, {.call = {.stop = stop.get_token()}}, tenfold);
  });
  support::await_followers(flights, 2);
  stop.request_stop();
  bulk.join();
  EXPECT_EQ(support::call_error_of(rows[0].error()), std::errc::operation_canceled);
  EXPECT_EQ(support::call_error_of(rows[1].error()), std::errc::operation_canceled);
  EXPECT_EQ(flights.stats().cancelled, 2U);
  const auto late =
      flights.do_many({8}, {.call = {.stop = stop.get_token()}}, [](auto&) { FAIL(); });
  EXPECT_EQ(support::call_error_of(late[0].error()), std::errc::operation_canceled);
}

// https://github.com/graph-gophers/dataloader/issues/80: whose context is it?
TEST(BulkLeaving, OfTheLeaderFailsNobody) {
  group flights;
  std::stop_source leader;
  support::threads followers;
  const auto rows = flights.do_many(
      {1, 2}, {.call = {.stop = leader.get_token()}},
      [&](auto& missing, const call_context& context) {
        followers.start([&] { EXPECT_EQ(*flights.do_call(1, [] { return 0; }), 10); });
        support::await_followers(flights, 1);
        const std::stop_token told = context.stop_token();
        leader.request_stop();
        EXPECT_FALSE(told.stop_requested()) << "key 1 is wanted";
        EXPECT_TRUE(missing.wanted(0));
        EXPECT_FALSE(missing.wanted(1)) << "nobody wants key 2 any more";
        EXPECT_EQ(*flights.do_call(2, [] { return 5; }), 5) << "a newcomer starts a new call";
        missing.set(2, 20);
        EXPECT_FALSE(told.stop_requested());
        missing.set(1, 10);
      });
  followers.join();
  EXPECT_EQ(rows[0].value(), 10);
  EXPECT_EQ(rows[1].value(), 20) << "the leader gets what its loader gave";
  EXPECT_EQ(flights.stats().cancelled, 2U);
}

// https://github.com/strawberry-graphql/strawberry/pull/4379, https://github.com/trpc/trpc/pull/7385:
// work went on for nobody.
TEST(BulkLeaving, OfAllCallersOfAllKeysStopsTheLoaderOnce) {
  group flights;
  std::stop_source leader;
  std::stop_source follower;
  std::atomic<int> stops = 0;
  support::threads followers;
  std::ignore = flights.do_many(
      {1, 2, 3}, {.call = {.stop = leader.get_token()}},
      [&](auto& missing, const call_context& context) {
        followers.start([&] {
          const auto rows = flights.do_many({1, 2}, {.call = {.stop = follower.get_token()}},
                                            [](auto&) { FAIL(); });
          EXPECT_EQ(support::call_error_of(rows[1].error()), std::errc::operation_canceled);
        });
        support::await_followers(flights, 2);
        const std::stop_token told = context.stop_token();
        const std::stop_callback count(told, [&] { ++stops; });
        leader.request_stop();
        EXPECT_EQ(stops, 0);
        missing.set(3, 30);
        EXPECT_EQ(stops, 0) << "1 and 2 are wanted";
        follower.request_stop();
        support::await([&] { return told.stop_requested(); }, "the loader to be stopped");
        EXPECT_EQ(context.stop_token(), told);
        EXPECT_FALSE(missing.wanted(0));
      });
  followers.join();
  EXPECT_EQ(stops, 1);
  support::expect_idle(flights);
}

// A loader that asks after everybody has left is told at once.
TEST(BulkLeaving, BeforeTheLoaderAsksForItsTokenCounts) {
  group flights;
  std::stop_source leader;
  std::ignore = flights.do_many({1, 2}, {.call = {.stop = leader.get_token()}},
                                [&](auto& missing, const call_context& context) {
                                  leader.request_stop();
                                  EXPECT_TRUE(context.stop_token().stop_requested());
                                  missing.rest(1);
                                });
}

// The last wanted key is settled: what is left is for nobody. Who waited for it has been told by then.
TEST(BulkLeaving, StopsTheLoaderWhenTheLastWantedKeyIsSettled) {
  for (const bool with_value : {true, false}) {
    group flights;
    std::stop_source leader;
    support::threads followers;
    const auto why = std::make_exception_ptr(std::runtime_error("bad key"));
    std::ignore = flights.do_many(
        {1, 2}, {.call = {.stop = leader.get_token()}},
        [&](auto& missing, const call_context& context) {
          std::promise<bool> told;
          followers.start(
              [&] { told.set_value(flights.do_many({1}, [](auto&) { FAIL(); })[0].has_value()); });
          support::await_followers(flights, 1);
          const std::stop_token asked = context.stop_token();
          const std::stop_callback stopped(asked,
                                           [&] { EXPECT_EQ(told.get_future().get(), with_value); });
          leader.request_stop();
          EXPECT_FALSE(asked.stop_requested());
          with_value ? missing.set(1, 10) : missing.fail(1, why);
          EXPECT_TRUE(asked.stop_requested());
        });
  }
}

// The token of a batch is of the keys of that batch.
TEST(BulkLeaving, TellsEachBatchOfItsOwnKeys) {
  group flights;
  std::stop_source leader;
  std::vector<bool> stopped;
  const auto rows = flights.do_many({1, 2}, {.call = {.stop = leader.get_token()}, .max_batch = 1},
                                    [&](auto& missing, const call_context& context) {
                                      const std::stop_token told = context.stop_token();
                                      if (!stopped.empty()) leader.request_stop();
                                      stopped.push_back(told.stop_requested());
                                      missing.rest(1);
                                    });
  EXPECT_EQ(stopped, (std::vector{false, true}));
  EXPECT_TRUE(rows[1].has_value());
}

// The token of an earlier batch is of no use to a later one.
TEST(BulkLeaving, GoesOnWhereALaterBatchDoesNotAskForItsToken) {
  group flights;
  std::vector<std::stop_token> asked;
  const auto rows =
      flights.do_many({1, 2, 3}, {.max_batch = 1}, [&](auto& missing, const call_context& context) {
        if (asked.empty()) asked.push_back(context.stop_token());
        tenfold(missing);
      });
  EXPECT_EQ(rows[2].value(), 30);
  EXPECT_FALSE(asked.at(0).stop_requested());
}

// All keys are settled: there is nothing to stop, though the loader runs on.
TEST(BulkLeaving, DoesNotStopALoaderThatHasSettledAll) {
  group flights;
  std::ignore = flights.do_many({1, 2}, [&](auto& missing, const call_context& context) {
    const std::stop_token told = context.stop_token();
    missing.rest(1);
    EXPECT_FALSE(told.stop_requested());
  });
}

#endif

#if defined(SINGLEFLIGHT_TESTS_THREAD_EXIT_UNWINDS)
// A thread that exits in its loader, or is cancelled while it waits, leaves the calls that it has joined.
TEST(BulkLeaving, ByTheEndOfItsThreadTakesItOutOfAllAccounts) {
  group flights;
  held_bulk slow(flights, {1, 2});
  std::thread([&] {
    std::ignore =
        flights.do_many({1, 2, 3}, {.call = {.timeout = 1h}}, [](auto&) { pthread_exit(nullptr); });
  }).join();
  EXPECT_EQ(flights.stats().waiting, 0U);
  EXPECT_EQ(flights.stats().in_flight, 2U);
  EXPECT_EQ(flights.stats().failed, 1U);
#if defined(__cpp_lib_jthread) && defined(SINGLEFLIGHT_TESTS_CANCELS_WAITS)
  std::promise<pthread_t> id;
  std::stop_source
      stop;  // so that it waits in a condition variable, where a thread can be cancelled
  std::thread cancelled([&] {
    id.set_value(pthread_self());
    std::ignore = flights.do_many({1, 2}, {.call = {.stop = stop.get_token()}}, tenfold);
  });
  support::await_followers(flights, 2);
  pthread_cancel(id.get_future().get());
  cancelled.join();
  EXPECT_EQ(flights.stats().waiting, 0U);
#endif
}
#endif

}  // namespace
