// SPDX-License-Identifier: MIT
// `co_call_many`: many keys for one coroutine, whose loader may be suspended.
#include <gtest/gtest.h>

#include <coroutine>
#include <cstddef>
#include <exception>
#include <functional>
#include <future>
#include <memory>
#include <new>
#include <optional>
#include <singleflight/coroutine.hpp>
#include <singleflight/observer.hpp>
#include <stdexcept>
#include <system_error>
#include <thread>
#include <tuple>
#include <utility>
#include <variant>
#include <vector>

#include "async_callers.hpp"
#include "busy_batch.hpp"
#include "executors.hpp"
#include "replaced_new.hpp"
#include "support.hpp"
#include "tasks.hpp"

#if defined(__cpp_lib_jthread)
#include <stop_token>
#endif

namespace {

using namespace support;
using singleflight::async_bulk_options;
using singleflight::async_options;
using singleflight::call_context;
using singleflight::outcome;
using singleflight::resume_inline;

using keys = std::vector<int>;
using batch = singleflight::batch<int, int>;
using rows = std::vector<outcome<int>>;

constexpr auto tenfold = [](auto& missing) {
  for (const int key : missing) missing.set(key, 10 * key);
};
constexpr auto not_needed = [](auto&) { ADD_FAILURE() << "the loader ran"; };

/// A coroutine that asks for many keys. Its owner may destroy it.
struct asker {
  template <class On, class Load>
  asker(group& flights, keys ids, On on, async_bulk_options options, Load load)
      : coroutine(ask(*this, flights, std::move(ids), std::move(on), std::move(options),
                      std::move(load))) {}
  template <class Load>
  asker(group& flights, keys ids, Load load)
      : asker(flights, std::move(ids), resume_inline, {}, std::move(load)) {}
  asker(const asker&) = delete;
  asker& operator=(const asker&) = delete;
  ~asker() = default;

  [[nodiscard]] std::error_code code(std::size_t i) const {
    return call_error_of(got->at(i).error());
  }
  [[nodiscard]] int value(std::size_t i) const { return got->at(i).value(); }

  std::optional<rows> got;
  std::thread::id resumed_by;
  frame coroutine;

 private:
  template <class On, class Load>
  static frame ask(asker& me, group& flights, keys ids, On on, async_bulk_options options,
                   Load load) {
    rows all = co_await flights.co_call_many(ids, on, options, load);
    me.resumed_by = std::this_thread::get_id();
    me.got.emplace(std::move(all));
  }
};

/// A loader that is suspended until the test has settled its keys by `missing`.
struct held_load {
  batch* missing = nullptr;
  const call_context* context = nullptr;
  gate<void> go;
  int times = 0;

  auto loader() {
    return [this](batch& b, const call_context& c) -> lazy_task<> {
      missing = &b;
      context = &c;
      ++times;
      return wait(*this);
    };
  }
  /// Settles all keys.
  void end() {
    missing->rest(7);
    go.open();
  }

 private:
  static lazy_task<> wait(held_load& self) { co_await self.go; }
};

// --- Values ----------------------------------------------------------------------------------------

TEST(CoCallMany, GivesEachPositionItsValueByOneInvocation) {
  group flights;
  int times = 0;
  const asker me(flights, {2, 1, 2, 3}, [&](auto& missing) {
    ++times;
    EXPECT_EQ(keys(missing.begin(), missing.end()), (keys{2, 1, 3}));
    tenfold(missing);
  });
  ASSERT_TRUE(me.got);
  EXPECT_EQ(me.value(0), 20);
  EXPECT_EQ(me.value(1), 10);
  EXPECT_EQ(me.value(3), 30);
  EXPECT_EQ(&me.got->at(0).value(), &me.got->at(2).value()) << "shared, not copied";
  EXPECT_EQ(times, 1);
  EXPECT_EQ(flights.stats().led, 3U);
  EXPECT_EQ(flights.stats().batches, 1U);
  expect_idle(flights);
}

TEST(CoCallMany, OfNoKeysIsNotSuspended) {
  group flights;
  const asker me(flights, {}, not_needed);
  ASSERT_TRUE(me.got);
  EXPECT_TRUE(me.got->empty());
  EXPECT_EQ(flights.stats().batches, 0U);
}

TEST(CoCallMany, AwaitsWhatItsLoaderReturns) {
  group flights;
  gate<std::vector<std::pair<int, int>>> found;
  const asker me(flights, {1, 2, 3}, [&](batch&) { return found.operator co_await(); });
  EXPECT_FALSE(me.got);
  EXPECT_EQ(flights.stats().in_flight, 3U);
  EXPECT_EQ(flights.stats().waiting, 3U);
  found.open(std::vector<std::pair<int, int>>{{1, 10}, {3, 30}, {5, 50}});
  ASSERT_TRUE(me.got);
  EXPECT_EQ(me.value(0), 10);
  EXPECT_EQ(me.code(1), std::errc::no_such_file_or_directory);
  EXPECT_EQ(me.value(2), 30);
  expect_idle(flights);
}

TEST(CoCallMany, FailsOnlyWhatItsLoaderHasNotSettled) {
  for (const bool suspended : {false, true}) {
    group flights;
    gate<void> go;
    const auto throws = [](batch& missing) {
      missing.set(1, 10);
      missing.fail(2, std::make_exception_ptr(std::logic_error("bad key")));
      throw std::runtime_error("connection reset");
    };
    std::optional<asker> me;
    if (suspended) {
      me.emplace(flights, keys{1, 2, 3}, [&](batch& missing) -> lazy_task<> {
        return [](batch& b, gate<void>& g, auto then) -> lazy_task<> {
          co_await g;
          then(b);
        }(missing, go, throws);
      });
      EXPECT_FALSE(me->got);
      go.open();
    } else {
      me.emplace(flights, keys{1, 2, 3}, throws);
    }
    ASSERT_TRUE(me->got);
    EXPECT_EQ(me->value(0), 10);
    EXPECT_THROW(me->got->at(1).value(), std::logic_error);
    EXPECT_EQ(text_of(me->got->at(2).error()), "connection reset");
    EXPECT_EQ(flights.stats().failed, 2U);
    expect_idle(flights);
  }
}

TEST(CoCallMany, FailsWhatALoaderThatIsNotSuspendedHasNotSettled) {
  group flights;
  const asker me(flights, {1, 2}, [](auto& missing) { missing.set(1, 10); });
  EXPECT_EQ(me.value(0), 10);
  EXPECT_EQ(me.code(1), std::errc::no_such_file_or_directory);
}

TEST(CoCallMany, LoadsNoMoreKeysAtOnceThanItIsAllowed) {
  group flights;
  std::vector<keys> seen;
  held_load first;
  const asker me(flights, {1, 2, 3, 4, 5}, resume_inline, {.max_batch = 2},
                 [&](batch& missing, const call_context& c) -> lazy_task<> {
                   seen.emplace_back(missing.begin(), missing.end());
                   if (seen.size() == 1) return first.loader()(missing, c);
                   return [](batch& b) -> lazy_task<> {
                     b.rest(8);
                     co_return;
                   }(missing);
                 });
  EXPECT_EQ(flights.stats().in_flight, 2U);
  first.end();
  ASSERT_TRUE(me.got);
  EXPECT_EQ(seen, (std::vector<keys>{{1, 2}, {3, 4}, {5}}));
  EXPECT_EQ(me.value(1), 7);
  EXPECT_EQ(me.value(4), 8);
  EXPECT_EQ(flights.stats().batches, 3U);
  EXPECT_THROW(
      std::ignore = flights.co_call_many(keys{1}, resume_inline, {.max_batch = 0}, tenfold),
      std::invalid_argument);
  const async_bulk_options no_attempts{.call = {.attempts = 0}};
  EXPECT_THROW(std::ignore = flights.co_call_many(keys{1}, resume_inline, no_attempts, tenfold),
               std::invalid_argument);
}

// A batch may get the address of an earlier one, but not its keys.
TEST(CoCallMany, DoesNotHaveTheKeysOfEarlierBatches) {
  group flights;
  keys before;
  const asker me(flights, {1, 2, 3}, resume_inline, {.max_batch = 1}, [&](batch& missing) {
    for (const int key : before) EXPECT_FALSE(missing.set(key, 5));
    before.push_back(missing[0]);
    tenfold(missing);
  });
  ASSERT_TRUE(me.got);
  for (std::size_t i = 0; i < 3; ++i) EXPECT_EQ(me.value(i), 10 * before.at(i));
}

TEST(CoCallMany, LetsManyThreadsUseItsBatchAtOnce) {
  group flights({.shards = 2});
  const asker me(flights, many_keys(), [&](auto& missing, const call_context& context) {
    use_by_many_threads(flights, missing, context);
  });
  ASSERT_TRUE(me.got);
  expect_tenfold(*me.got);
  expect_idle(flights);
}

TEST(CoCallMany, PassesOnValuesThatCannotBeCopied) {
  singleflight::group<int, std::unique_ptr<int>> flights;
  const keys ids{1, 2, 1};
  std::vector<outcome<std::unique_ptr<int>>> got;
  [](auto& group, const keys& all, auto& to) -> detached {
    to = co_await group.co_call_many(all, resume_inline, [](auto& missing) {
      for (std::size_t i = 0; i < missing.size(); ++i) {
        missing.set_at(i, std::make_unique<int>(missing[i]));
      }
    });
  }(flights, ids, got);
  EXPECT_EQ(*got.at(1).value(), 2);
  EXPECT_EQ(got.at(0).value(), got.at(2).value());
}

// A vector says that it can be copied, whatever its elements are. Only `rest` copies values.
TEST(CoCallMany, PassesOnValuesThatOnlySeemToBeCopyable) {
  using several = std::vector<std::unique_ptr<int>>;
  singleflight::group<int, several> flights;
  const keys ids{1};
  std::vector<outcome<several>> got;
  [](auto& group, const keys& all, auto& to) -> detached {
    to = co_await group.co_call_many(all, resume_inline, [](auto& missing) {
      several one;
      one.push_back(std::make_unique<int>(missing[0]));
      missing.set_at(0, std::move(one));
    });
  }(flights, ids, got);
  EXPECT_EQ(*got.at(0).value()[0], 1);
}

TEST(CoCallMany, GivesEachPositionOfAKeyItsFailure) {
  group flights;
  const asker a(flights, {1, 2, 1}, [](batch& missing) {
    missing.set(2, 20);
    missing.fail_at(0, std::make_exception_ptr(std::runtime_error("no row")));
  });
  EXPECT_EQ(text_of(a.got->at(0).error()), "no row");
  expect_same(a.got->at(0).error(), a.got->at(2).error());
  EXPECT_EQ(a.value(1), 20);
}

#if !defined(SINGLEFLIGHT_TESTS_CALL_ONCE_HANGS)
/// One of its moves throws, and leaves nothing of the value.
struct lost_in_a_move {
  explicit lost_in_a_move(int v) noexcept : value(v) {}
  lost_in_a_move(lost_in_a_move&& other) : value(std::exchange(other.value, 0)) {
    if (--moves_left == 0) throw std::runtime_error("the move");
  }
  int value;
  static inline int moves_left = 0;
};

TEST(CoCallMany, GivesEachPositionOfAKeyWhatMovingItsValueThrows) {
  int failures = 0;
  for (int n = 1; n < 12; ++n) {
    singleflight::group<int, lost_in_a_move> flights;
    const keys ids{1, 1};
    std::vector<outcome<lost_in_a_move>> got;
    lost_in_a_move::moves_left = n;
    [](auto& group, const keys& all, auto& to) -> detached {
      to = co_await group.co_call_many(
          all, resume_inline, [](auto& missing) { missing.set_at(0, lost_in_a_move(42)); });
    }(flights, ids, got);
    ASSERT_EQ(got.size(), 2U);
    for (const auto& o : got) {
      if (o.has_value()) {
        EXPECT_EQ(o.value().value, 42) << n;
      } else {
        EXPECT_EQ(text_of(o.error()), "the move") << n;
        ++failures;
      }
    }
  }
  EXPECT_GT(failures, 0);
}
#endif

// --- Sharing ---------------------------------------------------------------------------------------

TEST(CoCallMany, JoinsTheCallsOfOthersAndIsJoined) {
  group flights;
  held_load first, second;
  const asker one(flights, {1, 2}, first.loader());
  const asker two(flights, {2, 3}, second.loader());  // crosses the first
  const asker three(flights, {3, 1}, not_needed);
  seen single;
  flights.async_call(2, resume_inline, {}, never, std::ref(single));
  EXPECT_EQ(second.missing->size(), 1U);
  std::thread thread([&] {
    const auto got = flights.do_many({1, 2, 3, 4}, tenfold);
    EXPECT_EQ(got[0].value(), 7);
    EXPECT_EQ(got[3].value(), 40);
  });
  support::await([&] { return flights.stats().joined == 7 && flights.stats().batches == 3; },
                 "the thread");
  first.end();
  EXPECT_EQ(single.value(), 7);
  EXPECT_EQ(one.value(1), 7);
  EXPECT_FALSE(two.got);
  second.end();
  thread.join();
  EXPECT_EQ(two.value(0), 7);
  EXPECT_EQ(three.value(1), 7);
  EXPECT_EQ(flights.stats().led, 4U);
  expect_idle(flights);
}

TEST(CoCallMany, GivesEachPositionOfAKeyTheValueOfTheCallThatItJoins) {
  group flights;
  held_load load;
  const asker one(flights, {1}, load.loader());
  const asker two(flights, {1, 1}, not_needed);
  load.end();
  EXPECT_EQ(two.value(0), 7);
  EXPECT_EQ(two.value(1), 7);
}

TEST(CoCallMany, JoinsAThreadsBulk) {
  group flights;
  std::optional<asker> me;
  const auto got = flights.do_many({1, 2}, [&](auto& missing) {
    std::thread([&] { me.emplace(flights, keys{2, 1}, not_needed); }).join();
    missing.set(2, 20);
    EXPECT_FALSE(me->got);
    missing.set(1, 10);
    EXPECT_TRUE(me->got);
  });
  EXPECT_EQ(me->value(0), 20);
  EXPECT_EQ(me->value(1), got[0].value());
}

/// Of a key that is settled, those who wait for it alone are told at once.
TEST(CoCallMany, AnswersTheFollowersOfASettledKeyWhileTheOthersLoad) {
  group flights;
  held_load load;
  const asker me(flights, {1, 2}, load.loader());
  seen single;
  flights.async_call(1, resume_inline, {}, never, std::ref(single));
  EXPECT_TRUE(load.missing->set(1, 10));
  EXPECT_FALSE(load.missing->set(3, 30));
  EXPECT_EQ(single.value(), 10);
  EXPECT_FALSE(load.missing->wanted(0));
  EXPECT_TRUE(load.missing->wanted(1));
  EXPECT_FALSE(me.got);
  EXPECT_FALSE(load.context->forgotten());
  EXPECT_TRUE(flights.forget(2));
  EXPECT_TRUE(load.missing->forgotten(1));
  EXPECT_TRUE(load.context->forgotten());
  load.end();
  EXPECT_EQ(me.value(0), 10);
  EXPECT_EQ(me.value(1), 7);
}

/// Ends the call that it is given when the call of key 2 begins.
struct ending_another {
  std::shared_ptr<std::optional<singleflight::leader<int>>> other;
  void call_began(const int& key, const auto&) const noexcept {
    if (key != 2 || !*other) return;
    singleflight::leader<int> lead = *std::exchange(*other, std::nullopt);
    std::move(lead).set_exception(std::make_exception_ptr(std::runtime_error("gone")));
  }
};

TEST(CoCallMany, LoadsAKeyByItselfWhoseCallFailsWhileOthersAreAskedFor) {
  const auto other = std::make_shared<std::optional<singleflight::leader<int>>>();
  singleflight::group<int, int, std::hash<int>, std::equal_to<int>, ending_another> flights(
      {}, {}, {}, {other});
  other->emplace(std::get<singleflight::leader<int>>(flights.lead_or_follow(0)));
  std::optional<rows> got;
  const auto ask = [&]() -> frame {
    const async_bulk_options options{.call = {.attempts = 2}};
    const keys ids{0, 1, 2};
    got = co_await flights.co_call_many(ids, resume_inline, options, tenfold);
  };
  const frame me = ask();
  ASSERT_TRUE(got);
  for (const std::size_t i : {0U, 1U, 2U}) EXPECT_EQ(got->at(i).value(), 10 * static_cast<int>(i));
  EXPECT_EQ(flights.stats().batches, 2U);
  expect_idle(flights);
}

TEST(CoCallMany, LoadsAKeyAgainWhoseCallFailed) {
  group flights;
  auto other = std::get<singleflight::leader<int>>(flights.lead_or_follow(2));
  std::vector<keys> seen;
  const asker me(flights, {1, 2}, resume_inline, {.call = {.attempts = 2}}, [&](auto& missing) {
    seen.emplace_back(missing.begin(), missing.end());
    tenfold(missing);
  });
  EXPECT_FALSE(me.got);
  std::move(other).set_exception(std::make_exception_ptr(std::runtime_error("gone")));
  ASSERT_TRUE(me.got);
  EXPECT_EQ(me.value(1), 20);
  EXPECT_EQ(seen, (std::vector<keys>{{1}, {2}}));
  EXPECT_EQ(flights.stats().joined, 1U);
  EXPECT_EQ(flights.stats().batches, 2U);
}

TEST(CoCallMany, IsNotToldOfKeysThatWereForgottenBefore) {
  group flights({.shards = 1});
  flights.forget(1);
  held_load load;
  const asker me(flights, {1}, load.loader());
  EXPECT_FALSE(load.missing->forgotten(0));
  EXPECT_FALSE(load.context->forgotten());
  flights.forget(1);
  EXPECT_TRUE(load.missing->forgotten(0));
  EXPECT_TRUE(load.context->forgotten());
  load.end();
}

/// Counts its copies, and throws in place of the one that it is told to.
struct counted {
  counted() = default;
  counted(const counted&) {
    if (++copies == failing) throw std::runtime_error("cannot be copied");
  }
  counted(counted&&) noexcept = default;
  counted& operator=(const counted&) = default;
  counted& operator=(counted&&) noexcept = default;
  ~counted() = default;
  inline static thread_local int copies = 0;
  inline static thread_local int failing = 0;
};

// A key that is settled costs no copy; one whose copy throws is answered with that, and no other is.
TEST(CoCallMany, SettlesTheRestWithCopies) {
  singleflight::group<int, counted> flights;
  std::optional<std::vector<outcome<counted>>> got;
  const keys ids{1, 2, 3, 4};
  [](auto& group, const keys& all, auto& to) -> detached {
    to = co_await group.co_call_many(all, resume_inline, [](auto& missing) {
      missing.set(2, counted());
      counted::copies = 0;
      counted::failing = 2;
      EXPECT_NO_THROW(missing.rest(counted()));
      counted::failing = 0;
      EXPECT_EQ(counted::copies, 3);
      for (std::size_t i = 0; i < 4; ++i) EXPECT_FALSE(missing.wanted(i));
    });
  }(flights, ids, got);
  ASSERT_TRUE(got);
  EXPECT_TRUE(got->at(0).has_value());
  EXPECT_TRUE(got->at(1).has_value());
  EXPECT_EQ(text_of(got->at(2).error()), "cannot be copied");
  EXPECT_TRUE(got->at(3).has_value());
  EXPECT_EQ(flights.stats().failed, 1U);
  counted::copies = 0;
  [[maybe_unused]] const counted mine = std::move(got->at(0)).value();
  EXPECT_EQ(counted::copies, 0) << "nobody else has it";
}

// The call of another fails while the loader of the rest runs, which that key comes too late for.
TEST(CoCallMany, LoadsAKeyByItselfWhoseCallFailsWhileItsLoaderRuns) {
  group flights;
  auto other = std::get<singleflight::leader<int>>(flights.lead_or_follow(2));
  std::vector<keys> seen;
  const asker me(flights, {1, 2}, resume_inline, {.call = {.attempts = 2}}, [&](auto& missing) {
    seen.emplace_back(missing.begin(), missing.end());
    if (missing[0] == 1) {
      std::move(other).set_exception(std::make_exception_ptr(std::runtime_error("gone")));
    }
    tenfold(missing);
  });
  ASSERT_TRUE(me.got);
  EXPECT_EQ(me.value(1), 20);
  EXPECT_EQ(seen, (std::vector<keys>{{1}, {2}}));
}

// What an allocation throws when the key is tried again is its answer.
TEST(CoCallMany, AnswersAKeyForWhichThereIsNoMemoryWhenItIsTriedAgain) {
  if (!support::replaces_new) GTEST_SKIP() << "cannot refuse memory here";
  static thread_local int granted;
  bool refused = true;
  for (int n = 0; refused; ++n) {
    group flights;
    auto other = std::get<singleflight::leader<int>>(flights.lead_or_follow(2));
    const asker me(flights, {1, 2}, resume_inline, {.call = {.attempts = 2}}, tenfold);
    const auto why = std::make_exception_ptr(std::runtime_error("gone"));
    granted = n;
    support::grants_allocation = []() noexcept { return granted-- != 0; };
    std::move(other).set_exception(why);
    support::grants_allocation = nullptr;
    refused = granted < 0;
    ASSERT_TRUE(me.got);
    if (refused) {
      EXPECT_THROW(static_cast<void>(me.value(1)), std::bad_alloc) << n;
    } else {
      EXPECT_EQ(me.value(1), 20);
    }
    expect_idle(flights);
  }
}

// --- Leaving ---------------------------------------------------------------------------------------

#if defined(__cpp_lib_jthread)
TEST(CoCallMany, KeepsWhatItHasWhenItIsStopped) {
  group flights;
  std::stop_source stop;
  held_load load;
  const asker me(flights, {1, 2, 3}, resume_inline, {.call = {.stop = stop.get_token()}},
                 load.loader());
  seen single;
  flights.async_call(2, resume_inline, {}, never, std::ref(single));
  load.missing->set(1, 10);
  const std::stop_token told = load.context->stop_token();
  stop.request_stop();
  ASSERT_TRUE(me.got);
  EXPECT_EQ(me.value(0), 10);
  EXPECT_EQ(me.code(1), std::errc::operation_canceled);
  EXPECT_EQ(me.code(2), std::errc::operation_canceled);
  EXPECT_FALSE(told.stop_requested()) << "another wants key 2";
  load.missing->set(2, 20);
  EXPECT_TRUE(told.stop_requested()) << "nobody wants key 3";
  EXPECT_EQ(single.value(), 20);
  load.go.open();
  expect_idle(flights);
}

// A loader that asks after everybody has left is told at once.
TEST(CoCallMany, HasLeftBeforeTheLoaderAsksForItsToken) {
  group flights;
  std::stop_source stop;
  held_load load;
  const asker me(flights, {1, 2}, resume_inline, {.call = {.stop = stop.get_token()}},
                 load.loader());
  stop.request_stop();
  EXPECT_TRUE(load.context->stop_token().stop_requested());
  load.end();
}

// The last wanted key is settled. Who waited for it has been told by then.
TEST(CoCallMany, StopsTheLoaderWhenTheLastWantedKeyIsSettled) {
  for (const bool with_value : {true, false}) {
    group flights;
    std::stop_source stop;
    held_load load;
    const asker me(flights, {1, 2}, resume_inline, {.call = {.stop = stop.get_token()}},
                   load.loader());
    seen single;
    flights.async_call(1, resume_inline, {}, never, std::ref(single));
    const std::stop_token asked = load.context->stop_token();
    bool told = false;
    const std::stop_callback stopped(asked, [&] { told = single.came(); });
    stop.request_stop();
    EXPECT_FALSE(asked.stop_requested());
    if (with_value) {
      load.missing->set(1, 10);
    } else {
      load.missing->fail(1, std::make_exception_ptr(std::runtime_error("bad key")));
    }
    EXPECT_TRUE(asked.stop_requested());
    EXPECT_TRUE(told);
    load.go.open();
  }
}

/// A loader that notes, when it has run and is destroyed, whether it could still be told to stop.
struct leaving_loader {
  struct notes {
    std::stop_token token;
    bool ran = false;
    std::optional<bool> could_be_stopped;
  };
  notes* to;

  explicit leaving_loader(notes& n) : to(&n) {}
  leaving_loader(const leaving_loader&) = default;
  leaving_loader& operator=(const leaving_loader&) = delete;
  ~leaving_loader() {
    if (to->ran && !to->could_be_stopped) to->could_be_stopped = to->token.stop_possible();
  }
  void operator()(batch& missing, const call_context& context) const {
    to->token = context.stop_token();
    EXPECT_TRUE(to->token.stop_possible());
    missing.rest(1);
    to->ran = true;
  }
};

TEST(CoCallMany, IsNotToldToStopWhenItsLoaderIsDone) {
  group flights;
  leaving_loader::notes of_loader;
  const asker me(flights, {1, 2}, leaving_loader(of_loader));
  ASSERT_TRUE(me.got);
  EXPECT_EQ(of_loader.could_be_stopped, false);
}

TEST(CoCallMany, ThatIsStoppedBeforeBeginsNothing) {
  group flights;
  std::stop_source stop;
  stop.request_stop();
  const asker me(flights, {1, 2}, resume_inline,
                 {.call = {.stop = stop.get_token()}, .max_batch = 1}, not_needed);
  EXPECT_EQ(me.code(0), std::errc::operation_canceled);
  EXPECT_EQ(me.code(1), std::errc::operation_canceled);
  EXPECT_EQ(flights.stats().rejected, 2U);
}

TEST(CoCallMany, WhoseFrameIsDestroyedLeavesItsCalls) {
  group flights;
  held_load load;
  asker me(flights, {1, 2, 3}, resume_inline, {.max_batch = 2}, load.loader());
  const std::stop_token told = load.context->stop_token();
  me.coroutine.destroy();
  EXPECT_FALSE(me.got);
  EXPECT_TRUE(told.stop_requested());
  EXPECT_EQ(flights.stats().waiting, 0U);
  EXPECT_EQ(flights.stats().in_flight, 2U);
  load.end();
  EXPECT_EQ(load.times, 1);
  EXPECT_EQ(flights.stats().rejected, 0U) << "it asks for the other key";
  expect_idle(flights);
}
#endif

// --- Where it is resumed ---------------------------------------------------------------------------

TEST(CoCallMany, IsResumedByItsExecutor) {
  group flights;
  task_queue queue;
  const asker me(flights, {1, 2}, std::ref(queue), {}, tenfold);
  EXPECT_FALSE(me.got);
  EXPECT_EQ(queue.size(), 1U);
  const auto tasks = queue.take();
  tasks[0]();
  tasks[0]();  // does nothing
  EXPECT_EQ(me.value(1), 20);

  held_load load;
  const asker other(flights, {1, 2}, std::ref(queue), {}, load.loader());
  EXPECT_EQ(queue.size(), 0U);
  std::thread([&] { load.end(); }).join();
  EXPECT_FALSE(other.got);
  queue.run();
  EXPECT_EQ(other.value(0), 7);
  EXPECT_EQ(other.resumed_by, std::this_thread::get_id());
}

TEST(CoCallMany, UsesNoExecutorWhenItsFrameIsDestroyed) {
  group flights;
  task_queue queue;
  held_load load;
  asker me(flights, {1, 2}, std::ref(queue), {}, load.loader());
  me.coroutine.destroy();
  load.end();
  EXPECT_EQ(queue.size(), 0U);
  expect_idle(flights);
}

TEST(CoCallMany, IsResumedInPlaceIfItsExecutorThrows) {
  group flights;
  const auto full = [](const auto&) { throw std::runtime_error("the queue is full"); };
  const asker me(flights, {1}, full, {}, tenfold);
  EXPECT_EQ(me.value(0), 10);
}

TEST(CoCallMany, MayBeDestroyedAfterItsTaskWasPosted) {
  group flights;
  task_queue queue;
  {
    asker me(flights, {1, 2}, std::ref(queue), {}, tenfold);
    me.coroutine.destroy();
  }
  queue.run();
  expect_idle(flights);
}

// --- Circles ---------------------------------------------------------------------------------------

TEST(CoCallMany, RefusesALoaderThatWaitsForItsOwnKeys) {
  group flights;
  const asker me(flights, {1, 2}, [&](auto& missing, const call_context& context) {
    const auto inner = flights.do_many({2, 3}, tenfold);
    EXPECT_EQ(call_error_of(inner[0].error()), std::errc::resource_deadlock_would_occur);
    EXPECT_EQ(inner[1].value(), 30);
    seen self;
    flights.async_call(1, resume_inline, {.inside = &context}, never, std::ref(self));
    EXPECT_EQ(self.code(), std::errc::resource_deadlock_would_occur);
    tenfold(missing);
  });
  EXPECT_EQ(me.value(0), 10);
}

// No thread leads a batch whose loader is suspended, not even the one that has started it.
TEST(CoCallMany, LetsTheThreadThatHasStartedItWait) {
  group flights;
  held_load load;
  std::optional<asker> me;
  std::thread ends;
  const auto outer = flights.do_call(9, [&] {
    me.emplace(flights, keys{1, 2}, load.loader());
    ends = std::thread([&] {
      support::await_followers(flights, 3);
      load.end();
    });
    return *flights.do_call(1, [] { return 0; });
  });
  ends.join();
  EXPECT_EQ(*outer, 7);
}

// Nobody waits for a key that is settled before the loader waits for another call.
TEST(CoCallMany, WaitsForNothingInsideItsLoaderByAKeyThatIsSettled) {
  group flights;
  held_load load;
  const asker me(flights, {1, 2}, load.loader());
  load.missing->set(1, 10);
  std::optional<singleflight::leader<int>> third;
  seen of_third;
  flights.async_call(3, resume_inline, {.inside = load.context}, keep(third), std::ref(of_third));
  const async_options inside_third{.inside = &third->context()};
  std::optional<singleflight::leader<int>> first;
  seen newer, refused;
  flights.async_call(1, resume_inline, inside_third, keep(first), std::ref(newer));
  flights.async_call(2, resume_inline, inside_third, never, std::ref(refused));
  EXPECT_EQ(refused.code(), std::errc::resource_deadlock_would_occur);
  ASSERT_TRUE(first) << "the key is free";
  std::move(*first).set_value(11);
  EXPECT_EQ(newer.value(), 11);
  std::move(*third).set_value(3);
  load.end();
  expect_idle(flights);
}

// The batch waits for key 3, whose loader asks for a key of the batch.
TEST(CoCallMany, RefusesACircleThroughTheLoaderOfAnotherKey) {
  group flights;
  held_load load;
  const asker me(flights, {1, 2}, load.loader());
  std::optional<singleflight::leader<int>> third;
  seen of_third, back;
  flights.async_call(3, resume_inline, {.inside = load.context}, keep(third), std::ref(of_third));
  const async_options inside_third{.inside = &third->context()};
  for (const int key : {1, 2}) {
    seen refused;
    flights.async_call(key, resume_inline, inside_third, never, std::ref(refused));
    EXPECT_EQ(refused.code(), std::errc::resource_deadlock_would_occur);
  }
  std::move(*third).set_value(3);
  EXPECT_EQ(of_third.value(), 3);
  load.end();
  EXPECT_EQ(me.value(1), 7);
  expect_idle(flights);
}

TEST(CoCallMany, IsRefusedInsideACallThatItWouldWaitFor) {
  group flights;
  std::optional<singleflight::leader<int>> first;
  seen of_first;
  flights.async_call(1, resume_inline, {}, keep(first), std::ref(of_first));
  const asker me(flights, {1, 2}, resume_inline, {.call = {.inside = &first->context()}}, tenfold);
  EXPECT_EQ(me.code(0), std::errc::resource_deadlock_would_occur);
  EXPECT_EQ(me.value(1), 20);
  std::move(*first).set_value(1);
}

TEST(CoCallMany, RefusesACircleThroughEachKeyThatItsLoaderAsksFor) {
  group flights;
  held_load load;
  const asker me(flights, {1, 2}, load.loader());
  std::optional<singleflight::leader<int>> third, fourth;
  flights.async_call(3, resume_inline, {.inside = load.context}, keep(third), [](const auto&) {});
  flights.async_call(4, resume_inline, {.inside = load.context}, keep(fourth), [](const auto&) {});
  for (auto* const lead : {&third, &fourth}) {
    seen refused;
    flights.async_call(1, resume_inline, {.inside = &(*lead)->context()}, never, std::ref(refused));
    EXPECT_EQ(refused.code(), std::errc::resource_deadlock_would_occur);
  }
  std::move(*third).set_value(3);
  std::move(*fourth).set_value(4);
  load.end();
  expect_idle(flights);
}

// What the key is refused for is that it waits, not that it is full.
TEST(CoCallMany, RefusesACircleThroughAKeyThatIsFull) {
  group flights({.max_waiters = 0});
  held_load load;
  const asker me(flights, {1, 2}, load.loader());
  std::optional<singleflight::leader<int>> third;
  flights.async_call(3, resume_inline, {.inside = load.context}, keep(third), [](const auto&) {});
  seen refused;
  flights.async_call(1, resume_inline, {.inside = &third->context()}, never, std::ref(refused));
  EXPECT_EQ(refused.code(), std::errc::resource_deadlock_would_occur);
  std::move(*third).set_value(3);
  load.end();
  expect_idle(flights);
}

// --- Ends ------------------------------------------------------------------------------------------

TEST(CoCallMany, MayBeAnsweredAfterItsGroupIsGone) {
  std::optional<group> flights(std::in_place);
  held_load load;
  const asker me(*flights, {1, 2}, load.loader());
  flights.reset();
  EXPECT_TRUE(load.missing->set(2, 20)) << "by hash and equality";
  load.end();
  EXPECT_EQ(me.value(0), 7);
  EXPECT_EQ(me.value(1), 20);
}

// A loader whose frame is destroyed where it is suspended.
TEST(CoCallMany, FailsIfItsLoaderIsDropped) {
  group flights;
  std::coroutine_handle<> loading;
  const asker me(flights, {1, 2}, [&](batch&) {
    struct suspended {
      std::coroutine_handle<>* at;
      [[nodiscard]] bool await_ready() const noexcept { return false; }
      void await_suspend(std::coroutine_handle<> h) const noexcept { *at = h; }
      void await_resume() const noexcept {}
    };
    return suspended{&loading};
  });
  EXPECT_FALSE(me.got);
  loading.destroy();
  ASSERT_TRUE(me.got);
  EXPECT_EQ(me.code(0), std::errc::owner_dead);
  EXPECT_EQ(me.code(1), std::errc::owner_dead);
  expect_idle(flights);
}

// Sets of keys that cross, from many threads.
TEST(CoCallMany, DoesNotHangWhereSetsCross) {
  group flights;
  const support::threads all(4, [&](std::size_t t) {
    for (int i = 0; i < 200; ++i) {
      const int first = static_cast<int>(t) + i;
      const keys ids{first % 5, (first + 1) % 5, (first + 3) % 5};
      std::promise<void> done;
      [](group& g, const keys& own, std::promise<void>& p) -> detached {
        const rows got = co_await g.co_call_many(own, resume_inline, tenfold);
        for (std::size_t k = 0; k < own.size(); ++k) EXPECT_EQ(got[k].value(), 10 * own[k]);
        p.set_value();
      }(flights, ids, done);
      done.get_future().wait();
    }
  });
}

}  // namespace
