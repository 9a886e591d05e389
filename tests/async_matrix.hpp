// SPDX-License-Identifier: MIT
// The matrix: each kind of caller leads, with each kind of follower, whatever becomes of the call and
// whoever leaves it. Another kind is a class derived from `party` and a row of a table: see `kind`.
#ifndef SINGLEFLIGHT_TESTS_ASYNC_MATRIX_HPP
#define SINGLEFLIGHT_TESTS_ASYNC_MATRIX_HPP

#include <gtest/gtest.h>
#if !defined(_WIN32)
#include <pthread.h>
#endif

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <exception>
#include <functional>
#include <future>
#include <memory>
#include <mutex>
#include <optional>
#include <singleflight/coroutine.hpp>
#include <singleflight/group.hpp>
#include <stdexcept>
#include <string>
#include <system_error>
#include <thread>
#include <type_traits>
#include <utility>
#include <variant>
#include <vector>

#if defined(__cpp_lib_jthread)
#include <stop_token>
#endif

#include "executors.hpp"
#include "support.hpp"
#include "tasks.hpp"

namespace matrix {

using support::await;

/// What becomes of the call.
enum class ending { value, exception, owner_dead };
[[nodiscard]] inline const char* name_of(ending e) {
  return e == ending::value ? "value" : e == ending::exception ? "exception" : "owner_dead";
}

/// How a caller can leave.
enum class leaving { by_stop, by_destruction };
/// Who leaves before the call ends.
enum class who { nobody, a_follower, the_leader, all };
[[nodiscard]] inline const char* name_of(who w) {
  return w == who::nobody       ? "nobody leaves"
         : w == who::a_follower ? "a follower leaves"
         : w == who::the_leader ? "the leader leaves"
                                : "all leave";
}

/// Values that can be told from others.
template <class Value>
struct values;
template <>
struct values<int> {
  static int make() { return 42; }
  static bool right(const int& v) { return v == 42; }
};
template <>
struct values<std::unique_ptr<int>> {
  static std::unique_ptr<int> make() { return std::make_unique<int>(42); }
  static bool right(const std::unique_ptr<int>& v) { return v != nullptr && *v == 42; }
};
template <>
struct values<void> {
  static void make() {}
};

template <class Value>
using group = singleflight::group<int, Value>;

/// What one caller was answered.
class answer {
 public:
  template <class Value>
  void got(const singleflight::result<Value>& r) {
    if constexpr (std::is_void_v<Value>) {
      note(true, r.led());
    } else {
      note(values<Value>::right(*r), r.led());
    }
  }
  void note(bool right, bool led) {
    const std::lock_guard lock(mutex_);
    ++times_;
    right_ = right;
    led_ = led;
  }
  void failed(std::exception_ptr why) {
    const std::lock_guard lock(mutex_);
    ++times_;
    why_ = std::move(why);
  }
  template <class Value>
  void outcome(singleflight::outcome<Value> o) {
    if (o.has_value()) {
      got(std::move(o).result());
    } else {
      failed(o.error());
    }
  }
  [[nodiscard]] int times() const {
    const std::lock_guard lock(mutex_);
    return times_;
  }
  [[nodiscard]] bool right() const { return right_; }
  [[nodiscard]] bool led() const { return led_; }
  [[nodiscard]] std::exception_ptr error() const {
    const std::lock_guard lock(mutex_);
    return why_;
  }

 private:
  mutable std::mutex mutex_;
  int times_ = 0;
  bool right_ = false;
  bool led_ = false;
  std::exception_ptr why_;
};

/// The call of one cell, as its loader sees it.
struct the_call {
  ending becomes = ending::value;
  std::exception_ptr thrown = std::make_exception_ptr(std::runtime_error("the loader"));
  std::atomic<int> began = 0;  // loaders
#if defined(__cpp_lib_jthread)
  std::stop_token told;
#endif

  void begin(const singleflight::call_context& c) {
#if defined(__cpp_lib_jthread)
    told = c.stop_token();
#else
    (void)c;
#endif
    EXPECT_EQ(++began, 1) << "two loaders ran";
  }
};

/// One caller.
template <class Value>
class party {
 public:
  party() = default;
  party(const party&) = delete;
  party& operator=(const party&) = delete;
  virtual ~party() = default;

  /// Enters, to lead if no call is in flight, and returns when it leads or waits.
  virtual void enter(group<Value>& flights, the_call& call) = 0;
  /// Leaves its call, if it is of a kind that can.
  virtual void leave(leaving /*how*/) { ADD_FAILURE() << "cannot leave"; }
  /// Has the call end that it leads.
  virtual void end(the_call& call) = 0;
  /// Returns when it has been answered, or never will be.
  virtual void finish() = 0;

  answer said;
};

/// A row of the table.
template <class Value>
struct kind {
  const char* name;
  std::function<std::unique_ptr<party<Value>>()> make;
  bool waits = true;     // where it leads: whether it counts among those that wait
  bool answered = true;  // where it leads: whether it is given a result
  bool leader_stops = false;
  bool follower_stops = false;
  bool can_be_destroyed = false;
  bool withdraws = false;  // where it leads, and is stopped: gets the result nevertheless
  bool owner_can_die = true;
};

/// Ends the call of a leader that is ended elsewhere.
template <class Value>
void end_with(std::optional<singleflight::leader<Value>>& lead, const the_call& call) {
  if (call.becomes == ending::owner_dead) {
    lead.reset();
  } else if (call.becomes == ending::exception) {
    std::move(*lead).set_exception(call.thrown);
  } else {
    std::move(*lead).set_from([] { return values<Value>::make(); });
  }
}

// --- Threads -------------------------------------------------------------------------------------------

/// A loader that runs on a thread, until it is told how to end.
template <class Value>
class held_thread_loader {
 public:
  Value operator()(the_call& call, const singleflight::call_context& c) {
    call.begin(c);
    end_.get_future().wait();
    if (call.becomes == ending::exception) std::rethrow_exception(call.thrown);
#if defined(SINGLEFLIGHT_TESTS_THREAD_EXIT_UNWINDS)
    if (call.becomes == ending::owner_dead) pthread_exit(nullptr);
#endif
    return values<Value>::make();
  }
  void end() { end_.set_value(); }

 private:
  std::promise<void> end_;
};

template <class Value, bool Stoppable, bool ByToken>
class thread_party final : public party<Value> {
 public:
  void enter(group<Value>& flights, the_call& call) override {
    const auto before = flights.stats();
    thread_.start([this, &flights, &call] {
      try {
        run(flights, call);
      } catch (const std::exception&) {
        this->said.failed(std::current_exception());
      }
    });
    await(
        [&] {
          const auto now = flights.stats();
          return now.waiting > before.waiting ||
                 (now.led > before.led && (ByToken || call.began > 0));
        },
        "the thread");
    if (ByToken && flights.stats().led > before.led) thread_.join();
  }
  void leave(leaving) override {
#if defined(__cpp_lib_jthread)
    stop_.request_stop();
#endif
  }
  void end(the_call& call) override {
    if constexpr (ByToken) {
      end_with(leader_, call);
    } else {
      loader_.end();
    }
  }
  void finish() override { thread_.join(); }

 private:
  void run(group<Value>& flights, the_call& call) {
    singleflight::call_options options;
#if defined(__cpp_lib_jthread)
    if constexpr (Stoppable) options.stop = stop_.get_token();
#endif
    if constexpr (ByToken) {
      auto r = flights.lead_or_follow(1, options);
      if (auto* const got = std::get_if<singleflight::result<Value>>(&r)) {
        this->said.got(*got);
      } else {
        leader_.emplace(std::get<singleflight::leader<Value>>(std::move(r)));
        call.begin(leader_->context());
      }
    } else {
      this->said.got(flights.do_call(
          1, options, [&](const singleflight::call_context& c) { return loader_(call, c); }));
    }
  }
  std::optional<singleflight::leader<Value>> leader_;
  held_thread_loader<Value> loader_;
#if defined(__cpp_lib_jthread)
  std::stop_source stop_;
#endif
  support::threads thread_;
};

/// The future of a call on an executor.
template <class Value>
class future_party final : public party<Value> {
 public:
  void enter(group<Value>& flights, the_call& call) override {
    future_ =
        flights.do_async(1, std::ref(pool_), [&call](const singleflight::call_context& c) -> Value {
          call.begin(c);
          if (call.becomes == ending::exception) std::rethrow_exception(call.thrown);
          return values<Value>::make();
        });
  }
  void end(the_call& call) override {
    if (call.becomes == ending::owner_dead) {
      pool_.drop();
    } else {
      pool_.run();
    }
  }
  void finish() override {
    try {
      if constexpr (std::is_void_v<Value>) {
        future_.get();
        this->said.note(true, false);
      } else {
        this->said.note(values<Value>::right(future_.get()), false);
      }
    } catch (const std::exception&) {
      this->said.failed(std::current_exception());
    }
  }

 private:
  support::task_queue pool_;
  std::shared_future<Value> future_;
};

// --- Coroutines and callbacks ------------------------------------------------------------------------------

/// What both kinds have: a stop source and, if they are resumed by one, an executor.
template <class Value, bool Bound>
class async_party : public party<Value> {
 public:
  void finish() override { queue_.run(); }

 protected:
  [[nodiscard]] singleflight::async_options options() const {
    singleflight::async_options o;
#if defined(__cpp_lib_jthread)
    o.stop = stop_.get_token();
#endif
    return o;
  }
  [[nodiscard]] auto on() {
    if constexpr (Bound) {
      return std::ref(queue_);
    } else {
      return singleflight::resume_inline;
    }
  }
  void request_stop() {
#if defined(__cpp_lib_jthread)
    stop_.request_stop();
#endif
  }

 private:
  support::task_queue queue_;
#if defined(__cpp_lib_jthread)
  std::stop_source stop_;
#endif
};

template <class Value, bool Bound>
class coroutine_party final : public async_party<Value, Bound> {
 public:
  void enter(group<Value>& flights, the_call& call) override {
    frame_ = ask(flights, this->on(), this->options(), call, opens_, this->said);
  }
  void leave(leaving how) override {
    if (how == leaving::by_destruction) {
      frame_.destroy();
    } else {
      this->request_stop();
    }
  }
  void end(the_call& call) override {
    if (call.becomes == ending::owner_dead) {  // of a call that the loader waits for
      opens_.fail(singleflight::detail::make_call_error(singleflight::detail::reason::leader_gone));
    } else if (call.becomes == ending::exception) {
      opens_.fail(call.thrown);
    } else if constexpr (std::is_void_v<Value>) {
      opens_.open();
    } else {
      opens_.open(values<Value>::make());
    }
  }

 private:
  template <class On>
  static support::frame ask(group<Value>& flights, On on, singleflight::async_options options,
                            the_call& call, support::gate<Value>& opens, answer& said) {
    auto load = [&call, &opens](const singleflight::call_context& c) -> support::lazy_task<Value> {
      call.begin(c);
      co_return co_await opens;
    };
    try {
      said.got(co_await flights.co_call(1, on, options, load));
    } catch (...) {
      said.failed(std::current_exception());
    }
  }

  support::gate<Value> opens_;
  support::frame frame_;
};

template <class Value, bool Bound>
class callback_party final : public async_party<Value, Bound> {
 public:
  void enter(group<Value>& flights, the_call& call) override {
    flights.async_call(
        1, this->on(), this->options(),
        [this, &call](singleflight::leader<Value> mine) {
          call.begin(mine.context());
          leader_.emplace(std::move(mine));
        },
        [this](singleflight::outcome<Value> o) { this->said.outcome(std::move(o)); });
  }
  void leave(leaving) override { this->request_stop(); }
  void end(the_call& call) override { end_with(leader_, call); }

 private:
  std::optional<singleflight::leader<Value>> leader_;
};

// Kinds that need other libraries, each in a translation unit of its own.
template <class Value>
[[nodiscard]] std::vector<kind<Value>> kinds_of_asio();
template <class Value>
[[nodiscard]] std::vector<kind<Value>> kinds_of_boost_asio();
template <class Value>
[[nodiscard]] std::vector<kind<Value>> kinds_of_fibers();

/// The kinds of the core.
template <class Value>
[[nodiscard]] std::vector<kind<Value>> kinds_of_the_core() {
#if defined(__cpp_lib_jthread) && !defined(__MINGW32__)  // see STOP_CALLBACK in portability/run
  constexpr bool stops = true;
#else
  constexpr bool stops = false;
#endif
#if defined(SINGLEFLIGHT_TESTS_THREAD_EXIT_UNWINDS)
  constexpr bool thread_exit_unwinds = true;
#else
  constexpr bool thread_exit_unwinds = false;
#endif
  const auto made = [](auto tag) {
    using type = typename decltype(tag)::type;
    return [] { return std::unique_ptr<party<Value>>(std::make_unique<type>()); };
  };
  using plain = std::type_identity<thread_party<Value, false, false>>;
  using stoppable = std::type_identity<thread_party<Value, true, false>>;
  using token = std::type_identity<thread_party<Value, true, true>>;
  using inlined = std::type_identity<coroutine_party<Value, false>>;
  using bound = std::type_identity<coroutine_party<Value, true>>;
  using inlined_callback = std::type_identity<callback_party<Value, false>>;
  using bound_callback = std::type_identity<callback_party<Value, true>>;
  return {
      {.name = "thread",
       .make = made(plain()),
       .waits = false,
       .owner_can_die = thread_exit_unwinds},
      {.name = "thread with stop",
       .make = made(stoppable()),
       .waits = false,
       .leader_stops = stops,
       .follower_stops = stops,
       .withdraws = true,
       .owner_can_die = thread_exit_unwinds},
      {.name = "token",
       .make = made(token()),
       .waits = false,
       .answered = false,
       .follower_stops = stops},
      {.name = "future", .make = made(std::type_identity<future_party<Value>>()), .waits = false},
      {.name = "coroutine inline",
       .make = made(inlined()),
       .leader_stops = stops,
       .follower_stops = stops,
       .can_be_destroyed = true},
      {.name = "coroutine on an executor",
       .make = made(bound()),
       .leader_stops = stops,
       .follower_stops = stops,
       .can_be_destroyed = true},
      {.name = "callback inline",
       .make = made(inlined_callback()),
       .leader_stops = stops,
       .follower_stops = stops},
      {.name = "callback on an executor",
       .make = made(bound_callback()),
       .leader_stops = stops,
       .follower_stops = stops},
  };
}

template <class Value>
[[nodiscard]] std::vector<kind<Value>> kinds() {
  std::vector<kind<Value>> all = kinds_of_the_core<Value>();
  [[maybe_unused]] const auto add = [&all](std::vector<kind<Value>> others) {
    for (kind<Value>& k : others) all.push_back(std::move(k));
  };
#if defined(SINGLEFLIGHT_TESTS_ASIO)
  add(kinds_of_asio<Value>());
  add(kinds_of_boost_asio<Value>());
#endif
#if defined(SINGLEFLIGHT_TESTS_FIBERS)
  add(kinds_of_fibers<Value>());
#endif
  return all;
}

// --- The cells -----------------------------------------------------------------------------------------

/// Runs one cell: a leader, two followers.
template <class Value>
void run_cell(const kind<Value>& leads, const kind<Value>& follows, ending becomes, who leaves,
              leaving how) {
  group<Value> flights;
  the_call call;
  call.becomes = becomes;
  const auto leader = leads.make();
  const auto first = follows.make();
  const auto second = follows.make();
  leader->enter(flights, call);
  first->enter(flights, call);
  second->enter(flights, call);
  const std::size_t waits = leads.waits ? 1 : 0;
  auto now = flights.stats();
  EXPECT_EQ(now.led, 1U);
  EXPECT_EQ(now.joined, 2U);
  EXPECT_EQ(now.waiting, 2U + waits);
  EXPECT_EQ(now.in_flight, 1U);

  const bool first_leaves = leaves == who::a_follower || leaves == who::all;
  const bool second_leaves = leaves == who::all;
  const bool leader_leaves = leaves == who::the_leader || leaves == who::all;
  if (first_leaves) first->leave(how);
  if (leader_leaves) leader->leave(how);
  if (second_leaves) second->leave(how);
  const std::size_t gone = (first_leaves ? 1U : 0U) + (second_leaves ? 1U : 0U);
  const std::size_t left = 2U + waits - gone - (leader_leaves ? waits : 0U);
  await([&] { return flights.stats().waiting == left; }, "those who leave to have left");
  EXPECT_EQ(flights.in_flight().empty(), leaves == who::all);
#if defined(__cpp_lib_jthread)
  if (call.began > 0) {
    await([&] { return call.told.stop_requested() || leaves != who::all; }, "the stop request");
    EXPECT_EQ(call.told.stop_requested(), leaves == who::all);
  }
#endif

  leader->end(call);
  for (const auto& p : {leader.get(), first.get(), second.get()}) p->finish();

  std::exception_ptr shared_failure;
  const auto expect_answer = [&](const party<Value>& p, bool has_left, bool is_leader) {
    const answer& said = p.said;
    const bool dead = becomes == ending::owner_dead;
    const bool destroyed = has_left && how == leaving::by_destruction;
    // A thread that ends inside its loader returns to nobody.
    const bool ended = is_leader && dead && std::string(leads.name).starts_with("thread");
    const bool unanswered = (is_leader && !leads.answered) || destroyed || ended;
    EXPECT_EQ(said.times(), unanswered ? 0 : 1);
    if (unanswered) return;
    if (has_left && !(is_leader && leads.withdraws)) {
      EXPECT_EQ(support::call_error_of(said.error()), std::errc::operation_canceled);
      return;
    }
    if (becomes == ending::value) {
      EXPECT_TRUE(said.right());
      EXPECT_EQ(said.led(), is_leader && std::string(leads.name) != "future");
      return;
    }
    if (dead) {
      EXPECT_EQ(support::call_error_of(said.error()), std::errc::owner_dead);
    } else {
      support::expect_same(said.error(), call.thrown);
    }
    if (shared_failure) support::expect_same(said.error(), shared_failure);
    shared_failure = said.error();
  };
  expect_answer(*leader, leader_leaves, true);
  expect_answer(*first, first_leaves, false);
  expect_answer(*second, second_leaves, false);

  now = flights.stats();
  EXPECT_EQ(now.led, 1U);
  EXPECT_EQ(now.joined, 2U);
  EXPECT_EQ(now.rejected, 0U);
  EXPECT_EQ(now.failed, becomes == ending::value ? 0U : 1U);
  EXPECT_EQ(now.timed_out, 0U);
  EXPECT_EQ(now.cancelled, how == leaving::by_stop ? gone + (leader_leaves ? 1U : 0U) : 0U);
  support::expect_idle(flights);
  flights.wait_drained();
}

/// Whether the callers that leave can do so like that.
template <class Value>
[[nodiscard]] bool can_leave(const kind<Value>& leads, const kind<Value>& follows, who leaves,
                             leaving how) {
  const bool stop = how == leaving::by_stop;
  const bool leader = stop ? leads.leader_stops : leads.can_be_destroyed;
  const bool follower = stop ? follows.follower_stops : follows.can_be_destroyed;
  switch (leaves) {
    case who::nobody:
      return stop;  // once
    case who::a_follower:
      return follower;
    case who::the_leader:
      return leader;
    case who::all:
      return leader && follower;
  }
  return false;
}

/// Runs all cells of these kinds. Returns: how many.
template <class Value>
int run(const std::vector<kind<Value>>& leaders, const std::vector<kind<Value>>& followers,
        ending becomes) {
  int cells = 0;
  for (const kind<Value>& leads : leaders) {
    if (becomes == ending::owner_dead && !leads.owner_can_die) continue;
    for (const kind<Value>& follows : followers) {
      for (const who leaves : {who::nobody, who::a_follower, who::the_leader, who::all}) {
        for (const leaving how : {leaving::by_stop, leaving::by_destruction}) {
          if (!can_leave(leads, follows, leaves, how)) continue;
          SCOPED_TRACE(std::string(leads.name) + " leads, " + follows.name + " follows, " +
                       name_of(becomes) + ", " + name_of(leaves) +
                       (how == leaving::by_stop ? "" : " by being destroyed"));
          run_cell(leads, follows, becomes, leaves, how);
          ++cells;
          if (testing::Test::HasFailure()) return cells;
        }
      }
    }
  }
  return cells;
}

}  // namespace matrix

#endif  // SINGLEFLIGHT_TESTS_ASYNC_MATRIX_HPP
