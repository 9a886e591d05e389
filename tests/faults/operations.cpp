// SPDX-License-Identifier: MIT
#include "operations.hpp"

#include <gtest/gtest.h>

#include <array>
#include <atomic>
#include <chrono>
#include <cstddef>
#include <exception>
#include <iterator>
#include <optional>
#include <singleflight/coroutine.hpp>
#include <singleflight/group.hpp>
#include <string>
#include <utility>
#include <variant>
#include <vector>

#include "../tasks.hpp"

namespace faults {

namespace {

using singleflight::call_options;
using singleflight::group_options;
using namespace std::chrono_literals;
using enum point;
using points = std::set<point>;

call_options with_deadline() { return {.deadline = clock::now() + 1h}; }
call_options with_attempts(std::size_t n) {
  call_options options;
  options.attempts = n;
  return options;
}

// --- What others do ------------------------------------------------------------------------------

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
void a_call_too_old(world& w) {
  a_call_that_outlasts_us(w);
  const auto old = clock::now() + w.patience;
  support::await([&] { return clock::now() > old; }, "the call to grow old");
}

constexpr group_options full_with_one = {.max_waiters = 1};
constexpr group_options alone_beside_one = {.max_waiters = 1,
                                            .when_full = group_options::run_alone};

// --- Leading -------------------------------------------------------------------------------------

void lead(world& w) { w.take(w.do_call(w.k0, w.load()), w.ours); }

/// Begins so many calls, one within the other, that the map has to grow several times.
struct nest {
  static constexpr int depth = 100;
  singleflight::group<int, int> g{group_options{.shards = 1}};

  int call(int k) {
    if (k == depth) return 0;
    return *g.do_call(k, [&] { return 1 + call(k + 1) + (g.forget(k) ? 1 : 0); });
  }
};

/// Calls whose keys are strings: of an ended call's key a shard keeps the buffer for the next.
struct string_calls {
  singleflight::group<std::string, int> g{group_options{.shards = 1}};
  const std::string first = std::string(32, 'a'), that_fits = std::string(32, 'b'),
                    longer = std::string(64, 'c');

  void call(const std::string& k) {
    EXPECT_EQ(*g.do_call(k, [] { return 42; }), 42);
  }
};

/// Makes something for an operation without failing.
template <class Made>
void emplace(std::optional<Made>& made) {
  const carrying nothing(nullptr);
  made.emplace();
}

const points used_by_leading = {allocation, hash, key_copy, value_move, loader};
const points used_beside_a_call = {allocation, hash, equality, key_copy, value_move, loader};

const std::vector<operation> of_leaders = {
    {.name = "leader", .uses = used_by_leading, .perform = lead},
    {.name = "leader_that_gives_its_key_away",
     .uses = {allocation, hash, key_move, value_move, loader},
     .perform = [](world& w) { w.take(w.do_call(std::move(w.given_away), w.load()), w.ours); }},
    {.name = "leader_with_a_deadline",
     .uses = used_by_leading,
     .perform = [](world& w) { w.take(w.do_call(w.k0, with_deadline(), w.load()), w.ours); }},
    {.name = "leader_whose_loader_takes_the_key",
     .uses = {allocation, hash, key_move, value_move, loader},
     .perform =
         [](world& w) {
           const auto load = [](const key& given) { return value(world::ours + given.id()); };
           w.take(w.do_call(std::move(w.given_away), key_loader(load)), w.ours);
         }},
    {.name = "leader_whose_loader_returns_a_reference",
     .uses = {allocation, hash, key_copy, value_copy, value_move, loader},
     .perform =
         [](world& w) {
           const value original(w.ours);
           w.take(w.do_call(w.k0, faulty_loader([&]() -> const value& { return original; })),
                  w.ours);
         }},
    {.name = "leader_with_followers",
     .uses = {allocation, hash, key_copy, value_copy, value_move, loader},
     .perform = [](world& w) { w.take(w.do_call(w.k0, w.load_for_others()), w.ours); },
     .publishes = true},
    {.name = "leader_after_a_failure",
     .uses = used_beside_a_call,
     .perform = [](world& w) { w.take(w.do_call(w.k0, with_attempts(2), w.load()), w.ours); },
     .prepare = a_call_that_lets_us_down},
    {.name = "leader_of_a_call_that_supersedes",
     .uses = used_beside_a_call,
     .perform = lead,
     .prepare = a_call_too_old,
     .timed = operation::by_age},
    {.name = "leader_that_waited_for_a_call_that_grew_too_old",
     .uses = used_beside_a_call,
     .perform = lead,
     .prepare = a_call_that_outlasts_us,
     .timed = operation::by_age},
    {.name = "leader_alone_beside_a_full_call",
     .uses = used_beside_a_call,
     .perform = lead,
     .prepare = a_full_call,
     .options = alone_beside_one},
    {.name = "leaders_for_whom_the_map_grows",
     .uses = {allocation},
     .perform =
         [](world&) {
           std::optional<nest> calls;
           emplace(calls);
           EXPECT_EQ(calls->call(0), 2 * nest::depth);
           EXPECT_EQ(calls->g.stats().in_flight, 0U);
         },
     .absorbs_allocations = true},
    {.name = "leaders_with_string_keys",
     .uses = {allocation},
     .perform =
         [](world&) {
           std::optional<string_calls> calls;
           emplace(calls);
           calls->call(calls->first);
           calls->call(calls->that_fits);
           calls->call(calls->longer);
           EXPECT_EQ(calls->g.stats().led, 3U);
         }},
};

// --- Following -----------------------------------------------------------------------------------

void follow(world& w) { w.take(w.do_call(w.k0, w.load()), w.theirs); }
void follow_with_deadline(world& w) {
  w.take(w.do_call(w.k0, with_deadline(), w.load()), w.theirs);
}

/// Follows in a loader for another key, so that the wait is one of the wait graph.
template <void (*Follow)(world&)>
void in_a_loader(world& w) {
  w.take(w.do_call(w.k1, faulty_loader([&w] {
                     Follow(w);
                     return value(w.ours);
                   })),
         w.ours);
}

const points used_by_following = {hash, equality, value_copy};
const points used_by_following_first = {allocation, hash, equality, value_copy};
const points used_in_a_loader = {allocation, hash,       equality, key_copy,
                                 value_copy, value_move, loader};
const points used_by_refusal = {allocation, hash, equality};  // the text of the call_error

const std::vector<operation> of_followers = {
    {.name = "first_follower",
     .uses = used_by_following_first,
     .perform = follow,
     .prepare = a_call},
    {.name = "later_follower",
     .uses = used_by_following,
     .perform = follow,
     .prepare = a_call_with_a_follower},
    {.name = "first_follower_with_a_deadline",
     .uses = used_by_following_first,
     .perform = follow_with_deadline,
     .prepare = a_call},
    {.name = "later_follower_with_a_deadline",
     .uses = used_by_following_first,
     .perform = follow_with_deadline,
     .prepare = a_call_with_a_follower},
    {.name = "first_follower_in_a_loader",
     .uses = used_in_a_loader,
     .perform = in_a_loader<follow>,
     .prepare = a_call},
    {.name = "first_follower_in_a_loader_with_a_deadline",
     .uses = used_in_a_loader,
     .perform = in_a_loader<follow_with_deadline>,
     .prepare = a_call},
    {.name = "later_follower_in_a_loader",
     .uses = used_in_a_loader,
     .perform = in_a_loader<follow>,
     .prepare = a_call_with_a_follower},
    {.name = "follower_that_leaves_at_its_deadline",
     .uses = used_by_refusal,
     .perform =
         [](world& w) {
           (void)w.do_call(w.k0, call_options{.deadline = clock::now() + w.patience}, w.load());
         },
     .prepare = a_call_that_outlasts_us,
     .refused_with = std::errc::timed_out,
     .timed = operation::by_deadline},
};

// --- Being refused -------------------------------------------------------------------------------

const std::vector<operation> of_the_refused = {
    {.name = "caller_that_comes_after_its_deadline",
     .uses = {allocation, hash},
     .perform =
         [](world& w) { (void)w.do_call(w.k0, call_options{.deadline = clock::now()}, w.load()); },
     .prepare = a_call_that_outlasts_us,
     .refused_with = std::errc::timed_out},
    {.name = "caller_past_max_waiters",
     .uses = used_by_refusal,
     .perform = lead,
     .prepare = a_full_call,
     .options = full_with_one,
     .refused_with = std::errc::resource_unavailable_try_again},
    {.name = "loader_that_calls_its_own_key",
     .uses = {allocation, hash, equality, key_copy, loader},
     .perform =
         [](world& w) {
           (void)w.do_call(w.k0, faulty_loader([&w] {
                             lead(w);
                             return value(0);
                           }));
         },
     .refused_with = std::errc::resource_deadlock_would_occur},
    {.name = "loader_on_an_executor_that_calls_what_waits_for_it",
     .uses = {allocation, hash, equality, key_copy, loader, loader_copy, executor},
     .perform =
         [](world& w) {
           (void)w.do_call(w.k0, faulty_loader([&w] {
                             const auto inner =
                                 w.do_call_on(w.k1, w.inline_executor, {}, faulty_loader([&w] {
                                                lead(w);
                                                return value(0);
                                              }));
                             return value(inner->number);
                           }));
         },
     .refused_with = std::errc::resource_deadlock_would_occur},
};

// --- On executors --------------------------------------------------------------------------------

const points used_on_an_executor = {allocation, hash,   key_copy,    value_copy,
                                    value_move, loader, loader_copy, executor};
const points used_on_an_executor_in_a_loader = {
    allocation, hash, equality, key_copy, value_copy, value_move, loader, loader_copy, executor};
const points used_by_do_async = {allocation, hash,        key_copy, value_move,
                                 loader,     loader_copy, executor};

void expect_of(const std::shared_future<value>& future, int expected) {
  EXPECT_EQ(future.get().number, expected);
}

const std::vector<operation> on_executors = {
    {.name = "do_call_on_this_thread",
     .uses = used_on_an_executor,
     .perform =
         [](world& w) {
           w.take(w.do_call_on(w.k0, w.inline_executor, {}, w.load_for_others()), w.ours);
         },
     .publishes = true},
    {.name = "do_call_on_another_thread",
     .uses = used_on_an_executor,
     .perform =
         [](world& w) {
           w.take(w.do_call_on(w.k0, w.thread_executor(), {}, w.load_for_others()), w.ours);
         },
     .publishes = true},
    {.name = "do_call_on_another_thread_with_a_deadline",
     .uses = used_on_an_executor,
     .perform =
         [](world& w) {
           w.take(w.do_call_on(w.k0, w.thread_executor(), with_deadline(), w.load_for_others()),
                  w.ours);
         },
     .publishes = true},
    {.name = "do_call_on_another_thread_in_a_loader",
     .uses = used_on_an_executor_in_a_loader,
     .perform =
         [](world& w) {
           w.take(w.do_call(w.k1, faulty_loader([&w] {
                              w.take(
                                  w.do_call_on(w.k0, w.thread_executor(), {}, w.load_for_others()),
                                  w.ours);
                              return value(w.ours);
                            })),
                  w.ours);
         },
     .publishes = true},
    {.name = "do_call_on_an_executor_that_drops_the_task",
     .uses = {allocation, hash, key_copy, loader_copy, executor},
     .perform = [](world& w) { (void)w.do_call_on(w.k0, w.dropping_executor, {}, w.load()); },
     .refused_with = std::errc::owner_dead},
    {.name = "do_call_on_that_follows",
     .uses = used_by_following_first,
     .perform =
         [](world& w) { w.take(w.do_call_on(w.k0, w.inline_executor, {}, w.load()), w.theirs); },
     .prepare = a_call},
    {.name = "do_call_on_alone_beside_a_full_call",
     .uses = {allocation, hash, equality, key_copy, value_copy, value_move, loader, loader_copy,
              executor},
     .perform =
         [](world& w) { w.take(w.do_call_on(w.k0, w.inline_executor, {}, w.load()), w.ours); },
     .prepare = a_full_call,
     .options = alone_beside_one,
     .publishes = true},
    {.name = "do_async_on_this_thread",
     .uses = used_by_do_async,
     .perform =
         [](world& w) {
           expect_of(w.do_async(w.k0, w.inline_executor, w.load_for_others()), w.ours);
         },
     .publishes = true},
    {.name = "do_async_on_another_thread",
     .uses = used_by_do_async,
     .perform =
         [](world& w) {
           expect_of(w.do_async(w.k0, w.thread_executor(), w.load_for_others()), w.ours);
         },
     .publishes = true},
    {.name = "do_async_that_joins",
     .uses = {allocation, hash, equality},
     .perform =
         [](world& w) { expect_of(w.do_async(w.k0, w.inline_executor, w.load()), w.theirs); },
     .prepare = a_call},
    {.name = "do_async_past_max_waiters",
     .uses = used_by_refusal,
     .perform = [](world& w) { (void)w.do_async(w.k0, w.inline_executor, w.load()); },
     .prepare = a_full_call,
     .options = full_with_one,
     .refused_with = std::errc::resource_unavailable_try_again},
};

// --- Many keys at once -----------------------------------------------------------------------------

/// Loads three keys at once. What any of them is told is thrown.
struct calls_of_many {
  singleflight::group<int, int> g{group_options{.shards = 2}};
  const std::array<int, 3> keys{1, 2, 3};

  static constexpr auto load = [](auto& missing) {
    for (std::size_t i = 0; i < missing.size(); ++i) missing.set_at(i, missing[i] + 1);
  };
  void expect(std::vector<singleflight::outcome<int>> got) const {
    for (std::size_t i = 0; i < keys.size(); ++i) {
      EXPECT_EQ(std::move(got.at(i)).result().value(), keys.at(i) + 1);
    }
    EXPECT_EQ(g.stats().in_flight, 0U);
  }
};

const points used_by_many = {allocation, hash, equality, key_copy, value_move, loader};
const points used_by_many_that_share = {allocation, hash,       equality, key_copy,
                                        value_copy, value_move, loader};
const points used_by_many_on = {allocation, hash,   equality,    key_copy, value_copy,
                                value_move, loader, loader_copy, executor};

/// Takes the values of both keys. The second is loaded by this caller.
void take_both(world& w, std::vector<singleflight::outcome<value>> got, int first) {
  world::take(std::move(got.at(0)).result(), first);
  world::take(std::move(got.at(1)).result(), w.ours);
}

const std::vector<operation> of_many = {
    {.name = "do_many",
     .uses = {allocation},
     .perform =
         [](world&) {
           std::optional<calls_of_many> calls;
           emplace(calls);
           calls->expect(calls->g.do_many(calls->keys, calls->load));
         }},
    {.name = "do_many_on_this_thread",
     .uses = {allocation},
     .perform =
         [](world&) {
           std::optional<calls_of_many> calls;
           emplace(calls);
           const auto here = [](const auto& task) { task(); };
           calls->expect(calls->g.do_many_on(calls->keys, here, {}, calls->load));
         }},
    {.name = "do_many_that_leads",
     .uses = used_by_many,
     .perform = [](world& w) { take_both(w, w.do_many({}, w.load_many()), w.ours); }},
    {.name = "do_many_that_leads_with_followers",
     .uses = used_by_many_that_share,
     .perform = [](world& w) { take_both(w, w.do_many({}, w.load_many_for_others()), w.ours); },
     .publishes = true},
    {.name = "do_many_that_joins_and_leads",
     .uses = used_by_many_that_share,
     .perform = [](world& w) { take_both(w, w.do_many({}, w.load_many()), w.theirs); },
     .prepare = a_call},
    {.name = "do_many_with_a_deadline_that_joins_and_leads",
     .uses = used_by_many_that_share,
     .perform =
         [](world& w) {
           take_both(w, w.do_many({.call = with_deadline()}, w.load_many()), w.theirs);
         },
     .prepare = a_call},
    {.name = "do_many_that_tries_again_what_failed",
     .uses = used_by_many,
     .perform =
         [](world& w) {
           take_both(w, w.do_many({.call = with_attempts(2)}, w.load_many()), w.ours);
         },
     .prepare = a_call_that_lets_us_down},
    {.name = "do_many_past_max_waiters",
     .uses = used_by_many,
     .perform =
         [](world& w) {
           auto got = w.do_many({}, w.load_many());
           w.take(std::move(got.at(1)).result(), w.ours);
           (void)std::move(got.at(0)).result();
         },
     .prepare = a_full_call,
     .options = full_with_one,
     .refused_with = std::errc::resource_unavailable_try_again},
    {.name = "do_many_on_this_thread_with_followers",
     .uses = used_by_many_on,
     .perform =
         [](world& w) {
           take_both(w, w.do_many_on(w.inline_executor, w.load_many_for_others()), w.ours);
         },
     .publishes = true},
    {.name = "do_many_on_another_thread",
     .uses = used_by_many_on,
     .perform =
         [](world& w) {
           take_both(w, w.do_many_on(w.thread_executor(), w.load_many_for_others()), w.ours);
         },
     .publishes = true},
    {.name = "do_many_on_another_thread_that_joins_and_leads",
     .uses = used_by_many_on,
     .perform =
         [](world& w) { take_both(w, w.do_many_on(w.thread_executor(), w.load_many()), w.theirs); },
     .prepare = a_call,
     .publishes = true},
};

// --- Callers that are not threads ------------------------------------------------------------------

/// What such a caller is told, on any thread.
class told {
 public:
  void set(int number) noexcept {
    number_ = number;
    done_ = true;
  }
  void fail(std::exception_ptr why) noexcept {
    why_ = std::move(why);
    done_ = true;
  }
  [[nodiscard]] auto callback() noexcept {
    return [this](const singleflight::outcome<value>& o) noexcept {
      if (o.has_value()) {
        set(o.value().number);
      } else {
        fail(o.error());
      }
    };
  }

  /// Throws: what it was told.
  void expect(int expected) {
    support::await([this] { return done_.load(); }, "an asynchronous caller to be told");
    if (why_ != nullptr) std::rethrow_exception(why_);
    EXPECT_EQ(number_, expected);
  }

 private:
  int number_ = 0;
  std::exception_ptr why_;
  std::atomic<bool> done_{false};
};

using leader = singleflight::leader<value>;

void begins_no_call(const leader&) { ADD_FAILURE() << "a follower began a call"; }

template <class Load>
void call_async(world& w, const Load& load) {
  told t;
  w.async_call(
      w.k0, {}, [&load](leader mine) { std::move(mine).set_from(load); }, t.callback());
  t.expect(w.ours);
}

support::detached call_in_a_coroutine(world& w, told& t) {
  const auto load = w.load();  // whose copy would fail before the caller has entered
  try {
    const auto r = co_await w.co_call(w.k0, [&load] { return load(); });
    t.set(r->number);
  } catch (...) {
    t.fail(std::current_exception());
  }
}

support::detached many_in_a_coroutine(world& w, told& t) {
  const auto load = w.load_many();  // likewise
  try {
    auto rows = co_await w.co_call_many([&load](auto& missing) { load(missing); });
    (void)std::move(rows.at(0)).result();
    (void)std::move(rows.at(1)).result();
    t.set(world::ours);
  } catch (...) {
    t.fail(std::current_exception());
  }
}

support::detached wait_in_a_coroutine(world& w, told& t) {
  try {
    co_await w.g.drained();
    t.set(0);
  } catch (...) {
    t.fail(std::current_exception());
  }
}

// A thread must not end where one of these moves a value or resumes a caller, which is noexcept.
const std::vector<operation> asynchronous = {
    {.name = "async_call_that_leads",
     .uses = {allocation, hash, key_copy, key_move, value_move, loader},
     .perform = [](world& w) { call_async(w, w.load()); },
     .cannot_unwind = true},
    {.name = "async_call_that_leads_with_followers",
     .uses = {allocation, hash, key_copy, key_move, value_move, loader},
     .perform = [](world& w) { call_async(w, w.load_for_others()); },
     .publishes = true,
     .cannot_unwind = true},
    {.name = "async_call_that_follows",
     .uses = {allocation, hash, equality, key_copy, key_move},
     .perform =
         [](world& w) {
           told t;
           w.async_call(w.k0, {}, begins_no_call, t.callback());
           t.expect(w.theirs);
         },
     .prepare = a_call},
    {.name = "async_call_past_max_waiters",
     .uses = {allocation, hash, equality, key_copy, key_move},
     .perform =
         [](world& w) {
           told t;
           w.async_call(w.k0, {}, begins_no_call, t.callback());
           t.expect(0);
         },
     .prepare = a_full_call,
     .options = full_with_one,
     .refused_with = std::errc::resource_unavailable_try_again},
    {.name = "lead_or_follow_that_leads",
     .uses = {allocation, hash, equality, key_copy, key_move, value_move, loader},
     .perform =
         [](world& w) {
           auto got = w.lead_or_follow(w.k0);
           told t;
           w.async_call(w.k0, {}, begins_no_call, t.callback());
           std::get<leader>(std::move(got)).set_from(w.load());
           t.expect(w.ours);
         },
     .publishes = true,
     .cannot_unwind = true},
    {.name = "lead_or_follow_that_follows",
     .uses = used_by_following_first,
     .perform = [](world& w) { w.take(std::get<0>(w.lead_or_follow(w.k0)), w.theirs); },
     .prepare = a_call},
    {.name = "co_call_that_leads",
     .uses = {allocation, hash, key_copy, key_move, value_move, loader},
     .perform =
         [](world& w) {
           told t;
           call_in_a_coroutine(w, t);
           t.expect(w.ours);
         },
     .cannot_unwind = true},
    {.name = "co_call_that_follows",
     .uses = {allocation, hash, equality, key_copy, key_move},
     .perform =
         [](world& w) {
           told t;
           call_in_a_coroutine(w, t);
           t.expect(w.theirs);
         },
     .prepare = a_call,
     .cannot_unwind = true},
    {.name = "co_call_many_that_leads",
     .uses = {allocation, hash, equality, key_copy, key_move, value_move, loader},
     .perform =
         [](world& w) {
           told t;
           many_in_a_coroutine(w, t);
           t.expect(w.ours);
         },
     .cannot_unwind = true},
    {.name = "co_call_many_that_joins_and_leads",
     .uses = {allocation, hash, equality, key_copy, key_move, value_move, loader},
     .perform =
         [](world& w) {
           told t;
           many_in_a_coroutine(w, t);
           t.expect(w.ours);
         },
     .prepare = a_call,
     .cannot_unwind = true},
    {.name = "drained",
     .uses = {allocation},
     .perform =
         [](world& w) {
           told t;
           wait_in_a_coroutine(w, t);
           t.expect(0);
         },
     .cannot_unwind = true},
    {.name = "wait_drained", .uses = {allocation}, .perform = [](world& w) { w.g.wait_drained(); }},
};

// --- Beside the calls ----------------------------------------------------------------------------

const std::vector<operation> beside_calls = {
    {.name = "forget",
     .uses = {hash, equality},
     .perform =
         [](world& w) {
           EXPECT_FALSE(w.g.forget(w.k1));
           EXPECT_TRUE(w.g.forget(w.k0));
         },
     .prepare = a_full_call},
    {.name = "forget_unshared",
     .uses = {hash, equality},
     .perform = [](world& w) { EXPECT_FALSE(w.g.forget_unshared(w.k0)); },
     .prepare = a_full_call},
    {.name = "stats",
     .uses = {},
     .perform = [](world& w) { EXPECT_EQ(w.g.stats().waiting, 1U); },
     .prepare = a_full_call},
    {.name = "in_flight",
     .uses = {allocation, key_copy},
     .perform =
         [](world& w) {
           const auto calls = w.g.in_flight();
           EXPECT_EQ(calls.at(0).waiters, 1U);
         },
     .prepare = a_full_call},
    {.name = "constructor",
     .uses = {allocation},
     .perform = [](world&) { const world::group made({.shards = 4}); }},
};

// --- With stop tokens ----------------------------------------------------------------------------

#if defined(__cpp_lib_jthread)

call_options with_stop(world& w) {
  call_options options;
  options.stop = w.stop.get_token();
  return options;
}
void follow_with_stop(world& w) { w.take(w.do_call(w.k0, with_stop(w), w.load()), w.theirs); }

const std::vector<operation> with_stop_tokens = {
    {.name = "leader_that_can_be_told_to_stop",
     .uses = used_by_leading,
     .perform =
         [](world& w) {
           const auto load = [](const std::stop_token&) { return value(world::ours); };
           w.take(w.do_call(w.k0, with_stop(w), stoppable_loader(load)), w.ours);
         }},
    {.name = "do_call_on_with_a_loader_that_can_be_told_to_stop",
     .uses = used_on_an_executor,
     .perform =
         [](world& w) {
           const auto load = [](const std::stop_token&) { return value(world::ours); };
           w.take(w.do_call_on(w.k0, w.thread_executor(), with_stop(w), stoppable_loader(load)),
                  w.ours);
         },
     .publishes = true},
    {.name = "first_follower_that_can_be_told_to_stop",
     .uses = used_by_following_first,
     .perform = follow_with_stop,
     .prepare = a_call},
    {.name = "later_follower_that_can_be_told_to_stop",
     .uses = used_by_following_first,
     .perform = follow_with_stop,
     .prepare = a_call_with_a_follower},
    {.name = "follower_that_leaves_at_its_stop_request",
     .uses = used_by_refusal,
     .perform = [](world& w) { (void)w.do_call(w.k0, with_stop(w), w.load()); },
     .prepare =
         [](world& w) {
           w.another_leads_until([&w] {
             if (w.we_have_joined()) w.stop.request_stop();
             return false;
           });
         },
     .refused_with = std::errc::operation_canceled},
    {.name = "caller_that_comes_after_its_stop_request",
     .uses = {allocation, hash},
     .perform =
         [](world& w) {
           w.stop.request_stop();
           (void)w.do_call(w.k0, with_stop(w), w.load());
         },
     .prepare = a_call_that_outlasts_us,
     .refused_with = std::errc::operation_canceled},
    {.name = "async_call_that_leaves_at_its_stop_request",
     .uses = {allocation, hash, equality, key_copy, key_move},
     .perform =
         [](world& w) {
           told t;
           w.async_call(w.k0, {.stop = w.stop.get_token()}, begins_no_call, t.callback());
           w.stop.request_stop();
           t.expect(0);
         },
     .prepare = a_call_that_outlasts_us,
     .refused_with = std::errc::operation_canceled},
    // The callback of a loader's token runs on the thread that leaves, and may call the group. What
    // fails in it must not leave it: that ends the program, by the rules of std::stop_callback.
    {.name = "stop_callback_that_calls_the_group",
     .uses = used_by_leading,
     .perform =
         [](world& w) {
           std::exception_ptr thrown;
           const auto call = [&]() noexcept {
             try {
               lead(w);
             } catch (const std::exception&) {
               thrown = std::current_exception();
             }
           };
           const std::stop_callback on_stop(w.loaders_token, call);
           w.stop.request_stop();
           if (thrown != nullptr) std::rethrow_exception(thrown);
         },
     .prepare = [](world& w) { w.another_leads_that_can_be_told_to_stop(); },
     .cannot_unwind = true},
};

#else

const std::vector<operation> with_stop_tokens;

#endif

}  // namespace

std::vector<operation> operations() {
  std::vector<operation> all;
  for (const auto* some : {&of_leaders, &of_followers, &of_the_refused, &on_executors, &of_many,
                           &asynchronous, &beside_calls, &with_stop_tokens}) {
    all.insert(all.end(), some->begin(), some->end());
  }
  for (const operation& o : async_operations()) all.push_back(o);
  return all;
}

}  // namespace faults
