// SPDX-License-Identifier: MIT
// `do_many` whose thread ends: in the middle of entering, while a value is moved, while it waits.
#include <gtest/gtest.h>
#include <pthread.h>

#include <array>
#include <exception>
#include <functional>
#include <future>
#include <optional>
#include <singleflight/coroutine.hpp>
#include <singleflight/group.hpp>
#include <string>
#include <system_error>
#include <thread>
#include <tuple>
#include <utility>
#include <variant>
#include <vector>

#include "executors.hpp"
#include "support.hpp"
#include "tasks.hpp"

#if defined(__cpp_lib_jthread)
#include <stop_token>
#endif

namespace {

#if defined(SINGLEFLIGHT_TESTS_THREAD_EXIT_UNWINDS)

using singleflight::outcome;

struct watched_equality {
  inline static std::function<void(int)> watch;
  bool operator()(int a, int b) const {
    if (watch) watch(a);
    return a == b;
  }
};

using watched_group = singleflight::group<int, int, std::hash<int>, watched_equality>;

/// What followers are told of a leader whose thread ends in its loader.
std::string text_of_an_exit_in_a_loader() {
  watched_group flights;
  std::optional<outcome<int>> told;
  std::thread([&] {
    std::ignore = flights.do_call(1, [&]() -> int {
      flights.async_call(
          1, singleflight::resume_inline, {}, [](const singleflight::leader<int>&) {},
          [&](outcome<int> o) { told.emplace(std::move(o)); });
      pthread_exit(nullptr);
    });
  }).join();
  return support::text_of(told.value().error());
}

/// The first key has been begun and joined when the equality, for the second, ends the thread.
template <class Ask>
void expect_to_fail_what_it_has_begun(const Ask& ask) {
  using singleflight::leader;
  watched_group flights({.shards = 1024});
  const auto lead = [&](int key) { return std::get<leader<int>>(flights.lead_or_follow(key)); };

  std::vector<int> order;
  {
    leader<int> one = lead(1), two = lead(2);
    watched_equality::watch = [&](int key) { order.push_back(key); };
    std::thread joins([&] { ask(flights); });
    support::await_followers(flights, 2);
    watched_equality::watch = nullptr;
    std::move(one).set_value(1);
    std::move(two).set_value(2);
    joins.join();
  }
  ASSERT_EQ(order.size(), 2U);

  leader<int> second = lead(order[1]);
  std::promise<void> entering, joined;
  watched_equality::watch = [&](int key) {
    if (key != order[1]) return;
    entering.set_value();
    joined.get_future().wait();
    pthread_exit(nullptr);
  };
  std::thread ends([&] { ask(flights); });
  entering.get_future().wait();
  std::optional<outcome<int>> told;
  flights.async_call(
      order[0], singleflight::resume_inline, {},
      [](const leader<int>&) { ADD_FAILURE() << "it has not been begun"; },
      [&](outcome<int> o) { told.emplace(std::move(o)); });
  joined.set_value();
  ends.join();
  watched_equality::watch = nullptr;
  ASSERT_TRUE(told);
  EXPECT_EQ(support::call_error_of(told->error()), std::errc::owner_dead);
  EXPECT_EQ(support::text_of(told->error()), text_of_an_exit_in_a_loader());
  EXPECT_EQ(flights.stats().in_flight, 1U);
  std::move(second).set_value(2);
  support::expect_idle(flights);
}

TEST(BulkExit, InTheMiddleOfEnteringFailsWhatItHasBegun) {
  const auto nothing = [](auto&) { ADD_FAILURE() << "the loader ran"; };
  expect_to_fail_what_it_has_begun([&](watched_group& flights) {
    std::ignore = flights.do_many({1, 2}, nothing);
  });
  expect_to_fail_what_it_has_begun([&](watched_group& flights) {
    std::ignore = flights.do_many_on({1, 2}, support::inline_executor, {}, nothing);
  });
}

#if !defined(SINGLEFLIGHT_TESTS_CALL_ONCE_HANGS)
/// Ends the thread that moves it, if it is told to.
struct ends_thread_when_moved {
  explicit ends_thread_when_moved(bool e) : ends(e) {}
  ends_thread_when_moved(const ends_thread_when_moved&) = default;
  ends_thread_when_moved(ends_thread_when_moved&& other) : ends(other.ends) {
    if (ends) pthread_exit(nullptr);
  }
  ends_thread_when_moved& operator=(const ends_thread_when_moved&) = delete;
  ~ends_thread_when_moved() = default;
  bool ends;
};

using moving_group = singleflight::group<int, ends_thread_when_moved>;

/// A loader that gives the first of three keys a value and whose thread ends while it gives the
/// second, or the others, theirs. Each key has a follower.
class ending_load {
 public:
  ending_load(moving_group& flights, bool rest) : flights_(flights), rest_(rest) {}

  template <class Batch>
  void operator()(Batch& missing) {
    for (int i = 0; i < 3; ++i) {
      followers_.start([this, i] {
        const auto rows = flights_.do_many({i}, [](auto&) { ADD_FAILURE() << "not joined"; });
        errors_.at(static_cast<std::size_t>(i)) = rows[0].error();
      });
    }
    support::await([&] { return flights_.stats().joined == 3; }, "the followers to have joined");
    missing.set(0, ends_thread_when_moved(false));
    if (rest_) missing.rest(ends_thread_when_moved(true));
    missing.set(1, ends_thread_when_moved(true));
    ADD_FAILURE() << "the thread goes on";
  }

  void expect_told() {
    followers_.join();
    EXPECT_EQ(errors_[0], nullptr);
    EXPECT_EQ(support::call_error_of(errors_[1]), std::errc::owner_dead);
    EXPECT_EQ(support::call_error_of(errors_[2]), std::errc::owner_dead);
    support::expect_idle(flights_);
  }

 private:
  moving_group& flights_;
  const bool rest_;
  std::array<std::exception_ptr, 3> errors_;
  support::threads followers_;
};

TEST(BulkExit, WhileAValueIsMovedFailsWhatIsNotSettled) {
  for (const bool rest : {false, true}) {
    moving_group flights;
    ending_load load(flights, rest);
    std::thread([&] { std::ignore = flights.do_many({0, 1, 2}, load); }).join();
    load.expect_told();
  }
}

TEST(BulkExit, OnAnExecutorWhileAValueIsMovedFailsWhatIsNotSettled) {
  for (const bool rest : {false, true}) {
    moving_group flights;
    ending_load load(flights, rest);
    support::threads executor;
    const auto rows = flights.do_many_on(
        {0, 1, 2}, [&](auto task) { executor.start(std::move(task)); }, {},
        [&](auto& missing) { load(missing); });
    executor.join();
    EXPECT_TRUE(rows[0].has_value());
    EXPECT_EQ(support::call_error_of(rows[1].error()), std::errc::owner_dead);
    EXPECT_EQ(support::call_error_of(rows[2].error()), std::errc::owner_dead);
    load.expect_told();
  }
}
#endif

/// Ends the thread that copies it.
struct ends_thread_when_copied {
  ends_thread_when_copied() = default;
  ends_thread_when_copied(const ends_thread_when_copied&) { pthread_exit(nullptr); }
  ends_thread_when_copied(ends_thread_when_copied&&) = default;
  ends_thread_when_copied& operator=(const ends_thread_when_copied&) = delete;
  ~ends_thread_when_copied() = default;
};

TEST(BulkExit, WhileAValueIsCopiedFailsWhatIsNotSettled) {
  for (const bool on_executor : {false, true}) {
    singleflight::group<int, ends_thread_when_copied> flights;
    std::vector<std::exception_ptr> errors;
    const auto load = [&](auto& missing) {
      for (const int key : {1, 2}) {
        flights.async_call(
            key, singleflight::resume_inline, {}, [](const auto&) {},
            [&](const auto& got) { errors.push_back(got.error()); });
      }
      missing.rest(ends_thread_when_copied());
      ADD_FAILURE() << "the thread goes on";
    };
    std::thread([&] {
      if (on_executor) {
        std::ignore = flights.do_many_on({1, 2}, support::inline_executor, {}, load);
      } else {
        std::ignore = flights.do_many({1, 2}, load);
      }
    }).join();
    ASSERT_EQ(errors.size(), 2U);
    for (const auto& e : errors) EXPECT_EQ(support::call_error_of(e), std::errc::owner_dead);
    support::expect_idle(flights);
  }
}

/// A coroutine or a thread asks for two keys, and the loader has another thread give them values.
template <class Ask>
void expect_to_fail_what_a_helper_copies(const Ask& ask) {
  const auto load = [](auto& missing) {
    std::thread([&] {
      missing.rest(ends_thread_when_copied());
      ADD_FAILURE() << "the thread goes on";
    }).join();
  };
  const std::vector<outcome<ends_thread_when_copied>> rows = ask(load);
  ASSERT_EQ(rows.size(), 2U);
  EXPECT_EQ(support::text_of(rows[0].error()), text_of_an_exit_in_a_loader());
  EXPECT_EQ(support::call_error_of(rows[1].error()), std::errc::no_such_file_or_directory);
}

TEST(BulkExit, OfAThreadThatHelpsTheLoaderFailsTheKeyWhoseValueIsCopied) {
  singleflight::group<int, ends_thread_when_copied> flights;
  expect_to_fail_what_a_helper_copies([&](const auto& load) {
    return flights.do_many({1, 2}, load);
  });
  expect_to_fail_what_a_helper_copies([&](const auto& load) {
    return flights.do_many_on({1, 2}, support::inline_executor, {}, load);
  });
  expect_to_fail_what_a_helper_copies([&](const auto& load) {
    std::vector<outcome<ends_thread_when_copied>> rows;
    [](auto& of, auto own, auto& to) -> support::detached {
      const std::vector<int> keys{1, 2};
      to = co_await of.co_call_many(keys, singleflight::resume_inline, own);
    }(flights, load, rows);
    return rows;
  });
  support::expect_idle(flights);
}

TEST(BulkExit, InTheExecutorFailsTheBatch) {
  watched_group flights;
  std::optional<outcome<int>> told;
  const auto ends = [&](const auto&) {
    flights.async_call(
        1, singleflight::resume_inline, {}, [](const singleflight::leader<int>&) {},
        [&](outcome<int> o) { told.emplace(std::move(o)); });
    pthread_exit(nullptr);
  };
  std::thread([&] { std::ignore = flights.do_many_on({1}, ends, {}, [](auto&) {}); }).join();
  EXPECT_EQ(support::text_of(told.value().error()), text_of_an_exit_in_a_loader());
  support::expect_idle(flights);
}

#if defined(__cpp_lib_jthread) && defined(SINGLEFLIGHT_TESTS_CANCELS_WAITS)
/// Its batch is the executor's, and goes on for those who have joined it.
TEST(BulkExit, WhileItWaitsForItsBatchOnAnExecutorLeavesTheBatchToOthers) {
  singleflight::group<int, int> flights;
  std::vector<std::function<void()>> tasks;
  std::promise<void> queued;
  const std::stop_source stop;  // it waits in a condition variable, where it can be cancelled
  std::thread waits([&] {
    const auto queue = [&](auto task) {
      tasks.emplace_back(std::move(task));
      queued.set_value();
    };
    std::ignore = flights.do_many_on({1, 2}, queue, {.call = {.stop = stop.get_token()}},
                                     [](auto& missing) { missing.rest(7); });
  });
  queued.get_future().wait();
  std::thread follower([&] { EXPECT_EQ(*flights.do_call(2, [] { return 0; }), 7); });
  support::await_followers(flights, 3);
  pthread_cancel(waits.native_handle());
  waits.join();
  support::await_followers(flights, 1);
  tasks[0]();
  follower.join();
  support::expect_idle(flights);
}
#endif

#endif

}  // namespace
