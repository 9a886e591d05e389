// SPDX-License-Identifier: MIT
// `do_many`: which keys the loader gets, and what each position of the caller gets.
#include <gtest/gtest.h>
#include <pthread.h>

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <exception>
#include <list>
#include <map>
#include <memory>
#include <singleflight/group.hpp>
#include <span>
#include <stdexcept>
#include <string>
#include <system_error>
#include <thread>
#include <tuple>
#include <unordered_map>
#include <utility>
#include <vector>

#include "executors.hpp"
#include "support.hpp"

#if defined(__cpp_lib_jthread)
#include <stop_token>
#endif

namespace {

using singleflight::batch;
using singleflight::call_context;
using singleflight::call_error;
using singleflight::outcome;
using group = singleflight::group<std::string, int>;
using keys = std::vector<std::string>;

/// The keys of a batch.
template <class Batch>
keys keys_of(const Batch& b) {
  return {b.begin(), b.end()};
}

/// Settles each key with its first character.
struct first_characters {
  std::vector<keys>* seen = nullptr;
  void operator()(batch<std::string, int>& b) const {
    if (seen != nullptr) seen->push_back(keys_of(b));
    for (const std::string& key : b) EXPECT_TRUE(b.set(key, key.front()));
  }
};

TEST(Bulk, GivesEachPositionItsValueByOneInvocation) {
  group flights;
  std::vector<keys> seen;
  const auto rows = flights.do_many(keys{"b", "a", "c"}, first_characters{&seen});
  ASSERT_EQ(rows.size(), 3U);
  EXPECT_EQ(rows[0].value(), 'b');
  EXPECT_EQ(rows[1].value(), 'a');
  EXPECT_EQ(rows[2].value(), 'c');
  EXPECT_EQ(seen, (std::vector<keys>{keys{"b", "a", "c"}})) << "in the order of the caller";
  EXPECT_EQ(flights.stats().led, 3U);
  EXPECT_EQ(flights.stats().batches, 1U);
  support::expect_idle(flights);
}

// https://github.com/graphql/dataloader/issues/280, https://github.com/graphql/dataloader/issues/49
TEST(Bulk, ShowsTheLoaderAKeyOnceHoweverOftenItIsGiven) {
  group flights;
  std::vector<keys> seen;
  auto rows = flights.do_many(keys{"a", "b", "a", "a", "b"}, first_characters{&seen});
  EXPECT_EQ(seen, (std::vector<keys>{keys{"a", "b"}}));
  ASSERT_EQ(rows.size(), 5U);
  for (const std::size_t i : {0U, 2U, 3U}) EXPECT_EQ(rows[i].value(), 'a');
  for (const std::size_t i : {1U, 4U}) EXPECT_EQ(rows[i].value(), 'b');
  EXPECT_EQ(&rows[0].value(), &rows[3].value()) << "shared, not copied";
  const auto result = std::move(rows[3]).result();
  EXPECT_TRUE(result.led());
  EXPECT_FALSE(result.shared()) << "with no other caller";
  EXPECT_EQ(flights.stats().led, 2U);
}

// https://github.com/graphql/dataloader/issues/294: duplicates counted towards the limit.
TEST(Bulk, CountsUniqueKeysTowardsTheLimitOfABatch) {
  group flights;
  std::vector<keys> seen;
  std::ignore = flights.do_many(keys{"a", "b", "a", "a", "a", "b", "c"}, {.max_batch = 3},
                                first_characters{&seen});
  EXPECT_EQ(seen, (std::vector<keys>{keys{"a", "b", "c"}}));
}

// https://github.com/metasfresh/metasfresh/pull/24998, https://github.com/nicia-ai/typegraph/pull/24
TEST(Bulk, RunsTheLoaderOnceForEveryBatch) {
  singleflight::group<int, int> flights;
  std::vector<int> ids;
  for (int i = 0; i < 2500; ++i) ids.push_back(i);
  std::vector<std::size_t> sizes;
  const auto rows = flights.do_many(ids, {.max_batch = 1000}, [&](auto& missing) {
    sizes.push_back(missing.size());
    EXPECT_EQ(flights.stats().in_flight, missing.size()) << "the others are held back";
    EXPECT_TRUE(std::is_sorted(missing.begin(), missing.end())) << "not in the caller's order";
    for (std::size_t i = 0; i < missing.size(); ++i) missing.set_at(i, -missing[i]);
  });
  EXPECT_EQ(sizes, (std::vector<std::size_t>{1000, 1000, 500}));
  for (std::size_t i = 0; i < rows.size(); ++i) EXPECT_EQ(rows[i].value(), -ids[i]);
  EXPECT_EQ(flights.stats().batches, 3U);
}

TEST(Bulk, OfNoKeysDoesNothing) {
  group flights;
  EXPECT_TRUE(flights.do_many(keys{}, [](auto&) { FAIL(); }).empty());
  EXPECT_TRUE(flights.do_many({}, [](auto&) { FAIL(); }).empty());
  EXPECT_EQ(flights.stats().batches, 0U);
}

TEST(Bulk, TakesWhateverCanBeIteratedOver) {
  group flights;
  const char* const names[] = {"a", "b"};
  EXPECT_EQ(flights.do_many(names, first_characters{})[1].value(), 'b');
  EXPECT_EQ(flights.do_many({"a", "b"}, first_characters{})[1].value(), 'b');
  EXPECT_EQ(flights.do_many(std::list<std::string>{"x"}, first_characters{})[0].value(), 'x');
  const std::array<std::string, 2> fixed{"y", "z"};
  EXPECT_EQ(flights.do_many(std::span(fixed), first_characters{})[1].value(), 'z');
}

// --- What the loader returns -----------------------------------------------------------------------

TEST(BulkLoader, MayReturnARangeOfKeysAndValues) {
  group flights;
  const auto by_map = flights.do_many(keys{"a", "b"}, [](const auto& missing) {
    std::unordered_map<std::string, int> found;
    for (const std::string& key : missing) found[key] = key.front();
    return found;
  });
  EXPECT_EQ(by_map[1].value(), 'b');
  const auto by_vector = flights.do_many(keys{"a", "b"}, [](const auto&) {
    return std::vector<std::pair<const char*, short>>{{"b", short{2}}, {"a", short{1}}};
  });
  EXPECT_EQ(by_vector[0].value(), 1);
  EXPECT_EQ(by_vector[1].value(), 2);
}

TEST(BulkLoader, GivesItsValuesAwayUnlessTheyAreNotItsOwn) {
  singleflight::group<int, std::string> flights;
  std::map<int, std::string> kept{{1, "a text that is too long for the small buffer"}};
  EXPECT_EQ(flights
                .do_many(
                    {1}, [&](auto&) -> auto& { return kept; })[0]
                .value(),
            kept[1]);
  EXPECT_FALSE(kept[1].empty());
  EXPECT_EQ(flights.do_many({1}, [&](auto&) { return std::span(&*kept.begin(), 1); })[0].value(),
            kept[1]);
  EXPECT_FALSE(kept[1].empty());
  singleflight::group<int, std::unique_ptr<int>> pointers;
  const auto rows = pointers.do_many({1}, [](auto&) {
    std::map<int, std::unique_ptr<int>> made;
    made[1] = std::make_unique<int>(7);
    return made;
  });
  EXPECT_EQ(*rows[0].value(), 7);
}

// https://github.com/ben-manes/caffeine/issues/655: sizes were compared instead of keys.
TEST(BulkLoader, ThatReturnsAnotherKeyHasNotLoadedTheOneAskedFor) {
  group flights;
  const auto rows = flights.do_many(keys{"x"}, [](auto& missing) {
    EXPECT_FALSE(missing.set("y", 1));
    EXPECT_FALSE(missing.fail("z", std::make_exception_ptr(1)));
  });
  EXPECT_EQ(support::call_error_of(rows[0].error()), std::errc::no_such_file_or_directory);
  EXPECT_EQ(flights.stats().failed, 1U);
}

// Cut to 32 bits, the row of one user would be another's.
TEST(BulkLoader, HasNoKeyThatIsANumberBeyondTheRangeOfKey) {
  const std::int64_t beyond = 7 + (std::int64_t{1} << 32);
  const auto why = std::make_exception_ptr(1);
  singleflight::group<std::uint32_t, int> flights;
  const auto rows = flights.do_many({7U, 8U, 9U}, [&](auto& missing) {
    EXPECT_FALSE(missing.set(beyond, 1));
    EXPECT_FALSE(missing.set(beyond - (std::int64_t{2} << 32), 1));
    EXPECT_FALSE(missing.fail(beyond, why));
    EXPECT_TRUE(missing.set(std::uint64_t{7}, 2));
    EXPECT_TRUE(missing.fail(8, why));
    return std::map<std::int64_t, int>{{beyond + 2, 1}};
  });
  EXPECT_EQ(rows[0].value(), 2);
  EXPECT_EQ(rows[1].error(), why);
  EXPECT_EQ(support::call_error_of(rows[2].error()), std::errc::no_such_file_or_directory);
  singleflight::group<int, void> done;
  const auto done_rows = done.do_many({-1, 1}, [](auto& missing) {
    EXPECT_FALSE(missing.set(0xFFFF'FFFFU));
    EXPECT_TRUE(missing.set(1U));
  });
  EXPECT_FALSE(done_rows[0].has_value());
  EXPECT_TRUE(done_rows[1].has_value());
}

// https://github.com/epicweb-dev/cachified/issues/153: the callers of the others hung.
TEST(BulkLoader, ThatGivesFewerValuesThanKeysFailsTheOthersAndFreesThem) {
  group flights;
  const auto rows =
      flights.do_many(keys{"a", "b", "c"}, [](auto& missing) { missing.set("b", 2); });
  EXPECT_EQ(support::call_error_of(rows[0].error()), std::errc::no_such_file_or_directory);
  EXPECT_EQ(rows[1].value(), 2);
  EXPECT_EQ(support::call_error_of(rows[2].error()), std::errc::no_such_file_or_directory);
  support::expect_same(rows[0].error(), rows[2].error());
  support::expect_idle(flights);
  EXPECT_EQ(*flights.do_call("a", [] { return 5; }), 5);
}

TEST(BulkLoader, MaySayThatTheOthersDoNotExist) {
  singleflight::group<int, std::string> flights;
  auto rows = flights.do_many({1, 2, 3, 2}, [](auto& missing) {
    missing.set(3, "three");
    missing.rest("none");
    missing.rest("too late");
    EXPECT_TRUE(missing.set(1, "too late"));
  });
  EXPECT_EQ(rows[0].value(), "none");
  EXPECT_EQ(rows[1].value(), "none");
  EXPECT_EQ(rows[2].value(), "three");
  EXPECT_EQ(std::move(rows[3]).value(), "none");
  EXPECT_EQ(rows[1].value(), "none") << "a shared value is copied for one who takes it";
}

// https://github.com/ben-manes/caffeine/issues/627, https://github.com/graphql/dataloader/issues/169
TEST(BulkLoader, FailsOneKeyAndNoOther) {
  group flights;
  const auto why = std::make_exception_ptr(std::runtime_error("bad key"));
  const auto rows = flights.do_many(keys{"a", "bad", "c", "bad", "worse"}, [&](auto& missing) {
    missing.fail("bad", why);
    missing.fail_at(3, why);
    missing.rest(1);
  });
  EXPECT_EQ(rows[0].value(), 1);
  support::expect_same(rows[1].error(), why);
  EXPECT_EQ(rows[2].value(), 1);
  support::expect_same(rows[3].error(), why);
  support::expect_same(rows[4].error(), why);
  EXPECT_EQ(flights.stats().failed, 2U);
}

// https://github.com/graphql-java/java-dataloader/pull/148: half the values are sent, then it throws.
TEST(BulkLoader, ThatThrowsFailsTheKeysThatItHasNotSettled) {
  group flights;
  const auto rows = flights.do_many(keys{"a", "b", "c", "d"}, [](auto& missing) {
    missing.set("b", 2);
    missing.set("d", 4);
    throw std::runtime_error("connection reset");
  });
  EXPECT_THROW(rows[0].value(), std::runtime_error);
  EXPECT_EQ(rows[1].value(), 2);
  support::expect_same(rows[0].error(), rows[2].error());
  EXPECT_EQ(rows[3].value(), 4);
  support::expect_idle(flights);
}

// https://github.com/instantdb/instant/pull/1525: a stored failure answered from then on.
TEST(BulkLoader, ThatFailedIsAskedAgain) {
  group flights;
  const auto failed = flights.do_many({"a"}, [](auto&) { throw std::runtime_error("once"); });
  EXPECT_FALSE(failed[0].has_value());
  EXPECT_TRUE(flights.do_many({"a"}, first_characters{})[0].has_value());
}

TEST(BulkLoader, TakesTheContextOfItsBatch) {
  group flights({.shards = 1});
  const auto rows =
      flights.do_many(keys{"a", "b"}, [&](auto& missing, const call_context& context) {
        EXPECT_FALSE(context.forgotten());
        EXPECT_FALSE(missing.forgotten(0));
        EXPECT_TRUE(flights.forget("b"));
        EXPECT_TRUE(context.forgotten());
        EXPECT_TRUE(missing.forgotten(1));
        EXPECT_EQ(*flights.do_call("b", [] { return 5; }), 5)
            << "the next caller starts a new call";
        missing.rest(1);
      });
  EXPECT_EQ(rows[1].value(), 1) << "who has joined the old one gets its value";
}

// Of many shards one forgets: the keys of the others are not forgotten.
TEST(BulkLoader, LearnsWhichOfItsKeysWasForgotten) {
  singleflight::group<int, int> flights({.shards = 64});
  std::vector<int> ids;
  for (int i = 0; i < 64; ++i) ids.push_back(i);
  std::ignore = flights.do_many(ids, [&](auto& missing, const call_context& context) {
    flights.forget(7);
    EXPECT_TRUE(context.forgotten());
    EXPECT_TRUE(missing.forgotten(7));
    std::size_t forgotten = 0;
    for (std::size_t i = 0; i < missing.size(); ++i) forgotten += missing.forgotten(i) ? 1 : 0;
    EXPECT_LT(forgotten, 16U);
    missing.rest(1);
  });
}

// Of a shard in which a key was forgotten before.
TEST(BulkLoader, IsNotToldOfKeysThatWereForgottenBefore) {
  group flights({.shards = 1});
  flights.forget("a");
  std::ignore = flights.do_many(keys{"a"}, [](auto& missing, const call_context& context) {
    EXPECT_FALSE(missing.forgotten(0));
    EXPECT_FALSE(context.forgotten());
    missing.rest(1);
  });
}

TEST(BulkLoader, GoesOverItsKeysByIterators) {
  group flights;
  std::ignore = flights.do_many(keys{"a", "bb", "c"}, [](auto& missing) {
    auto at = missing.begin();
    EXPECT_EQ(*at++, "a");
    EXPECT_EQ(at->size(), 2U);
    EXPECT_EQ(*++at, "c");
    EXPECT_NE(at++, missing.end());
    EXPECT_EQ(at, missing.end());
    missing.rest(1);
  });
}

// A key of an earlier batch is none of these keys.
TEST(BulkLoader, DoesNotHaveTheKeysOfEarlierBatches) {
  group flights;
  std::vector<keys> batches;
  const auto rows =
      flights.do_many(keys{"a", "b", "c"}, {.max_batch = 1}, [&](batch<std::string, int>& missing) {
        for (const keys& earlier : batches) {
          EXPECT_FALSE(missing.set(earlier[0], 5));
          EXPECT_FALSE(missing.fail(earlier[0], std::make_exception_ptr(5)));
        }
        batches.push_back(keys_of(missing));
        missing.rest(1);
      });
  EXPECT_EQ(batches.size(), 3U);
  for (const auto& row : rows) EXPECT_EQ(row.value(), 1);
}

TEST(BulkLoader, SettlesAKeyOnce) {
  group flights;
  const auto late = std::make_exception_ptr(std::runtime_error("too late"));
  const auto early = std::make_exception_ptr(std::runtime_error("early"));
  const auto rows = flights.do_many(keys{"a", "b", "c", "d", "a", "b"}, [&](auto& missing) {
    missing.set("a", 1);
    missing.fail("a", late);
    missing.set("a", 2);
    missing.fail("b", early);
    missing.fail("b", late);
    missing.set("b", 2);
    missing.set("c", 1);
    missing.fail_at(2, late);
    missing.set_at(2, 2);
    missing.fail_at(3, early);
    missing.fail_at(3, late);
    missing.set_at(3, 2);
  });
  for (const std::size_t i : {0U, 2U, 4U}) EXPECT_EQ(rows[i].value(), 1);
  for (const std::size_t i : {1U, 3U, 5U}) support::expect_same(rows[i].error(), early);
  EXPECT_EQ(flights.stats().failed, 2U);
}

TEST(BulkLoader, SeesItsKeysAfterTheyWereSettled) {
  group flights;
  const std::string text(100, 'k');
  std::ignore = flights.do_many({text, text + "2"}, [&](auto& missing) {
    missing.set_at(0, 1);
    EXPECT_EQ(missing[0], text);
    missing.set_at(0, 2);
    missing.rest(3);
    EXPECT_EQ(missing[0], text);
    EXPECT_EQ(missing[1], text + "2");
    EXPECT_FALSE(missing.wanted(0)) << "it is settled";
  });
}

// The caller's keys may go while the loader runs.
TEST(BulkLoader, OwnsItsKeys) {
  group flights;
  keys ids{std::string(50, 'a'), std::string(50, 'b')};
  const auto rows = flights.do_many(ids, [&](auto& missing) {
    ids.clear();
    ids.shrink_to_fit();
    for (const std::string& key : missing) missing.set(key, key.back());
  });
  EXPECT_EQ(rows[1].value(), 'b');
}

// Threads that the loader has started settle keys, too.
TEST(BulkLoader, MaySettleItsKeysFromOtherThreads) {
  singleflight::group<int, int> flights;
  std::vector<int> ids;
  for (int i = 0; i < 400; ++i) ids.push_back(i);
  const auto rows = flights.do_many(ids, [&](auto& missing, const call_context& context) {
#if defined(__cpp_lib_jthread)
    std::array<std::stop_token, 4> tokens;
#endif
    support::latch all(4);
    support::threads workers(4, [&](std::size_t w) {
      all.arrive_and_wait();
#if defined(__cpp_lib_jthread)
      tokens.at(w) = context.stop_token();
#endif
      for (std::size_t i = w; i < missing.size(); i += 3) missing.set_at(i, missing[i] * 2);
      EXPECT_FALSE(context.forgotten());
      if (w == 3) missing.rest(-1);
    });
    workers.join();
#if defined(__cpp_lib_jthread)
    for (const std::stop_token& token : tokens) EXPECT_EQ(token, tokens[0]);
#endif
  });
  for (std::size_t i = 0; i < ids.size(); ++i) {
    ASSERT_TRUE(rows[i].has_value());
    EXPECT_TRUE(rows[i].value() == ids[i] * 2 || rows[i].value() == -1);
  }
  EXPECT_EQ(flights.stats().failed, 0U);
  support::expect_idle(flights);
}

TEST(BulkLoader, MayAskForOtherKeysAndNotForItsOwn) {
  group flights;
  const auto rows = flights.do_many(keys{"a", "b"}, [&](auto& missing) {
    EXPECT_EQ(*flights.do_call("c", [] { return 3; }), 3);
    try {
      std::ignore = flights.do_call("b", [] { return 0; });
      ADD_FAILURE() << "it would have waited for itself";
    } catch (const call_error& e) {
      EXPECT_EQ(e.code(), std::errc::resource_deadlock_would_occur);
    }
    const auto inner = flights.do_many(keys{"a", "d"}, first_characters{});
    EXPECT_EQ(support::call_error_of(inner[0].error()), std::errc::resource_deadlock_would_occur);
    EXPECT_EQ(inner[1].value(), 'd');
    missing.set("a", 1);
    EXPECT_EQ(*flights.do_call("a", [] { return 9; }), 9) << "it is settled, so it is free";
    missing.set("b", 2);
  });
  EXPECT_EQ(rows[0].value(), 1);
  EXPECT_EQ(rows[1].value(), 2);
}

#if defined(SINGLEFLIGHT_TESTS_THREAD_EXIT_UNWINDS)
TEST(BulkLoader, WhoseThreadExitsFailsEveryKeyThatItHasNotSettled) {
  group flights;
  std::vector<std::exception_ptr> errors(3);
  support::threads followers;
  std::thread([&] {
    std::ignore = flights.do_many(keys{"a", "b", "c", "a"}, [&](auto& missing) {
      for (std::size_t i = 0; i < 3; ++i) {
        followers.start([&, i] {
          errors[i] = flights.do_many({missing[i]}, [](auto&) { FAIL(); })[0].error();
        });
      }
      support::await_followers(flights, 3);
      missing.set("b", 2);
      pthread_exit(nullptr);
    });
  }).join();
  followers.join();
  EXPECT_EQ(support::call_error_of(errors[0]), std::errc::owner_dead);
  EXPECT_EQ(errors[1], nullptr);
  EXPECT_EQ(support::call_error_of(errors[2]), std::errc::owner_dead);
  support::expect_idle(flights);
}
#endif

// --- Types of values -------------------------------------------------------------------------------

TEST(Bulk, OfAVoidGroupSaysWhichKeysSucceeded) {
  singleflight::group<int, void> flights;
  const auto done = flights.do_many({1, 2, 3, 1}, [](auto& missing) {
    EXPECT_TRUE(missing.set(1));
    EXPECT_FALSE(missing.set(4)) << "not one of these keys";
    missing.fail(2, std::make_exception_ptr(std::runtime_error("no")));
    missing.set_at(2);
  });
  EXPECT_TRUE(done[0].has_value());
  EXPECT_THROW(done[1].value(), std::runtime_error);
  EXPECT_TRUE(done[2].has_value());
  EXPECT_TRUE(done[3].has_value());
  EXPECT_TRUE(flights.do_many({1, 2}, [](auto& missing) { missing.rest(); })[1].has_value());
}

TEST(Bulk, PassesOnValuesThatCannotBeCopied) {
  singleflight::group<int, std::unique_ptr<int>> flights;
  const auto rows = flights.do_many({1, 2, 1}, [](auto& missing) {
    for (std::size_t i = 0; i < missing.size(); ++i) {
      missing.set_at(i, std::make_unique<int>(missing[i]));
    }
  });
  EXPECT_EQ(*rows[0].value(), 1);
  EXPECT_EQ(rows[0].value(), rows[2].value());
}

// A vector says that it can be copied, whatever its elements are. Only `rest` copies values.
TEST(Bulk, PassesOnValuesThatOnlySeemToBeCopyable) {
  using several = std::vector<std::unique_ptr<int>>;
  singleflight::group<int, several> flights;
  const auto load = [](singleflight::batch<int, several>& missing) {
    several one;
    one.push_back(std::make_unique<int>(missing[0]));
    missing.set_at(0, std::move(one));
  };
  EXPECT_EQ(*flights.do_many({1}, load)[0].value()[0], 1);
  EXPECT_EQ(*flights.do_many_on({2}, support::inline_executor, {}, load)[0].value()[0], 2);
}

#if !defined(SINGLEFLIGHT_TESTS_CALL_ONCE_HANGS)
/// Throws when it is moved for the n-th time from now.
struct throws_when_moved {
  throws_when_moved() = default;
  throws_when_moved(const throws_when_moved& other) noexcept = default;
  throws_when_moved(throws_when_moved&&) { count(); }
  throws_when_moved& operator=(const throws_when_moved&) = default;
  throws_when_moved& operator=(throws_when_moved&&) = default;
  ~throws_when_moved() = default;
  static void count() {
    if (left-- == 0) throw std::runtime_error("cannot be moved");
  }
  inline static thread_local int left = -1;
};

TEST(Bulk, AnswersWithWhatTheMoveOfAValueThrows) {
  singleflight::group<int, throws_when_moved> flights;
  std::uint64_t failures = 0;
  for (int n = 0; n < 12; ++n) {
    for (const bool rest : {false, true}) {
      throws_when_moved::left = -1;
      const auto rows = flights.do_many({1, 2, 3, 2}, [&](auto& missing) {
        throws_when_moved value;
        throws_when_moved::left = n;
        EXPECT_NO_THROW({
          if (rest) missing.rest(value);
          for (std::size_t i = 0; i < 3; ++i) missing.set_at(i, value);
        }) << "it is an answer, and none to the loader";
      });
      EXPECT_EQ(rows[1].has_value(), rows[3].has_value());
      for (std::size_t i = 0; i < 3; ++i) failures += rows[i].has_value() ? 0 : 1;
      EXPECT_EQ(flights.stats().failed, failures);
      support::expect_idle(flights);
    }
  }
  EXPECT_GT(failures, 0U);
}
#endif

/// Throws when it is copied for the n-th time from now.
struct throws_when_copied {
  throws_when_copied() = default;
  throws_when_copied(const throws_when_copied&) {
    if (left-- == 0) throw std::runtime_error("cannot be copied");
  }
  throws_when_copied(throws_when_copied&&) noexcept = default;
  throws_when_copied& operator=(const throws_when_copied&) = default;
  throws_when_copied& operator=(throws_when_copied&&) = default;
  ~throws_when_copied() = default;
  inline static thread_local int left = -1;
};

// The others get their copies all the same.
TEST(Bulk, AnswersAKeyWithWhatTheCopyOfItsValueThrows) {
  singleflight::group<int, throws_when_copied> flights;
  for (int n = 0; n < 3; ++n) {
    const auto rows = flights.do_many({1, 2, 3, 2}, [&](auto& missing) {
      throws_when_copied::left = n;
      EXPECT_NO_THROW(missing.rest(throws_when_copied()));
      throws_when_copied::left = -1;
      EXPECT_FALSE(missing.wanted(0) || missing.wanted(1) || missing.wanted(2));
    });
    std::size_t failures = 0;
    for (std::size_t i = 0; i < 3; ++i) {
      if (rows[i].has_value()) continue;
      ++failures;
      EXPECT_THROW(rows[i].value(), std::runtime_error);
    }
    EXPECT_EQ(failures, 1U);
    EXPECT_EQ(rows[1].has_value(), rows[3].has_value());
    EXPECT_EQ(flights.stats().failed, static_cast<std::uint64_t>(n) + 1);
    support::expect_idle(flights);
  }
}

// --- What the reading of the keys throws -----------------------------------------------------------

struct fragile_hash {
  std::size_t operator()(int key) const {
    if (key == 13) throw std::runtime_error("no hash");
    return static_cast<std::size_t>(key);
  }
};

TEST(Bulk, BeginsNothingIfAKeyCannotBeRead) {
  singleflight::group<int, int, fragile_hash> flights;
  EXPECT_THROW(std::ignore = flights.do_many({1, 2, 13}, [](auto&) { FAIL(); }),
               std::runtime_error);
  support::expect_idle(flights);
  EXPECT_EQ(flights.stats().led, 0U);
  EXPECT_THROW(std::ignore = flights.do_many({1}, {.call = {.attempts = 0}}, [](auto&) { FAIL(); }),
               std::invalid_argument);
  EXPECT_THROW(std::ignore = flights.do_many({1}, {.max_batch = 0}, [](auto&) { FAIL(); }),
               std::invalid_argument);
  const auto rows = flights.do_many({1}, [](auto& missing) { missing.set(13, 1); });
  EXPECT_THROW(rows[0].value(), std::runtime_error) << "thrown inside the loader";
}

struct fragile_equality {
  inline static thread_local bool throws = false;
  bool operator()(int a, int b) const {
    if (throws) throw std::runtime_error("cannot compare");
    return a == b;
  }
};

// Under the lock of a shard, after other keys have been listed.
TEST(Bulk, AnswersWithWhatTheEqualityThrowsAndLoadsTheOthers) {
  singleflight::group<int, int, std::hash<int>, fragile_equality> flights;
  std::vector<outcome<int>> rows;
  std::ignore = flights.do_call(1, [&] {
    fragile_equality::throws = true;
    rows = flights.do_many({1, 2}, [](auto& missing) { missing.rest(2); });
    fragile_equality::throws = false;
    return 1;
  });
  EXPECT_THROW(rows[0].value(), std::runtime_error);
  EXPECT_EQ(rows[1].value(), 2);
  support::expect_idle(flights);
}

/// All keys collide.
struct one_hash {
  std::size_t operator()(int) const { return 0; }
};

TEST(Bulk, TellsKeysWithEqualHashesApart) {
  singleflight::group<int, int, one_hash> flights;
  const auto rows = flights.do_many({5, 3, 5, 4}, [](auto& missing) {
    for (const int key : missing) missing.set(key, -key);
  });
  EXPECT_EQ(rows[0].value(), -5);
  EXPECT_EQ(rows[1].value(), -3);
  EXPECT_EQ(rows[2].value(), -5);
  EXPECT_EQ(rows[3].value(), -4);
}

// Each number of shards: keys of one shard are next to each other in a walk by shard.
TEST(Bulk, WorksWithAnyNumberOfShards) {
  for (std::size_t shards = 1; shards <= 65'536; shards *= 4) {
    singleflight::group<int, int> flights({.shards = shards});
    std::vector<int> ids;
    for (int i = 0; i < 100; ++i) ids.push_back(i % 60);
    const auto rows = flights.do_many(ids, [](auto& missing) {
      EXPECT_EQ(missing.size(), 60U);
      for (const int key : missing) missing.set(key, key + 1);
    });
    for (std::size_t i = 0; i < ids.size(); ++i) EXPECT_EQ(rows[i].value(), ids[i] + 1);
    EXPECT_EQ(flights.stats().led, 60U);
  }
}

}  // namespace
