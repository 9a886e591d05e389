// SPDX-License-Identifier: MIT
// User code that runs inside the library, as a table: where it runs (hash, equality; copies, moves and
// destructors of keys, values, loaders and exceptions; executors; stop callbacks) times what it does
// there. What each cell must give is point 7 of the contract of `group`.
//
// Two things are no cells. A destructor or a stop callback that throws ends the program by the rules of
// the language. Equality and the copy or move of a key must not use their own group: they run under its
// lock, and use another group here.

#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <chrono>
#include <cstddef>
#include <functional>
#include <iterator>
#include <ostream>
#include <singleflight/group.hpp>
#include <stdexcept>
#include <string>
#include <system_error>
#include <utility>
#include <vector>
#include <version>

#if defined(__cpp_lib_jthread)
#include <stop_token>
#endif

#include "executors.hpp"
#include "last_to_leave.hpp"
#include "support.hpp"

namespace {

using namespace std::chrono_literals;
using singleflight::call_error;
using singleflight::call_options;
using singleflight::group;
using singleflight::group_options;
using support::patience;

// --- Types whose every operation is user code ----------------------------------------------------

enum class operation {
  hash,
  compare,
  copy_key,
  move_key,
  destroy_key,
  copy_value,
  move_value,
  destroy_value,
  copy_loader,
  destroy_loader,
  destroy_exception,
  execute,
  count
};

/// What this thread does the next time that it comes to that operation.
std::function<void()>& next(operation o) {
  static thread_local std::array<std::function<void()>, static_cast<std::size_t>(operation::count)>
      all;
  return all[static_cast<std::size_t>(o)];
}

void at(operation o) {
  if (const auto now = std::exchange(next(o), nullptr)) now();
}

struct key {
  key(int n) : number(n) {}
  key(const key& other) : number(other.number) { at(operation::copy_key); }
  key(key&& other) : number(other.number) { at(operation::move_key); }
  key& operator=(const key&) = delete;
  key& operator=(key&&) = delete;
  ~key() { at(operation::destroy_key); }

  int number;
};

struct key_hash {
  std::size_t operator()(const key& k) const {
    at(operation::hash);
    return static_cast<std::size_t>(k.number % 100);  // so that 1 and 101 are compared
  }
};

struct key_equal {
  bool operator()(const key& a, const key& b) const {
    at(operation::compare);
    return a.number == b.number;
  }
};

struct value {
  value(int n) : number(n) {}
  value(const value& other) : number(other.number) { at(operation::copy_value); }
  value(value&& other) : number(other.number) { at(operation::move_value); }
  value& operator=(const value&) = delete;
  value& operator=(value&&) = delete;
  ~value() { at(operation::destroy_value); }

  int number;
};

struct failure {
  failure() = default;
  failure(const failure&) = delete;
  failure& operator=(const failure&) = delete;
  ~failure() { at(operation::destroy_exception); }
};

struct loader {
  explicit loader(std::function<int()> what) : body(std::move(what)) {}
  loader(const loader& other) : body(other.body) { at(operation::copy_loader); }
  loader& operator=(const loader&) = delete;
  ~loader() { at(operation::destroy_loader); }
  int operator()() const { return body(); }

  std::function<int()> body;
};

using group_type = group<key, value, key_hash, key_equal>;
using code = std::function<void()>;

constexpr int own = 1;  // the key of the call in which the user code runs

int one() { return 1; }

// --- Where it runs -------------------------------------------------------------------------------
// Each function has this thread come to one place in a call of the group, with code to run there.

void in_the_hash(group_type& g, const code& user, patience) {
  next(operation::hash) = user;
  (void)g.do_call(own, one);
}

void in_the_equality(group_type& g, const code& user, patience) {
  (void)g.do_call(own + 100, [&] {
    next(operation::compare) = user;
    (void)g.do_call(own, one);
    return 1;
  });
}

void in_the_copy_of_a_key(group_type& g, const code& user, patience) {
  const key mine(own);
  next(operation::copy_key) = user;
  (void)g.do_call(mine, one);
}

void in_the_copy_of_a_key_for_in_flight(group_type& g, const code& user, patience) {
  (void)g.do_call(own, [&] {
    next(operation::copy_key) = user;
    (void)g.in_flight();
    return 1;
  });
}

void in_the_move_of_a_key(group_type& g, const code& user, patience) {
  next(operation::move_key) = user;
  (void)g.do_call(key(own), one);
}

void in_the_destructor_of_a_key(group_type& g, const code& user, patience) {
  const key mine(own);
  (void)g.do_call(mine, [&] {
    next(operation::destroy_key) = user;
    return 1;
  });
}

void in_the_copy_of_a_loader(group_type& g, const code& user, patience) {
  const loader mine(one);
  next(operation::copy_loader) = user;
  (void)g.do_call_on(own, support::inline_executor, {}, mine);
}

void in_the_destructor_of_a_loader(group_type& g, const code& user, patience) {
  (void)g.do_call_on(own, support::inline_executor, {}, loader([&] {
                       next(operation::destroy_loader) = user;
                       return 1;
                     }));
}

void in_the_destructor_of_a_dropped_loader(group_type& g, const code& user, patience) {
  support::task_queue queue;
  static_cast<void>(g.do_async(own, queue, loader(one)));
  next(operation::destroy_loader) = user;
  queue.drop();
}

void in_the_executor(group_type& g, const code& user, patience) {
  next(operation::execute) = user;
  const auto executor = [](auto task) {
    at(operation::execute);
    task();
  };
  (void)g.do_call_on(own, executor, {}, one);
}

void in_the_move_of_a_value(group_type& g, const code& user, patience) {
  (void)g.do_call(own, [&] {
    next(operation::move_value) = user;
    return 1;
  });
}

void in_the_move_of_a_shared_value(group_type& g, const code& user, patience) {
  support::threads follower;
  (void)g.do_call(own, [&] {
    follower.start([&] { EXPECT_FALSE(g.do_call(own, one).led()); });
    support::await_followers(g, 1);
    next(operation::move_value) = user;
    return 1;
  });
}

void in_the_copy_of_a_value(group_type& g, const code& user, patience) {
  auto shared = g.do_call_on(own, support::inline_executor, {}, one);
  next(operation::copy_value) = user;
  EXPECT_EQ(std::move(shared).value().number, 1);
}

void in_the_destructor_of_a_value(group_type& g, const code& user, patience) {
  (void)g.do_call(own, [&] {
    next(operation::destroy_value) = user;
    return 1;
  });
}

void in_the_destructor_of_an_exception(group_type& g, const code& user, patience) {
  support::task_queue queue;
  static_cast<void>(g.do_async(own, queue, [&]() -> int {  // nobody keeps the future
    next(operation::destroy_exception) = user;
    throw failure();
  }));
  queue.run();
}

#if defined(__cpp_lib_jthread)

using leaver = support::last_to_leave<group_type>;

void by_a_follower_that_is_stopped(group_type& g, const code& user, patience time) {
  leaver(g, {.callback = user}).as_a_follower_that_is_stopped(time);
}
void by_a_follower_at_its_deadline(group_type& g, const code& user, patience time) {
  leaver(g, {.callback = user}).as_a_follower_at_its_deadline(time);
}
void by_a_follower_at_max_age(group_type& g, const code& user, patience time) {
  leaver(g, {.callback = user}).as_a_follower_at_max_age(time);
}
void by_a_first_caller_that_is_stopped(group_type& g, const code& user, patience time) {
  leaver(g, {.callback = user}).as_the_first_caller(time);
}
void by_a_thread_that_stops_the_leader(group_type& g, const code& user, patience time) {
  leaver(g, {.callback = user}).by_stopping_the_leader(time);
}

void by_a_loader_that_stops_its_caller(group_type& g, const code& user, patience) {
  std::stop_source caller;
  (void)g.do_call(own, {.stop = caller.get_token()}, [&](std::stop_token nobody_waits) {
    const std::stop_callback told(nobody_waits, user);
    caller.request_stop();
    return 1;
  });
}

#endif

enum class outcome { leads, is_refused, is_forbidden };

/// One row of the table.
struct row {
  const char* name;
  void (*reach)(group_type&, const code&, patience);
  outcome asking_for_its_own_key;
};

void PrintTo(const row& r, std::ostream* out) { *out << r.name; }

const row rows[] = {
    {"Hash", in_the_hash, outcome::leads},
    {"Equality", in_the_equality, outcome::is_forbidden},
    {"CopyOfAKey", in_the_copy_of_a_key, outcome::is_forbidden},
    {"CopyOfAKeyForInFlight", in_the_copy_of_a_key_for_in_flight, outcome::is_forbidden},
    {"MoveOfAKey", in_the_move_of_a_key, outcome::is_forbidden},
    {"DestructorOfAKey", in_the_destructor_of_a_key, outcome::leads},
    {"CopyOfALoader", in_the_copy_of_a_loader, outcome::is_refused},
    {"DestructorOfALoader", in_the_destructor_of_a_loader, outcome::leads},
    {"DestructorOfADroppedLoader", in_the_destructor_of_a_dropped_loader, outcome::leads},
    {"Executor", in_the_executor, outcome::is_refused},
    {"MoveOfAValue", in_the_move_of_a_value, outcome::leads},
    {"MoveOfASharedValue", in_the_move_of_a_shared_value, outcome::leads},
    {"CopyOfAValue", in_the_copy_of_a_value, outcome::leads},
    {"DestructorOfAValue", in_the_destructor_of_a_value, outcome::leads},
    {"DestructorOfAnException", in_the_destructor_of_an_exception, outcome::leads},
#if defined(__cpp_lib_jthread)
    {"StopCallbackRunByAFollowerThatIsStopped", by_a_follower_that_is_stopped, outcome::leads},
    {"StopCallbackRunByAFollowerAtItsDeadline", by_a_follower_at_its_deadline, outcome::leads},
    {"StopCallbackRunByAFollowerAtMaxAge", by_a_follower_at_max_age, outcome::leads},
    {"StopCallbackRunByAThreadThatStopsTheLeader", by_a_thread_that_stops_the_leader,
     outcome::leads},
    {"StopCallbackRunByALoaderThatStopsItsCaller", by_a_loader_that_stops_its_caller,
     outcome::leads},
    {"StopCallbackRunByAFirstCallerThatIsStopped", by_a_first_caller_that_is_stopped,
     outcome::leads},
#endif
};

// --- What it does there --------------------------------------------------------------------------
// Each function has `reach` run code that does one thing with the group.

template <class Group>
bool is_refused(Group& g, int k) {
  try {
    (void)g.do_call(k, one);
    return false;
  } catch (const call_error& e) {
    EXPECT_EQ(e.code(), std::errc::resource_deadlock_would_occur);
    return true;
  }
}

[[maybe_unused]] bool operator==(const key& a, int b) { return a.number == b; }

template <class Group>
std::size_t waiters_for(const Group& g, int k) {
  for (const auto& call : g.in_flight()) {
    if (call.key == k) return call.waiters;
  }
  return 0;
}

using reaching = std::function<void(const code&)>;

template <class Group>
void asks_for_its_own_key(Group& g, const reaching& reach) {
  reach([&] { EXPECT_TRUE(g.do_call(own, one).led()); });
}

template <class Group>
void is_refused_its_own_key(Group& g, const reaching& reach) {
  reach([&] { EXPECT_TRUE(is_refused(g, own)); });
}

template <class Group>
void asks_for_another_key(Group& g, const reaching& reach) {
  reach([&] { EXPECT_TRUE(g.do_call(2, one).led()); });
}

template <class Group>
void asks_for_what_its_thread_leads(Group& g, const reaching& reach) {
  (void)g.do_call(3, [&] {
    reach([&] { EXPECT_TRUE(is_refused(g, 3)); });
    return 1;
  });
}

template <class Group>
void waits_for_another_call(Group& g, const reaching& reach) {
  support::threads leader;
  std::atomic<bool> runs{false}, too_old{false};
  reach([&] {
    leader.start([&] {
      (void)g.do_call(4, [&] {
        runs = true;
        support::await([&] { return too_old || waiters_for(g, 4) == 1; }, "a follower");
        return 1;
      });
    });
    support::await([&] { return runs.load(); }, "the other call");
    const auto superseded = g.stats().superseded;
    too_old = g.do_call(4, one).led();
    EXPECT_EQ(too_old, g.stats().superseded > superseded);
  });
}

template <class Group>
void runs_a_queued_task(Group& g, const reaching& reach) {
  support::task_queue queue;
  const auto future = g.do_async(5, queue, one);
  reach([&] {
    queue.run();
    EXPECT_EQ(future.wait_for(0s), std::future_status::ready);
  });
  queue.run();
}

template <class Group>
void drops_a_queued_task(Group& g, const reaching& reach) {
  support::task_queue queue;
  const auto future = g.do_async(6, queue, one);
  reach([&] {
    queue.drop();
    const auto told = support::thrown_by([&] { (void)future.get(); });
    EXPECT_EQ(support::call_error_of(told), std::errc::owner_dead);
  });
}

// --- The table -----------------------------------------------------------------------------------

template <class Group>
void expect_usable(Group& g) {
  support::expect_idle(g);
  EXPECT_TRUE(g.do_call(own, one).led());
}

class UserCode : public testing::TestWithParam<row> {
 protected:
  /// Has `does` do one thing in that place of a call of the group, once.
  /// `does` is given the group, and how to reach the place.
  template <class Do>
  static void expect_fine(const char* what, const Do& does) {
    SCOPED_TRACE(what);
    support::try_with_patience([&](patience time) {
      group_options options{.shards = 1};
#if defined(__cpp_lib_jthread)
      if (GetParam().reach == by_a_follower_at_max_age) options.max_age = time;
#endif
      group_type g(options);
      int runs = 0;
      does(g, [&](const code& user) {
        const auto counted = [&] {
          ++runs;
          user();
        };
        GetParam().reach(g, counted, time);
      });
      expect_usable(g);
      EXPECT_LE(runs, 1);
      return runs == 1;
    });
  }
};

TEST_P(UserCode, MayUseAnotherGroup) {
  using other = group<int, int>;
  const auto expect = [](const char* what, void (*does)(other&, const reaching&)) {
    expect_fine(what, [&](group_type&, const reaching& reach) {
      other o({.shards = 1});
      does(o, reach);
      expect_usable(o);
    });
  };
  expect("asks for the same key", asks_for_its_own_key);
  expect("asks for another key", asks_for_another_key);
  expect("asks for what its thread leads", asks_for_what_its_thread_leads);
  expect("waits for another call", waits_for_another_call);
  expect("runs a queued task", runs_a_queued_task);
  expect("drops a queued task", drops_a_queued_task);
}

class UserCodeOutsideTheLock : public UserCode {};

TEST_P(UserCodeOutsideTheLock, MayUseItsOwnGroup) {
  const bool leads = GetParam().asking_for_its_own_key == outcome::leads;
  expect_fine("asks for the same key",
              leads ? asks_for_its_own_key<group_type> : is_refused_its_own_key<group_type>);
  expect_fine("asks for another key", asks_for_another_key<group_type>);
  expect_fine("asks for what its thread leads", asks_for_what_its_thread_leads<group_type>);
  expect_fine("waits for another call", waits_for_another_call<group_type>);
  expect_fine("runs a queued task", runs_a_queued_task<group_type>);
  expect_fine("drops a queued task", drops_a_queued_task<group_type>);
}

std::vector<row> rows_outside_the_lock() {
  std::vector<row> all;
  std::copy_if(std::begin(rows), std::end(rows), std::back_inserter(all),
               [](const row& r) { return r.asking_for_its_own_key != outcome::is_forbidden; });
  return all;
}

const auto name_of_row = [](const testing::TestParamInfo<row>& r) { return r.param.name; };

INSTANTIATE_TEST_SUITE_P(In, UserCode, testing::ValuesIn(rows), name_of_row);
INSTANTIATE_TEST_SUITE_P(In, UserCodeOutsideTheLock, testing::ValuesIn(rows_outside_the_lock()),
                         name_of_row);

// --- What it throws ------------------------------------------------------------------------------
// Here only to its caller. What an executor, the copy of a loader or the move of a shared value throws
// fails the call: see executor_failure_test.cpp and value_test.cpp.

class UserCodeThatThrows : public testing::TestWithParam<row> {};

TEST_P(UserCodeThatThrows, ChangesNothingForAnybodyElse) {
  group_type g({.shards = 1});
  support::threads leader;
  std::atomic<bool> over{false};
  leader.start([&] {
    const auto other = g.do_call(own + 200, [&] {  // compared with what this thread asks for
      support::await([&] { return over.load(); }, "the caller");
      return 1;
    });
    EXPECT_TRUE(other.led());
  });
  support::await([&] { return g.stats().in_flight == 1; }, "the other call");
  EXPECT_THROW(GetParam().reach(
                   g, [] { throw std::runtime_error("by user code"); }, patience()),
               std::runtime_error);
  EXPECT_EQ(g.in_flight().size(), 1U);
  over = true;
  leader.join();
  expect_usable(g);
}

INSTANTIATE_TEST_SUITE_P(
    In, UserCodeThatThrows,
    testing::Values(row{"Hash", in_the_hash, {}}, row{"Equality", in_the_equality, {}},
                    row{"CopyOfAKey", in_the_copy_of_a_key, {}},
                    row{"CopyOfAKeyForInFlight", in_the_copy_of_a_key_for_in_flight, {}},
                    row{"MoveOfAKey", in_the_move_of_a_key, {}},
                    row{"MoveOfAValue", in_the_move_of_a_value, {}},
                    row{"CopyOfAValue", in_the_copy_of_a_value, {}}),
    name_of_row);

}  // namespace
