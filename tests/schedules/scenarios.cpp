// SPDX-License-Identifier: MIT
#include "scenarios.hpp"

#include <array>
#include <vector>

#include "observed.hpp"
#include "rows.hpp"

namespace schedules {
namespace {

using namespace std::chrono_literals;
using singleflight::call_options;
using singleflight::group_options;

constexpr std::nullopt_t all = std::nullopt;  // every schedule

constexpr plan one_shard{};
const plan asynchronous{.asynchronous = true};
const plan two_shards{.options = {.shards = 2}};
const plan one_bucket{.options = {.shards = 1}, .hash = {.collide = true}};
const plan ageing{.options = {.shards = 1, .max_age = 10ms}};
const plan one_waiter{.options = {.shards = 1, .max_waiters = 1}};
const plan one_waiter_else_alone{
    .options = {.shards = 1, .max_waiters = 1, .when_full = group_options::run_alone}};

[[nodiscard]] how until(std::chrono::milliseconds time) {
  return {.options = call_options{.deadline = world::after(time)}};
}

[[nodiscard]] how stoppable(const std::stop_source& source) {
  return {.options = call_options{.stop = source.get_token()}, .loader_takes_token = true};
}

/// A caller that calls for these keys one after the other.
void caller_of(world& w, std::vector<key> keys) {
  w.caller([&w, keys = std::move(keys)] {
    for (const key k : keys) w.call(k);
  });
}

void two_by_two(world& w) {
  for (int i = 0; i < 2; ++i) caller_of(w, {0, 0});
}

void pair(world& w) {
  for (int i = 0; i < 2; ++i) caller_of(w, {0});
}

void three_callers(world& w) {
  for (int i = 0; i < 3; ++i) caller_of(w, {0});
}

void three_callers_and_forget(world& w) {
  three_callers(w);
  w.caller([&w] { w.forget(0); });
}

void forget_unshared(world& w) {
  for (int i = 0; i < 2; ++i) caller_of(w, {0});
  w.caller([&w] {
    w.forget_unshared(0);
    w.call(0);
  });
}

void the_loader_throws(world& w) {
  w.caller([&w] { w.call(0, {.loader_throws = true}); });
  for (int i = 0; i < 2; ++i) caller_of(w, {0});
}

void every_loader_throws_twice_tried(world& w) {
  for (int i = 0; i < 3; ++i) {
    w.caller([&w] { w.call(0, {.options = call_options{.attempts = 2}, .loader_throws = true}); });
  }
}

void two_keys_of_one_bucket(world& w) {
  caller_of(w, {0, 1});
  caller_of(w, {1, 0});
  caller_of(w, {0});
}

/// Two callers that can leave; a third thread chooses which one is stopped, and when.
void two_can_leave(world& w, bool stop_first, bool stop_second) {
  auto* const first = &w.stop_source();
  auto* const second = &w.stop_source();
  w.caller([&w, first] { w.call(0, stoppable(*first)); });
  w.caller([&w, second] { w.call(0, stoppable(*second)); });
  w.caller([&w, first, second, stop_first, stop_second] {
    if (stop_first) w.stop(*first);
    if (stop_second) w.stop(*second);
  });
}

void one_of_two_is_stopped(world& w) { two_can_leave(w, true, false); }
void both_are_stopped(world& w) { two_can_leave(w, true, true); }

void stopped_while_another_comes(world& w) {
  auto* const source = &w.stop_source();
  w.caller([&w, source] { w.call(0, stoppable(*source)); });
  w.caller([&w, source] { w.stop(*source); });
  caller_of(w, {0});
}

void deadline_against_the_end(world& w) {
  w.caller([&w] { w.call(0, until(10ms)); });
  w.caller([&w] { w.call(0, until(10ms)); });
  w.caller([&w] { w.advance(10ms); });
}

void deadline_and_stop(world& w) {
  auto* const source = &w.stop_source();
  caller_of(w, {0});
  w.caller([&w, source] {
    how h = stoppable(*source);
    h.options->deadline = world::after(10ms);
    w.call(0, h);
  });
  w.caller([&w] { w.advance(10ms); });
  w.caller([&w, source] { w.stop(*source); });
}

void executor_and_destructor(world& w) {
  w.caller([&w] { w.call_on_executor(0); });
  caller_of(w, {0});
  w.worker();
  w.caller([&w] { w.destroy_after({0, 1}); });
}

void async_and_destructor(world& w) {
  w.caller([&w] { w.async(0); });
  caller_of(w, {0});
  w.worker();
  w.caller([&w] { w.destroy_after({0, 1}); });
}

void executor_left_then_destroyed(world& w) {
  auto* const source = &w.stop_source();
  w.caller([&w, source] { w.call_on_executor(0, stoppable(*source)); });
  w.caller([&w, source] { w.stop(*source); });
  w.worker();
  w.caller([&w] { w.destroy_after({0, 1}); });
}

void executor_shared(world& w) {
  w.caller([&w] { w.call_on_executor(0); });
  caller_of(w, {0});
  w.worker();
}

void async_then_call(world& w) {
  w.caller([&w] {
    w.async(0);
    w.call(0);
  });
  w.worker();
}

void executor_drops(world& w) {
  w.caller([&w] { w.call_on_executor(0); });
  w.caller([&w] { w.async(0); });
  w.dropping_worker();
}

void crossed(world& w, int threads) {
  for (key own = 0; own < threads; ++own) {
    w.caller([&w, own, threads] {
      w.call(own, {.inside = [&w, own, threads] { w.call((own + 1) % threads); }});
    });
  }
}

void circle_of_two(world& w) { crossed(w, 2); }
void circle_of_three(world& w) { crossed(w, 3); }

/// Two callers that hold one key each and ask for the other's: one has a deadline, one a stop token.
void crossed_limits(world& w) {
  auto* const source = &w.stop_source();
  w.caller([&w] { w.call(0, {.inside = [&w] { w.call(1, until(10ms)); }}); });
  w.caller(
      [&w, source] { w.call(1, {.inside = [&w, source] { w.call(0, stoppable(*source)); }}); });
}

/// The deadline has passed: a caller that has left is in no circle.
void a_circle_is_left(world& w) {
  crossed_limits(w);
  w.caller([&w] { w.advance(10ms); });
}

/// A caller that follows key 0 in the loader of key 2, until it is stopped.
void follows_inside_a_loader(world& w, const std::stop_source& source) {
  w.caller([&w, &source] {
    w.await_loading(0);
    w.call(2, {.inside = [&w, &source] { w.call(0, stoppable(source)); }});
  });
}

/// A caller that leads key 2 follows key 0 until it is stopped, as the last, and then runs the stop
/// callback of that call's loader, which asks for key 2 meanwhile.
void a_stop_callback(world& w) {
  auto* const source = &w.stop_source();
  w.caller([&w, source] {
    how h = stoppable(*source);
    h.inside = [&w, source] {
      w.await_joined(0);
      w.stop(*source);
      w.call(2);
    };
    h.when_stopped = [&w] { w.call(1); };
    w.call(0, h);
  });
  follows_inside_a_loader(w, *source);
}

/// The same, where the callback runs the task of key 1, for which the loader of key 0 waits. A third
/// caller, which has stopped both, asks for key 1 inside a loader while it runs. They return in turn, so
/// that the search is of that alone.
void a_stop_callback_that_runs_a_task(world& w) {
  auto* const source = &w.stop_source();
  w.caller([&w, source] {
    w.async(1);
    how h = stoppable(*source);
    h.inside = [&w] {
      w.call(1);
      w.await_back(1);
    };
    h.when_stopped = [&w] { w.run_a_task(); };
    w.call(0, h);
  });
  w.caller([&w, source] {
    w.await_joined(1);
    w.call(2, {.inside = [&w, source] {
             w.call(0, stoppable(*source));
             w.await_back(2);
           }});
  });
  w.caller([&w, source] {
    w.await_joined(0);
    w.stop(*source);
    w.await_loading(1);
    w.call(3, {.inside = [&w] { w.call(1); }});
  });
}

/// A caller that waited for the first key is still in the wait graph when the leader of that key
/// goes on to the key that this caller leads. That is no circle.
void a_wait_that_is_over(world& w) {
  w.caller([&w] { w.call(1, {.inside = [&w] { w.call(0); }}); });
  w.caller([&w] {
    w.call(2, {.inside = [&w] {
             w.call(0);
             w.call(1);
           }});
  });
}

void an_old_call_is_superseded(world& w) {
  for (int i = 0; i < 2; ++i) caller_of(w, {0});
  w.caller([&w] { w.advance(10ms); });
}

void an_old_call_is_superseded_once(world& w) {
  for (int i = 0; i < 3; ++i) caller_of(w, {0});
  w.caller([&w] { w.advance(10ms); });
}

void an_old_call_asks_for_itself(world& w) {
  w.caller([&w] {
    w.call(0, {.inside = [&w] {
             w.advance(10ms);
             w.call(0);
           }});
  });
  caller_of(w, {0});
}

/// The call that grows too old waits for the caller that asks for its key.
void an_old_call_in_a_circle(world& w) {
  w.caller([&w] {
    w.call(0, {.inside = [&w] {
             w.advance(10ms);
             w.call(1);
           }});
  });
  w.caller([&w] { w.call(1, {.inside = [&w] { w.call(0); }}); });
}

void a_full_call(world& w) {
  for (int i = 0; i < 3; ++i) caller_of(w, {0});
}

void three_by_two_and_forget(world& w) {
  caller_of(w, {0, 1});
  caller_of(w, {1, 0});
  caller_of(w, {0, 0});
  w.caller([&w] { w.forget(0); });
}

void four_by_two_forget_and_stop(world& w) {
  auto* const source = &w.stop_source();
  w.caller([&w, source] {
    w.call(0, stoppable(*source));
    w.call(1);
  });
  w.caller([&w, source] {
    w.call(1);
    w.call(0, stoppable(*source));
  });
  caller_of(w, {0, 0});
  caller_of(w, {1, 0});
  w.caller([&w] { w.forget(0); });
  w.caller([&w, source] { w.stop(*source); });
}

/// Asynchronous callers: the end of a call, the stop of a caller, the destruction of a frame, and a
/// newcomer, each on a thread of its own.
how async_stoppable(const std::stop_source& source) { return stoppable(source); }

void async_end(world& w) {
  w.caller([&w] { w.callback(0); });
  w.caller([&w] { w.coroutine(0, true); });
  w.caller([&w] { w.end(0); });
}

void async_end_and_stop(world& w) {
  auto* const source = &w.stop_source();
  w.caller([&w, source] { w.callback(0, async_stoppable(*source)); });
  w.caller([&w] { w.end(0); });
  w.caller([&w, source] { w.stop(*source); });
}

void async_follower_stopped(world& w) {
  auto* const source = &w.stop_source();
  w.caller([&w, source] {
    w.callback(0);
    w.coroutine(0, true, async_stoppable(*source));
  });
  w.caller([&w] { w.end(0); });
  w.caller([&w, source] { w.stop(*source); });
}

void async_two_stopped(world& w) {
  auto* const first = &w.stop_source();
  auto* const second = &w.stop_source();
  w.caller([&w, first, second] {
    w.callback(0);
    w.callback_at_once(0, async_stoppable(*first));
    w.callback_at_once(0, async_stoppable(*second));
    w.stop(*first);
  });
  w.caller([&w, second] {
    w.await_joined(0);
    w.stop(*second);
  });
  w.caller([&w] {
    w.await_back(0);
    w.end(0);
  });
}

/// Adds a thread that acts when a caller has joined the call of the first thread.
template <class Act>
void when_joined(world& w, const Act& act) {
  w.caller([&w, act] {
    w.await_joined(0);
    act();
  });
}

/// The frame is destroyed by the thread of its executor, before or after its task was posted or run.
void async_end_and_destruction(world& w) {
  w.caller([&w] { w.callback(0); });
  w.caller([&w] {
    const int frame = w.coroutine(0, false);
    w.run_resumptions();
    w.destroy(frame);
    w.run_resumptions();
  });
  w.caller([&w] { w.end(0); });
}

/// The same for a coroutine that can be stopped, from when it waits.
void async_end_stop_and_destruction(world& w) {
  auto* const source = &w.stop_source();
  w.caller([&w, source] {
    w.callback(0);
    const int frame = w.coroutine(0, false, async_stoppable(*source));
    w.run_resumptions();
    w.destroy(frame);
    w.run_resumptions();
  });
  when_joined(w, [&w] { w.end(0); });
  when_joined(w, [&w, source] { w.stop(*source); });
}

/// From when the call has begun.
void async_newcomer(world& w) {
  auto* const source = &w.stop_source();
  w.caller([&w, source] { w.callback(0, async_stoppable(*source)); });
  const auto when_begun = [&w](auto act) {
    w.caller([&w, act] {
      w.await_loading(0);
      act();
    });
  };
  when_begun([&w] { w.end(0); });
  when_begun([&w, source] { w.stop(*source); });
  when_begun([&w] { w.callback_at_once(0); });
}

void async_everything(world& w) {
  async_end_stop_and_destruction(w);
  when_joined(w, [&w] { w.callback_at_once(0); });
}

void async_beside_threads(world& w) {
  auto* const source = &w.stop_source();
  w.caller([&w] { w.call(0); });
  w.caller([&w, source] { w.coroutine(0, true, async_stoppable(*source)); });
  w.caller([&w, source] { w.stop(*source); });
}

// Of two shards, keys 0 to 3 are in the first, 4 and 5 in the second.

/// A caller that asks for these keys at once.
void caller_of_many(world& w, std::vector<key> keys, const how& h = {}) {
  w.caller([&w, keys = std::move(keys), h] { w.call_many(keys, h); });
}

void two_bulks_and_a_caller(world& w) {
  caller_of_many(w, {0, 4});
  caller_of_many(w, {4, 0});
  caller_of(w, {0, 0});
}

void two_bulks_one_throws(world& w) {
  caller_of_many(w, {0, 4}, {.loader_throws = true});
  caller_of_many(w, {4, 0});
  caller_of(w, {4});
}

void two_bulks_and_forget(world& w) {
  caller_of_many(w, {0, 4});
  caller_of_many(w, {4, 0});
  w.caller([&w] { w.forget(4); });
}

void three_bulks_in_a_ring(world& w) {
  caller_of_many(w, {0, 4});
  caller_of_many(w, {4, 5});
  caller_of_many(w, {5, 0});
}

/// A bulk that leaves the calls that it has joined.
void a_bulk_that_leaves(world& w) {
  caller_of(w, {0});
  caller_of(w, {4});
  caller_of_many(w, {0, 4}, until(10ms));
  w.caller([&w] { w.advance(10ms); });
}

void reader(world& w, int reads = 1) {
  (void)w.table();
  w.caller([&w, reads] {
    for (int i = 0; i < reads; ++i) w.table().read({});
  });
}
void readers(world& w) {
  for (int i = 0; i < 2; ++i) reader(w, 2);
}
void reader_and_writer(world& w) {
  reader(w);
  w.caller([&w] { w.table().write(); });
  w.caller([&w] { w.table().evict(); });
}
void readers_and_writer(world& w) {
  reader_and_writer(w);
  reader(w);
}
/// A call that everybody has left is listed no more, and fills the cache all the same.
void reader_that_leaves_and_writer(world& w) {
  (void)w.table();
  auto* const source = &w.stop_source();
  w.caller([&w, source] { w.table().read({.stop = source->get_token()}); });
  w.caller([&w, source] { w.stop(*source); });
  w.caller([&w] { w.table().write(); });
}

/// The observer is told of a call whose followers leave while it ends.
void observed(world& w) {
  (void)w.observed();
  auto* const source = &w.stop_source();
  w.caller([&w] { w.observed().call({}); });
  w.caller([&w] { w.observed().call({.deadline = world::after(10ms)}); });
  w.caller([&w, source] { w.observed().call({.stop = source->get_token()}); });
  w.caller([&w, source] {
    w.advance(10ms);
    w.stop(*source);
  });
}
void observed_bulk(world& w) {
  (void)w.observed();
  w.caller([&w] { w.observed().call({}); });
  w.caller([&w] { w.observed().call_many({.deadline = world::after(10ms)}); });
  w.caller([&w] { w.advance(10ms); });
}

const std::array table{
    scenario{"pair", "2 threads, 1 call each, 1 key", all, all, one_shard, pair},
    scenario{"two_by_two", "2 threads, 2 calls each, 1 key", all, all, one_shard, two_by_two},
    scenario{"three_callers", "3 threads, 1 call each, 1 key", all, all, one_shard, three_callers},
    scenario{"forget", "3 threads, 1 call each, and forget", all, all, one_shard,
             three_callers_and_forget},
    scenario{"forget_unshared", "2 calls, forget_unshared then a call", all, all, one_shard,
             forget_unshared},
    scenario{"throw", "3 callers, one of whose loaders throws", all, all, one_shard,
             the_loader_throws},
    scenario{"attempts", "3 callers that try twice, all loaders throw", all, all, one_shard,
             every_loader_throws_twice_tried},
    scenario{"bucket", "3 threads, 2 keys in one bucket", all, all, one_bucket,
             two_keys_of_one_bucket},
    scenario{"stop_one", "2 callers that can leave, one is stopped", all, all, one_shard,
             one_of_two_is_stopped},
    scenario{"stop_both", "2 callers that can leave, both are stopped", all, all, one_shard,
             both_are_stopped},
    scenario{"stop_newcomer", "a caller is stopped while another comes", all, all, one_shard,
             stopped_while_another_comes},
    scenario{"deadline", "2 callers with a deadline against the end", all, all, one_shard,
             deadline_against_the_end},
    scenario{"deadline_and_stop", "a follower with both, time and stop", all, all, one_shard,
             deadline_and_stop},
    scenario{"executor", "executor caller, follower", all, all, one_shard, executor_shared},
    scenario{"executor_destroyed", "the same, then the group's destructor", all, all, one_shard,
             executor_and_destructor},
    scenario{"async_then_call", "do_async, then a call by the same thread", all, all, one_shard,
             async_then_call},
    scenario{"async_destroyed", "do_async, follower, then the group's destructor", 4, 2, one_shard,
             async_and_destructor},
    scenario{"executor_left", "executor caller stopped, then the destructor", 3, 2, one_shard,
             executor_left_then_destroyed},
    scenario{"executor_drops", "executor drops a task for two callers", 4, 3, one_shard,
             executor_drops},
    scenario{"async_end", "callback, inline coroutine, the end", all, all, asynchronous, async_end},
    scenario{"async_stop", "callback, its stop against the end", all, all, asynchronous,
             async_end_and_stop},
    scenario{"async_follower_stop", "inline coroutine, its stop against the end", all, all,
             asynchronous, async_follower_stopped},
    scenario{"async_two_stops", "2 inline followers, each stopped by its thread", 3, 2,
             asynchronous, async_two_stopped},
    scenario{"async_destroyed_frame", "coroutine on an executor: end, destruction", all, all,
             asynchronous, async_end_and_destruction},
    scenario{"async_destroyed_stop", "the same, and its stop", all, all, asynchronous,
             async_end_stop_and_destruction},
    scenario{"async_newcomer", "callback: its stop, the end, a newcomer", 3, 2, asynchronous,
             async_newcomer},
    scenario{"async_everything", "end, stop, destruction and a newcomer", 3, 2, asynchronous,
             async_everything},
    scenario{"async_threads", "a thread leads, a coroutine follows and is stopped", all, all,
             asynchronous, async_beside_threads},
    scenario{"circle", "2 keys crossed", all, all, two_shards, circle_of_two},
    scenario{"circle_of_three", "3 keys in a circle", all, all, two_shards, circle_of_three},
    scenario{"circle_over", "a key for which its leader has been waited for", all, all, two_shards,
             a_wait_that_is_over},
    scenario{"circle_deadline", "2 keys crossed, with a deadline and a stop token", all, all,
             two_shards, crossed_limits},
    scenario{"circle_left", "the same, and the deadline passes", all, all, two_shards,
             a_circle_is_left},
    scenario{"stop_callback", "a stop callback calls the group, inside a loader", all, all,
             two_shards, a_stop_callback},
    scenario{"stop_callback_task", "a stop callback runs a queued task that others wait for", all,
             all, two_shards, a_stop_callback_that_runs_a_task},
    scenario{"max_age", "2 callers, the call grows too old", all, all, ageing,
             an_old_call_is_superseded},
    scenario{"max_age_once", "3 callers, the call grows too old", all, all, ageing,
             an_old_call_is_superseded_once},
    scenario{"max_age_inside", "an old call's loader asks for its own key", all, all, ageing,
             an_old_call_asks_for_itself},
    scenario{"max_age_circle", "an old call waits for who asks for its key", all, all, ageing,
             an_old_call_in_a_circle},
    scenario{"full", "3 callers, room for one follower", all, all, one_waiter, a_full_call},
    scenario{"full_alone", "3 callers, room for one, else alone", all, all, one_waiter_else_alone,
             a_full_call},
    scenario{"bulk", "2 bulks of the same 2 keys, and 2 calls", all, all, two_shards,
             two_bulks_and_a_caller},
    scenario{"bulk_one_shard", "the same in one shard", all, all, one_shard,
             two_bulks_and_a_caller},
    scenario{"bulk_throws", "2 bulks, a call, and a loader throws", all, all, two_shards,
             two_bulks_one_throws},
    scenario{"bulk_ring", "3 bulks, each with a key of the next", all, all, two_shards,
             three_bulks_in_a_ring},
    scenario{"bulk_forget", "2 bulks, and forget", all, all, two_shards, two_bulks_and_forget},
    scenario{"bulk_leaves", "a bulk joins 2 calls, its deadline passes", all, all, two_shards,
             a_bulk_that_leaves},
    scenario{"fill", "2 readers, 2 reads each, through a cache", all, all, one_shard, readers},
    scenario{"fill_write", "reader, writer and eviction", all, all, one_shard, reader_and_writer},
    scenario{"fill_write_twice", "2 readers, writer and eviction", 3, 2, one_shard,
             readers_and_writer},
    scenario{"fill_left", "a reader that is stopped, and a writer", 5, 3, one_shard,
             reader_that_leaves_and_writer},
    scenario{"observed", "an observer: followers leave while their call ends", 3, 2, one_shard,
             observed},
    scenario{"observed_bulk", "an observer: a caller of 2 keys, of which it joins one", all, all,
             one_shard, observed_bulk},
    scenario{"three_by_two", "3 threads, 2 calls each, 2 keys, and forget", 3, 2, two_shards,
             three_by_two_and_forget},
    scenario{"four_by_two", "4 threads, 2 calls each, 2 keys, forget, stop", 2, 1, two_shards,
             four_by_two_forget_and_stop},
};

}  // namespace

std::span<const scenario> scenarios() { return table; }

}  // namespace schedules
