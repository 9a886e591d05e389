// SPDX-License-Identifier: MIT
// What the observer of a group is told of each kind of caller, by each way that its call, its wait or its
// entry ends. Callers of many keys are in observer_bulk_test.cpp, those by Asio in asio/.
#include <gtest/gtest.h>

#include <atomic>
#include <exception>
#include <functional>
#include <memory>
#include <optional>
#include <singleflight/coroutine.hpp>
#include <singleflight/group.hpp>
#include <stdexcept>
#include <string>
#include <utility>
#include <variant>
#include <vector>

#include "executors.hpp"
#include "recorder.hpp"
#include "support.hpp"
#include "tasks.hpp"

namespace {

using namespace std::chrono_literals;
using singleflight::leader;
using singleflight::outcome;
using support::watched;
using support::words;

enum class kind { do_call, do_call_on, lead_or_follow, callback, posted_callback, coroutine };

constexpr auto all_kinds = {kind::do_call,  kind::do_call_on,      kind::lead_or_follow,
                            kind::callback, kind::posted_callback, kind::coroutine};

const char* name_of(kind k) {
  switch (k) {
    case kind::do_call:
      return "DoCall";
    case kind::do_call_on:
      return "DoCallOn";
    case kind::lead_or_follow:
      return "LeadOrFollow";
    case kind::callback:
      return "Callback";
    case kind::posted_callback:
      return "PostedCallback";
    default:
      return "Coroutine";
  }
}

const std::exception_ptr no = std::make_exception_ptr(std::runtime_error("no"));

int load_42() { return 42; }
int load_nothing() { std::rethrow_exception(no); }

/// What a caller wants, whatever its kind.
struct wish {
  std::size_t attempts = 1;
#if defined(__cpp_lib_jthread)
  std::stop_token stop = {};
#endif
  template <class Options>
  [[nodiscard]] Options as() const {
    Options o;
    o.attempts = attempts;
#if defined(__cpp_lib_jthread)
    o.stop = stop;
#endif
    return o;
  }
};

class ObserverMatrix : public support::observed, public testing::WithParamInterface<kind> {
 protected:
  using observed::observed;

  /// A caller of key 1, on this thread. One that waits on a thread returns when it is answered.
  void ask(int (*load)(), const wish& w = {}) {
    using singleflight::async_options;
    using singleflight::call_options;
    const auto start = [load](leader<int> l) { std::move(l).set_from(load); };
    const auto done = [](outcome<int>) {};
    try {
      switch (GetParam()) {
        case kind::do_call:
          (void)g.do_call(1, w.as<call_options>(), load);
          break;
        case kind::do_call_on:
          (void)g.do_call_on(1, support::inline_executor, w.as<call_options>(), load);
          break;
        case kind::lead_or_follow: {
          auto got = g.lead_or_follow(1, w.as<call_options>());
          if (auto* const l = std::get_if<leader<int>>(&got)) std::move(*l).set_from(load);
          break;
        }
        case kind::callback:
          g.async_call(1, singleflight::resume_inline, w.as<async_options>(), start, done);
          break;
        case kind::posted_callback:
          g.async_call(1, support::inline_executor, w.as<async_options>(), start, done);
          break;
        default:
          coroutines_.push_back(await(g, w.as<async_options>(), load));
      }
    } catch (const std::exception&) {
    }
  }

  /// Another caller's call.
  [[nodiscard]] leader<int> lead() { return std::get<1>(g.lead_or_follow(1)); }

  /// A caller that joins the call of `other`, which `end` then ends.
  template <class End>
  void join(const End& end, const wish& w = {}) {
    leader<int> other = lead();
    support::threads caller;
    caller.start([&] { ask(load_42, w); });
    support::await([&] { return told.sum->joins == 1 && g.stats().waiting == 1; }, "the caller");
    end(std::move(other));
    caller.join();
  }

 private:
  static support::frame await(watched& g, singleflight::async_options options, int (*load)()) {
    try {
      (void)co_await g.co_call(1, singleflight::resume_inline, options, load);
    } catch (const std::exception&) {
    }
  }

  std::vector<support::frame> coroutines_;
};

class ObserverMatrixOfAging : public ObserverMatrix {
 protected:
  ObserverMatrixOfAging() : ObserverMatrix({.max_age = 1ns}) {}
};
class ObserverMatrixOfFull : public ObserverMatrix {
 protected:
  ObserverMatrixOfFull() : ObserverMatrix({.max_waiters = 0}) {}
};
class ObserverMatrixOfAlone : public ObserverMatrix {
 protected:
  ObserverMatrixOfAlone()
      : ObserverMatrix({.max_waiters = 0, .when_full = singleflight::group_options::run_alone}) {}
};

const auto kinds = testing::ValuesIn(all_kinds);
const auto name = [](const auto& info) { return name_of(info.param); };
INSTANTIATE_TEST_SUITE_P(Of, ObserverMatrix, kinds, name);
INSTANTIATE_TEST_SUITE_P(Of, ObserverMatrixOfAging, kinds, name);
INSTANTIATE_TEST_SUITE_P(Of, ObserverMatrixOfFull, kinds, name);
INSTANTIATE_TEST_SUITE_P(Of, ObserverMatrixOfAlone, kinds, name);

TEST_P(ObserverMatrix, BeginsACall) {
  ask(load_42);
  EXPECT_EQ(events(), (words{"began 1", "ended 1 value 0"}));
}

TEST_P(ObserverMatrix, BeginsACallThatFails) {
  ask(load_nothing);
  EXPECT_EQ(events(), (words{"began 1", "ended 1 exception 0"}));
}

TEST_P(ObserverMatrix, JoinsACall) {
  join([](leader<int> l) { std::move(l).set_value(42); });
  EXPECT_EQ(told.to->count("wait_ended 1 value"), 1);
  EXPECT_EQ(told.to->count("ended 1 value 1"), 1);
  EXPECT_EQ(events().size(), 4U);
}

TEST_P(ObserverMatrix, JoinsACallThatFails) {
  join([](leader<int> l) { std::move(l).set_exception(no); });
  EXPECT_EQ(told.to->count("wait_ended 1 exception"), 1);
  EXPECT_EQ(told.to->count("ended 1 exception 1"), 1);
  EXPECT_EQ(events().size(), 4U);
}

TEST_P(ObserverMatrix, JoinsACallWhoseOwnerIsGone) {
  join([](const leader<int>) {});
  EXPECT_EQ(told.to->count("wait_ended 1 exception"), 1);
  EXPECT_EQ(told.to->count("ended 1 exception 1"), 1);
  EXPECT_EQ(events().size(), 4U);
}

TEST_P(ObserverMatrix, TriesAgain) {
  join([](leader<int> l) { std::move(l).set_exception(no); }, {.attempts = 2});
  EXPECT_EQ(told.to->count("wait_ended 1 exception"), 1);
  EXPECT_EQ(told.to->count("began 1 again"), 1);
  EXPECT_EQ(told.to->count("ended 1 value 0"), 1);
  EXPECT_EQ(events().size(), 6U);
}

#if defined(__cpp_lib_jthread)
TEST_P(ObserverMatrix, LeavesAtItsStopRequest) {
  std::stop_source stop;
  join(
      [&](leader<int> l) {
        stop.request_stop();
        support::await([&] { return told.to->count("left 1 stop") == 1; }, "the caller to leave");
        std::move(l).set_value(42);
      },
      {.stop = stop.get_token()});
  EXPECT_EQ(events(), (words{"began 1", "joined 1 1", "left 1 stop", "ended 1 value 0"}));
}

TEST_P(ObserverMatrix, IsStoppedBeforeItEnters) {
  std::stop_source stop;
  stop.request_stop();
  ask(load_42, {.stop = stop.get_token()});
  EXPECT_EQ(events(), words{"rejected 1 stop"});
}
#endif

TEST_P(ObserverMatrixOfFull, IsRefused) {
  const leader<int> other = lead();
  ask(load_42);
  EXPECT_EQ(events(), (words{"began 1", "rejected 1 full"}));
}

TEST_P(ObserverMatrixOfAlone, RunsItsOwnLoader) {
  const leader<int> other = lead();
  ask(load_42);
  EXPECT_EQ(events(), (words{"began 1", "began 1 alone", "ended 1 value 0"}));
}

TEST_P(ObserverMatrixOfAging, FindsACallTooOld) {
  const leader<int> other = lead();
  ask(load_42);
  EXPECT_EQ(events(), (words{"began 1", "superseded 1", "began 1", "ended 1 value 0"}));
}

// --- Hooks that block ------------------------------------------------------------------------------

/// Blocks where a test says.
struct blocking {
  std::function<void()> began = [] {}, ended = [] {};

  void call_began(const auto&) const noexcept { began(); }
  void call_ended(const auto&) const noexcept { ended(); }
};
using blocking_group = singleflight::group<int, int, std::hash<int>, std::equal_to<int>, blocking>;

// If `call_ended` came under a lock, or before those who wait are told, they would not return.
template <class Lead>
void expect_followers_to_return_before_call_ended_does(const Lead& lead) {
  std::atomic<int> returned = 0;
  const auto wait = [&] { support::await([&] { return returned == 2; }, "the followers"); };
  blocking_group g({}, {}, {}, {.ended = wait});
  support::threads follower;
  lead(g, [&] {
    follower.start([&] {
      (void)g.do_call(1, [] { return 0; });
      ++returned;
    });
    g.async_call(
        1, singleflight::resume_inline, {}, [](leader<int>) {}, [&](outcome<int>) { ++returned; });
    support::await([&] { return g.stats().joined == 2; }, "the followers to join");
    return 42;
  });
  follower.join();
  EXPECT_EQ(returned, 2);
}

TEST(ObserverThatBlocks, DelaysNoFollowerWhenACallHasEnded) {
  using group = blocking_group;
  expect_followers_to_return_before_call_ended_does(
      [](group& g, const auto& load) { (void)g.do_call(1, load); });
  expect_followers_to_return_before_call_ended_does([](group& g, const auto& load) {
    (void)g.do_call_on(1, support::inline_executor, {}, load);
  });
  expect_followers_to_return_before_call_ended_does([](group& g, const auto& load) {
    auto l = std::get<1>(g.lead_or_follow(1));
    const int value = load();
    std::move(l).set_value(value);
  });
  expect_followers_to_return_before_call_ended_does([](group& g, const auto& load) {
    (void)g.do_many({1}, [&](auto& missing) { missing.set_at(0, load()); });
  });
  expect_followers_to_return_before_call_ended_does([](group& g, const auto& load) {
    (void)g.do_many_on({1}, support::inline_executor, {},
                       [&](auto& missing) { missing.set_at(0, load()); });
  });
}

// If `call_began` came under the lock, the other could not join.
TEST(ObserverThatBlocks, KeepsNobodyFromJoiningTheCallThatHasBegun) {
  for (const bool many : {false, true}) {
    std::optional<blocking_group> g;
    support::threads follower;
    const auto join = [&] {
      follower.start([&] { (void)g->do_call(1, [] { return 0; }); });
      support::await_followers(*g, 1);
    };
    g.emplace(singleflight::group_options{.shards = 1}, std::hash<int>(), std::equal_to<int>(),
              blocking{.began = join});
    if (many) {
      (void)g->do_many({1}, [](auto& missing) { missing.rest(42); });
    } else {
      (void)g->do_call(1, [] { return 42; });
    }
    follower.join();
    EXPECT_EQ(g->stats().joined, 1U);
  }
}

}  // namespace
