// SPDX-License-Identifier: MIT
// The operations of callers that are not threads.
#include <gtest/gtest.h>

#include <atomic>
#include <chrono>
#include <coroutine>
#include <exception>
#include <future>
#include <memory>
#include <mutex>
#include <optional>
#include <singleflight/coroutine.hpp>
#include <singleflight/group.hpp>
#include <string>
#include <utility>
#include <variant>

#include "../tasks.hpp"
#include "operations.hpp"

namespace faults {

namespace {

using singleflight::async_options;
using singleflight::call_context;
using singleflight::group_options;
using singleflight::leader;
using singleflight::outcome;
using singleflight::result;
using singleflight::resume_inline;
using enum point;
using points = std::set<point>;

constexpr auto at_once = [](auto task) { task(); };

/// Tasks that are run by the caller under test, on its thread. It takes no memory.
class slot {
 public:
  auto executor() {
    return [this](auto task) {
      const carrying nothing(nullptr);
      const std::lock_guard lock(mutex_);
      task_ = std::move(task);
      full_ = true;
    };
  }
  void run_next() {
    support::await([&] { return full_.load(); }, "the task");
    std::function<void()> task;
    {
      const std::lock_guard lock(mutex_);
      task.swap(task_);
      full_ = false;
    }
    task();
    const carrying nothing(nullptr);
    task = nullptr;
  }

 private:
  std::mutex mutex_;
  std::function<void()> task_;
  std::atomic<bool> full_ = false;
};

/// The outcome of a callback, for the thread that waits for it.
class told {
 public:
  auto done() {
    return [this](outcome<value> o) noexcept {
      const carrying nothing(nullptr);
      came_.emplace(std::move(o));
      is_there_ = true;
    };
  }
  void wait() const {
    support::await([&] { return is_there_.load(); }, "the outcome");
  }
  [[nodiscard]] bool is_there() const { return is_there_; }
  /// Takes the value, or throws.
  void take(int expected) {
    wait();
    world::take(std::move(*came_).result(), expected);
  }

 private:
  std::optional<outcome<value>> came_;
  std::atomic<bool> is_there_ = false;
};

/// A start that ends its call as a loader would that can fail.
template <class Body>
auto faulty_start(Body body) {
  return [body = std::move(body)](leader<value> lead) {
    std::move(lead).set_from([&] {
      use(point::loader);
      return body();
    });
  };
}

auto start(world& w, bool with_others) {
  return faulty_start([&w, with_others] {
    if (with_others) w.others_join_us();
    return value(w.ours);
  });
}

template <class On>
void lead(world& w, const On& on, bool with_others) {
  told got;
  w.async_call(w.k0, on, {}, start(w, with_others), got.done());
  got.take(w.ours);
}

template <class On>
void follow(world& w, const On& on) {
  told got;
  w.async_call(w.k0, on, {}, start(w, false), got.done());
  got.take(w.theirs);
}

/// Awaits one call in a coroutine of this thread. The frame's own memory is taken without failing.
template <class On, class Load>
class asks {
 public:
  asks(world& w, On on, const async_options& options, Load load)
      : frame_(run(*this, w, std::move(on), options, std::move(load))) {}
  void take(int expected) {
    support::await([&] { return done_.load(); }, "the coroutine");
    if (failed_) std::rethrow_exception(failed_);
    world::take(std::move(*came_), expected);
  }
  [[nodiscard]] bool is_done() const { return done_; }

 private:
  static support::frame run(asks& self, world& w, On on, async_options options, Load load) {
    try {
      self.came_.emplace(co_await w.co_call(w.k0, on, options, load));
    } catch (...) {
      self.failed_ = std::current_exception();
    }
    self.done_ = true;
  }

  std::optional<result<value>> came_;
  std::exception_ptr failed_;
  std::atomic<bool> done_ = false;
  support::frame frame_;
};

auto load_task(world& w, bool with_others) {
  return [&w, with_others]() -> support::lazy_task<value> {
    use(point::loader);
    if (with_others) w.others_join_us();
    co_return value(w.ours);
  };
}

const points used_by_leading = {allocation, hash, key_copy, key_move, value_move, loader};
const points used_by_leading_others = {allocation, hash,       key_copy, key_move,
                                       value_copy, value_move, loader};
const points used_by_following = {allocation, hash, equality, key_copy, key_move, value_copy};
const points used_by_a_coroutine = {allocation, hash, key_copy, key_move, value_move, loader};
const points used_by_a_coroutine_with_others = {allocation, hash,       key_copy, key_move,
                                                value_copy, value_move, loader};
const points used_by_a_following_coroutine = {allocation, hash,     equality,
                                              key_copy,   key_move, value_copy};

void a_call(world& w) { w.another_leads_until_we_join(); }
void a_call_with_a_follower(world& w) {
  a_call(w);
  w.another_follows();
}
void a_call_that_outlasts_us(world& w) { w.another_leads_until_we_are_over(); }
void a_full_call(world& w) {
  a_call_that_outlasts_us(w);
  w.another_follows();
}
void a_call_that_lets_us_down(world& w) {
  w.another_leads_until([&w] {
    if (w.we_have_joined()) throw let_down();
    return false;
  });
}

constexpr group_options full_with_one = {.max_waiters = 1};
constexpr group_options alone_beside_one = {.max_waiters = 1,
                                            .when_full = group_options::run_alone};

const std::vector<operation> of_callbacks = {
    {.name = "async_leader",
     .uses = used_by_leading,
     .perform = [](world& w) { lead(w, resume_inline, false); },
     .cannot_unwind = true},
    {.name = "async_leader_with_followers",
     .uses = used_by_leading_others,
     .perform = [](world& w) { lead(w, resume_inline, true); },
     .publishes = true,
     .cannot_unwind = true},
    {.name = "async_leader_on_an_executor",
     .uses = used_by_leading_others,
     .perform = [](world& w) { lead(w, at_once, true); },
     .publishes = true,
     .cannot_unwind = true},
    {.name = "async_first_follower",
     .uses = used_by_following,
     .perform = [](world& w) { follow(w, resume_inline); },
     .prepare = a_call,
     .cannot_unwind = true},
    {.name = "async_later_follower_on_an_executor",
     .uses = used_by_following,
     .perform = [](world& w) { follow(w, at_once); },
     .prepare = a_call_with_a_follower,
     .cannot_unwind = true},
    {.name = "async_follower_past_max_waiters",
     .uses = {allocation, hash, equality, key_copy, key_move},
     .perform = [](world& w) { follow(w, resume_inline); },
     .prepare = a_full_call,
     .options = full_with_one,
     .refused_with = std::errc::resource_unavailable_try_again,
     .cannot_unwind = true},
    {.name = "async_leader_alone_beside_a_full_call",
     .uses = {allocation, hash, equality, key_copy, key_move, value_move, loader},
     .perform = [](world& w) { lead(w, resume_inline, false); },
     .prepare = a_full_call,
     .options = alone_beside_one,
     .cannot_unwind = true},
    {.name = "async_leader_after_a_failure",
     .uses = {allocation, hash, equality, key_copy, key_move, value_move, loader},
     .perform =
         [](world& w) {
           told got;
           slot here;
           w.async_call(w.k0, here.executor(), {.attempts = 2}, start(w, false), got.done());
           while (!got.is_there()) here.run_next();
           got.take(w.ours);
         },
     .prepare = a_call_that_lets_us_down,
     .cannot_unwind = true},
    {.name = "async_leader_whose_loader_asks_for_the_token_and_a_circle",
     .uses = {allocation, hash, equality, key_copy, key_move, value_move, loader},
     .perform =
         [](world& w) {
           told got;
           told refused;
           w.async_call(w.k0, resume_inline, {}, faulty_start([&w] { return value(w.ours); }),
                        got.done());
           got.take(w.ours);
           std::optional<leader<value>> lead;
           told outer;
           w.async_call(
               w.k0, resume_inline, {},
               [&](leader<value> mine) {
#if defined(__cpp_lib_jthread)
                 EXPECT_FALSE(mine.stop_token().stop_requested());
#endif
                 w.async_call(w.k0, resume_inline, {.inside = &mine.context()}, start(w, false),
                              refused.done());
                 lead.emplace(std::move(mine));
               },
               outer.done());
           if (outer.is_there()) outer.take(w.ours);  // throws
           EXPECT_TRUE(refused.is_there());
           std::move(*lead).set_exception(std::make_exception_ptr(let_down()));
           refused.take(w.ours);  // throws
         },
     .refused_with = std::errc::resource_deadlock_would_occur,
     .cannot_unwind = true},
    {.name = "lead_or_follow_that_drops_the_leader",
     .uses = {allocation, hash, key_copy},
     .perform =
         [](world& w) {
           auto dropped = w.lead_or_follow(w.k0);
           const carrying nothing(nullptr);
           const auto gone = std::move(dropped);
         }},
};

const std::vector<operation> of_coroutines = {
    {.name = "co_call_whose_loader_is_a_task",
     .uses = used_by_a_coroutine,
     .perform = [](world& w) { asks(w, resume_inline, {}, load_task(w, false)).take(w.ours); },
     .cannot_unwind = true},
    {.name = "co_call_whose_loader_is_a_task_with_followers",
     .uses = used_by_a_coroutine_with_others,
     .perform = [](world& w) { asks(w, resume_inline, {}, load_task(w, true)).take(w.ours); },
     .publishes = true,
     .cannot_unwind = true},
    {.name = "co_call_on_an_executor",
     .uses = used_by_a_coroutine_with_others,
     .perform = [](world& w) { asks(w, at_once, {}, load_task(w, true)).take(w.ours); },
     .publishes = true,
     .cannot_unwind = true},
    {.name = "co_call_that_follows_on_an_executor",
     .uses = used_by_a_following_coroutine,
     .perform =
         [](world& w) {
           slot here;
           asks caller(w, here.executor(), {}, load_task(w, false));
           while (!caller.is_done()) here.run_next();
           caller.take(w.theirs);
         },
     .prepare = a_call_with_a_follower,
     .cannot_unwind = true},
    {.name = "co_call_that_leads_after_a_failure",
     .uses = {allocation, hash, equality, key_copy, key_move, value_move, loader},
     .perform =
         [](world& w) {
           slot here;
           asks caller(w, here.executor(), {.attempts = 2}, load_task(w, false));
           while (!caller.is_done()) here.run_next();
           caller.take(w.ours);
         },
     .prepare = a_call_that_lets_us_down,
     .cannot_unwind = true},
};

}  // namespace

std::vector<operation> async_operations() {
  std::vector<operation> all = of_callbacks;
  all.insert(all.end(), of_coroutines.begin(), of_coroutines.end());
  return all;
}

}  // namespace faults
