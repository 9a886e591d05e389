// SPDX-License-Identifier: MIT
// Hooks of an observer that wait, and callers that are resumed inline: a circle through the calls that
// their thread leads is refused, and nothing else is.
#include <gtest/gtest.h>

#include <atomic>
#include <chrono>
#include <cstdint>
#include <functional>
#include <optional>
#include <ostream>
#include <singleflight/coroutine.hpp>
#include <singleflight/group.hpp>
#include <stdexcept>
#include <string_view>
#include <system_error>
#include <utility>
#include <variant>
#include <vector>

#include "executors.hpp"
#include "support.hpp"
#include "tasks.hpp"

namespace {

using namespace std::chrono_literals;
using singleflight::leader;
using singleflight::outcome;
using singleflight::resume_inline;

constexpr std::errc circle = std::errc::resource_deadlock_would_occur;

using plain_group = singleflight::group<int, int>;

/// Runs, in each hook, what a test says.
struct any_hook {
  std::function<void(std::string_view hook, int key)> run = [](std::string_view, int) {};

  void call_began(int key, const auto&) const noexcept { run("call_began", key); }
  void call_ended(int key, const auto&) const noexcept { run("call_ended", key); }
  void joined(int key, const auto&) const noexcept { run("joined", key); }
  void wait_ended(int key, const auto&) const noexcept { run("wait_ended", key); }
  void left(int key, const auto&) const noexcept { run("left", key); }
  void rejected(int key, const auto&) const noexcept { run("rejected", key); }
};
using hooked_group = singleflight::group<int, int, std::hash<int>, std::equal_to<int>, any_hook>;

/// A circle of two threads: this one, in the middle of a call of `key`, waits for a call of another
/// group whose loader waits for `key`. Both are told the same, whichever of them is refused.
class circle_of_two {
 public:
  /// Has the other thread wait for `key`; once.
  template <class Group>
  bool join(Group& g, int key) {
    if (joined_.exchange(true)) return false;
    const std::uint64_t waited = g.stats().waiting;
    other_.start([this, &g, key] {
      static_cast<void>(support::thrown_by([&] {
        (void)second_.do_call(0, [&] { return g.do_call(key, [] { return 0; }).value(); });
      }));
    });
    support::await([&] { return g.stats().waiting > waited; }, "the other thread to join");
    return true;
  }
  /// Waits for the other thread. The timeout ends a circle that is not refused, and is told apart
  /// from a refusal.
  void wait() {
    told_ = support::call_error_of(
        support::thrown_by([&] { (void)second_.do_call(0, {.timeout = 2s}, [] { return 0; }); }));
  }
  template <class Group>
  void close(Group& g, int key) {
    if (join(g, key)) wait();
  }
  /// Expects that one of them was refused.
  void expect_refused() {
    other_.join();
    EXPECT_EQ(told_, circle);
  }

 private:
  std::atomic<bool> joined_ = false;
  std::error_code told_;
  plain_group second_;
  support::threads other_;
};

/// What a caller has its loader do.
using load = std::function<int()>;

support::frame await_many(hooked_group& g, const std::vector<int>& keys, const load& fn) {
  (void)co_await g.co_call_many(keys, resume_inline, [fn](auto& missing) { missing.rest(fn()); });
}
support::frame await_one(hooked_group& g, const std::vector<int>& keys, const load& fn) {
  (void)co_await g.co_call(keys.front(), resume_inline, fn);
}

/// A kind of caller: asks for these keys, or for the first of them, on this thread.
struct kind {
  const char* name;
  void (*ask)(hooked_group& g, const std::vector<int>& keys, const load& fn);

  friend void PrintTo(const kind& k, std::ostream* to) { *to << k.name; }
};

const kind kinds_of_one[] = {
    {"DoCall",
     [](hooked_group& g, const auto& keys, const load& fn) { (void)g.do_call(keys[0], fn); }},
    {"DoCallWithOptions",
     [](hooked_group& g, const auto& keys, const load& fn) { (void)g.do_call(keys[0], {}, fn); }},
    {"DoCallOn",
     [](hooked_group& g, const auto& keys, const load& fn) {
       (void)g.do_call_on(keys[0], support::inline_executor, {}, fn);
     }},
    {"DoAsync", [](hooked_group& g, const auto& keys,
                   const load& fn) { (void)g.do_async(keys[0], support::inline_executor, fn); }},
    {"LeadOrFollow",
     [](hooked_group& g, const auto& keys, const load& fn) {
       auto got = g.lead_or_follow(keys[0]);
       if (auto* const l = std::get_if<leader<int>>(&got)) std::move(*l).set_from(fn);
     }},
    {"Callback",
     [](hooked_group& g, const auto& keys, const load& fn) {
       g.async_call(
           keys[0], resume_inline, {}, [&](leader<int> l) { std::move(l).set_from(fn); },
           [](const outcome<int>&) {});
     }},
    {"Coroutine", [](hooked_group& g, const auto& keys,
                     const load& fn) { const support::frame f = await_one(g, keys, fn); }},
};
const kind kinds_of_many[] = {
    {"DoMany",
     [](hooked_group& g, const auto& keys, const load& fn) {
       (void)g.do_many(keys, [&](auto& missing) { missing.rest(fn()); });
     }},
    {"DoManyOn",
     [](hooked_group& g, const auto& keys, const load& fn) {
       (void)g.do_many_on(keys, support::inline_executor, {},
                          [fn](auto& missing) { missing.rest(fn()); });
     }},
    {"CoroutineOfMany", [](hooked_group& g, const auto& keys,
                           const load& fn) { const support::frame f = await_many(g, keys, fn); }},
};

class HookThatWaits : public testing::TestWithParam<kind> {
 protected:
  void hooks_run(std::function<void(std::string_view hook, int key)> what) {
    g.observer().run = std::move(what);
  }
  void ask(const std::vector<int>& keys, const load& fn) { GetParam().ask(g, keys, fn); }

  /// One shard: the keys of a caller of many are told of when all have been entered for.
  hooked_group g{{.shards = 1, .max_waiters = 1}};
};
class HookOfManyThatWaits : public HookThatWaits {};

const auto name = [](const auto& info) { return info.param.name; };
INSTANTIATE_TEST_SUITE_P(OfOne, HookThatWaits, testing::ValuesIn(kinds_of_one), name);
INSTANTIATE_TEST_SUITE_P(OfMany, HookThatWaits, testing::ValuesIn(kinds_of_many), name);
INSTANTIATE_TEST_SUITE_P(Of, HookOfManyThatWaits, testing::ValuesIn(kinds_of_many), name);

int load_42() { return 42; }

TEST_P(HookThatWaits, ForACallThatWaitsForTheOneThatBeginsIsRefused) {
  circle_of_two two;
  hooks_run([&](std::string_view hook, int key) {
    if (hook == "call_began") two.close(g, key);
  });
  ask({1}, load_42);
  two.expect_refused();
}

// The hook is told of one key while the call of another, which has begun before, waits for its caller.
TEST_P(HookOfManyThatWaits, ForACallThatWaitsForAKeyThatHasBegunIsRefused) {
  circle_of_two two;
  std::optional<int> begun;
  hooks_run([&](std::string_view hook, int key) {
    if (hook != "call_began") return;
    if (begun) two.close(g, *begun);
    begun = key;
  });
  ask({1, 2}, load_42);
  two.expect_refused();
}

TEST_P(HookOfManyThatWaits, ForACallThatWaitsForAKeyThatHasBegunIsRefusedWhereAnotherIsJoined) {
  circle_of_two two;
  leader<int> other = std::get<1>(g.lead_or_follow(2));
  hooks_run([&](std::string_view hook, int key) {
    if (hook != "joined" || key != 2) return;
    two.close(g, 1);
    std::move(other).set_value(0);
  });
  ask({1, 2}, load_42);
  two.expect_refused();
}

TEST_P(HookOfManyThatWaits, ForACallThatWaitsForAKeyThatHasBegunIsRefusedWhereAnotherIsRefused) {
  circle_of_two two;
  leader<int> other = std::get<1>(g.lead_or_follow(2));
  g.async_call(
      2, resume_inline, {}, [](leader<int>) {}, [](const outcome<int>&) {});
  hooks_run([&](std::string_view hook, int) {
    if (hook == "rejected") two.close(g, 1);
  });
  ask({1, 2}, load_42);
  two.expect_refused();
}

// The hook is told of the first key that has failed while others are to fail yet.
class HookOfABatchThatFails : public testing::Test {
 protected:
  HookOfABatchThatFails() {
    g.observer().run = [this](std::string_view hook, int) {
      if (hook != "call_ended") return;
      const auto open = g.in_flight();
      if (!open.empty()) two.close(g, open.front().key);
    };
  }
  ~HookOfABatchThatFails() override { two.expect_refused(); }

  const std::vector<int> keys = {1, 2, 3, 4, 5, 6, 7, 8, 9, 10};  // not all in one shard
  circle_of_two two;
  hooked_group g{{.shards = 8}};
};

TEST_F(HookOfABatchThatFails, ForACallThatWaitsForAKeyThatIsStillOpenIsRefused) {
  (void)g.do_many(keys, [](auto&) { throw std::runtime_error("no"); });
}

TEST_F(HookOfABatchThatFails, ForACallThatWaitsForAKeyThatIsStillOpenIsRefusedOnAnExecutor) {
  support::thread_executor pool;
  (void)g.do_many_on(keys, pool, {}, [](auto&) { throw std::runtime_error("no"); });
}

TEST_F(HookOfABatchThatFails,
       ForACallThatWaitsForAKeyThatIsStillOpenIsRefusedWhereTheTaskIsDropped) {
  support::task_queue queue;
  support::threads caller;
  caller.start([&] { (void)g.do_many_on(keys, std::ref(queue), {}, [](auto&) {}); });
  support::await([&] { return queue.size() == 1; }, "the task");
  queue.drop();
  caller.join();
}

TEST_F(HookOfABatchThatFails, ForACallThatWaitsForAKeyThatIsStillOpenIsRefusedWhereItWasSuspended) {
  support::gate<int> ends;
  const auto enter = [&]() -> support::frame {
    (void)co_await g.co_call_many(keys, resume_inline, [&](auto&) -> support::lazy_task<> {
      (void)co_await ends;
      throw std::runtime_error("no");
    });
  };
  const support::frame caller = enter();
  ends.open(0);
}

// The same without an observer: those who joined the first key are called back while others are open.
template <class Many>
void expect_a_callback_to_be_refused(const Many& ask_for_many) {
  circle_of_two two;
  const std::vector<int> keys = {1, 2, 3, 4, 5, 6, 7, 8, 9, 10};
  plain_group g({.shards = 8});
  const auto done = [&](const outcome<int>&) {
    const auto open = g.in_flight();
    if (!open.empty()) two.close(g, open.front().key);
  };
  ask_for_many(g, keys, [&](auto&) {
    for (const int key : keys)
      g.async_call(
          key, resume_inline, {}, [](leader<int>) {}, done);
    throw std::runtime_error("no");
  });
  two.expect_refused();
}

TEST(CallbackOfABatchThatFails, ForACallThatWaitsForAKeyThatIsStillOpenIsRefused) {
  expect_a_callback_to_be_refused(
      [](auto& g, const auto& keys, const auto& fn) { (void)g.do_many(keys, fn); });
  expect_a_callback_to_be_refused([](auto& g, const auto& keys, const auto& fn) {
    support::thread_executor pool;
    (void)g.do_many_on(keys, pool, {}, fn);
  });
}

#if defined(__cpp_lib_jthread)
// The stop request comes when the call has begun, and the loader has not.
TEST(HookOfALeaderThatWithdraws, ForACallThatWaitsForTheOneThatItLeadsIsRefused) {
  const auto expect_refused = [](const auto& ask) {
    circle_of_two two;
    std::stop_source stop;
    hooked_group g;
    g.observer().run = [&](std::string_view hook, int key) {
      if (hook == "call_began" && two.join(g, key)) stop.request_stop();
      if (hook == "left") two.wait();
    };
    ask(g, singleflight::call_options{.stop = stop.get_token()});
    two.expect_refused();
  };
  expect_refused(
      [](hooked_group& g, const auto& options) { (void)g.do_call(1, options, load_42); });
  expect_refused([](hooked_group& g, const auto& options) {
    (void)g.do_many({1}, {.call = options}, [](auto& missing) { missing.rest(42); });
  });
}
#endif

// --- No circle -------------------------------------------------------------------------------------

/// A short call that this thread leads, in a hook, and that another thread waits for.
class short_call {
 public:
  /// On this thread. Returns when the other has joined the call, or has been refused.
  void lead() {
    if (begun_.exchange(true)) return;
    (void)labels_.do_call(0, [this] {
      support::await(
          [this] {
            const auto s = labels_.stats();
            return s.joined + s.rejected == 1;
          },
          "the other thread to ask");
      return 0;
    });
  }
  /// On the other thread. Returns: what it was told.
  std::error_code ask() {
    support::await([this] { return labels_.stats().led == 1; }, "the call");
    return support::call_error_of(
        support::thrown_by([this] { (void)labels_.do_call(0, [] { return 0; }); }));
  }

 private:
  std::atomic<bool> begun_ = false;
  plain_group labels_;
};

// A caller that has joined a call, inside a loader, does not wait for it yet while it is told so.
TEST_P(HookThatWaits, MayLeadACallForWhichTheJoinedCallWaits) {
  short_call label;
  std::error_code told;
  hooks_run([&](std::string_view hook, int) {
    if (hook == "joined") label.lead();
  });
  support::threads other;
  other.start([&] {
    (void)g.do_call(1, [&] {
      told = label.ask();
      return 42;
    });
  });
  support::await([&] { return g.stats().led == 1; }, "the call");
  plain_group outer;
  (void)outer.do_call(0, [&] {
    ask({1}, load_42);
    return 0;
  });
  other.join();
  EXPECT_EQ(told, std::error_code());
}

#if defined(__cpp_lib_jthread)
// A caller that has left a call, inside a loader, does not wait for it any more when that is told.
TEST(HookOfACallerThatLeaves, MayLeadACallForWhichTheCallThatWasLeftWaits) {
  short_call label;
  std::error_code told;
  std::stop_source stop;
  support::threads other;
  hooked_group g;
  g.observer().run = [&](std::string_view hook, int) {
    if (hook == "left") label.lead();
  };
  plain_group outer;
  (void)outer.do_call(0, [&](const singleflight::call_context& inside) {
    g.async_call(
        1, resume_inline, {.stop = stop.get_token(), .inside = &inside},
        [&](leader<int> l) {
          other.start([&, mine = std::move(l)]() mutable {
            std::move(mine).set_from([&] {
              told = label.ask();
              return 42;
            });
          });
          stop.request_stop();
        },
        [](const outcome<int>&) {});
    return 0;
  });
  other.join();
  EXPECT_EQ(told, std::error_code());
}
#endif

// Likewise one that is destroyed.
TEST(HookOfACallerThatIsDestroyed, MayLeadACallForWhichTheCallThatWasLeftWaits) {
  short_call label;
  std::error_code told;
  hooked_group g;
  g.observer().run = [&](std::string_view hook, int) {
    if (hook == "left") label.lead();
  };
  support::threads other;
  other.start([&] {
    (void)g.do_call(1, [&] {
      told = label.ask();
      return 42;
    });
  });
  support::await([&] { return g.stats().led == 1; }, "the call");
  plain_group outer;
  (void)outer.do_call(0, [&](const singleflight::call_context& inside) {
    const auto enter = [&](singleflight::async_options options) -> support::frame {
      (void)co_await g.co_call(1, resume_inline, options, load_42);
    };
    enter({.inside = &inside}).destroy();
    return 0;
  });
  other.join();
  EXPECT_EQ(told, std::error_code());
}

}  // namespace
