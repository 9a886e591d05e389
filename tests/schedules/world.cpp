// SPDX-License-Identifier: MIT
#include "world.hpp"

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <initializer_list>
#include <thread>
#include <type_traits>
#include <utility>

#include "rows.hpp"

namespace schedules {
namespace {

shards_type& shards_of(group_type& group);

/// Makes a private member accessible, by the one place where its name is not checked: an explicit
/// instantiation.
template <auto Shards>
struct reveal {
  friend shards_type& shards_of(group_type& group) { return group.*Shards; }
};
template struct reveal<&group_type::shards_>;

using trampoline = singleflight::detail::trampoline;
trampoline*& trampoline_of_this_thread();
template <auto Current>
struct reveal_trampoline {
  friend trampoline*& trampoline_of_this_thread() { return Current(); }
};
template struct reveal_trampoline<&trampoline::current>;

constexpr std::array<const char*, 2> shard_names{"shard 0", "shard 1"};

}  // namespace

void rule_broken(const char* rule) {
  if (scheduler* const s = scheduler::active()) s->fail(rule);
  std::puts(rule);
  std::abort();
}

world::world(scheduler& threads, const plan& p)
    : threads_(threads), plan_(p), group_(std::make_unique<group_type>(p.options, p.hash)) {
  shards_type& shards = shards_of(*group_);
  shards_ = &shards;
  for (std::size_t i = 0; i < shards_->all().size(); ++i) {
    threads_.know(&shards_->all()[i].mutex, shard_names.at(i));
  }
  // Their mutexes come first in them; if they did not, they would only be unknown.
  threads_.know(&singleflight::detail::the_wait_graph(), "the wait graph");
  threads_.know(&shards.owned(), "the owned calls");
  if (p.asynchronous) threads_.know(nullptr, "waiters");
  static_assert(sizeof(trampoline*) == sizeof(std::size_t));
  scheduler::keep(singleflight::detail::calls_led_by_this_thread,
                  reinterpret_cast<std::size_t&>(trampoline_of_this_thread()));
}

world::~world() = default;

// --- Set-up --------------------------------------------------------------------------------------

std::stop_source& world::stop_source() { return stop_sources_.emplace_back(); }

void world::caller(std::function<void()> body) {
  const int number = thread_count_++;
  callers_ |= only(number);
  threads_.add([this, number, body = std::move(body)] {
    body();
    back_ |= only(number);
  });
}

void world::worker() {
  workers_ |= only(thread_count_++);
  threads_.add([this] { work(false); });
}

void world::dropping_worker() {
  workers_ |= only(thread_count_++);
  drops_ = true;
  threads_.add([this] { work(true); });
}

void world::work(bool drop_first) {
  const std::function<bool()> task_or_end = [this] {
    return !tasks_.empty() || (callers_ & ~back_) == 0;
  };
  for (;; drop_first = false) {
    threads_.await(task_or_end);
    threads_.touch({.writes = objects::others});
    if (tasks_.empty()) return;
    const std::function<void()> task = std::move(tasks_.front());
    tasks_.erase(tasks_.begin());
    if (!drop_first) task();
  }
}

// --- Operations ----------------------------------------------------------------------------------

world::entry& world::enter(action what, key k, const how& h) {
  const int thread = threads_.current();
  const auto t = static_cast<std::size_t>(thread);
  if (made_[t] == most_entries) threads_.fail("a thread of the scenario does too much");
  entry& e = entries_[t * most_entries + made_[t]];
  e.number = static_cast<int>(t * most_entries + made_[t]++);
  e.what = what;
  e.on = k;
  e.thread = thread;
  e.manner = h;
  e.outer = std::exchange(here_[t], &e);
  e.entered = ++sequence_;
  threads_.touch({.reads = objects::history_of(k)});
  say(e, "enters");
  return e;
}

void world::leave(entry& e) {
  for (entry* c : calls_) {
    if (c->call.abandoned_by != e.thread || c->call.reported) continue;
    c->call.reported = true;
    expect(!c->call.token.stop_possible() || c->call.token.stop_requested(),
           "whoever left a call last has not told its loader to stop");
  }
  for (const entry* k = &e; k != nullptr; k = k->next_key) say(*k, k->outcome.c_str());
  here_[static_cast<std::size_t>(e.thread)] = e.outer;
  threads_.point("after the return");
}

void world::say(const entry& e, const char* what) const {
  if (!threads_.tracing()) return;
  constexpr std::array<const char*, 6> names{"", "call", "forget", "stop", "end", "resume"};
  std::printf("            %s %d for key %d: %s\n", names.at(static_cast<std::size_t>(e.what)),
              e.number, e.on, what);
}

template <class Call>
void world::take_answer(entry& e, const Call& make) {
  try {
    make();
  } catch (const loader_error& error) {
    got(e, error);
  } catch (const singleflight::call_error& error) {
    refused(e, error.code());
  }
}

template <class Call>
void world::answer(entry& e, const Call& make) {
  take_answer(e, make);
  leave(e);
}

template <class Call>
void world::with_loader(entry& e, const Call& make) {
  answer(e, [&] {
    if (e.manner.loader_takes_token) {
      make(stoppable_loader{this, &e});
    } else {
      make(plain_loader{this, &e});
    }
  });
}

void world::call(key k, const how& h) {
  entry& e = enter(action::call, k, h);
  with_loader(e, [&](const auto& loader) {
    got(e, h.options ? group_->do_call(k, *h.options, loader) : group_->do_call(k, loader));
  });
}

void world::call_on_executor(key k, const how& h) {
  entry& e = enter(action::call, k, h);
  e.on_executor = true;
  with_loader(e, [&](const auto& loader) {
    got(e, group_->do_call_on(
               k, [this](auto task) { this->enqueue(std::move(task)); },
               h.options.value_or(singleflight::call_options()), loader));
  });
}

void world::async(key k, const how& h) {
  entry& e = enter(action::call, k, h);
  e.on_executor = true;
  with_loader(e, [&](const auto& loader) {
    futures_.emplace_back(&e,
                          group_->do_async(
                              k, [this](auto task) { this->enqueue(std::move(task)); }, loader));
    e.outcome = "has a future";
    if (e.call.leader == e.thread) e.call.leader = nothing;  // until a worker begins it
  });
}

void world::call_many(const std::vector<key>& keys, const how& h) {
  entry* first = nullptr;
  for (const key k : keys) {
    entry& e = enter(action::call, k, h);
    e.next_key = first;
    e.outer = first != nullptr ? first->outer : e.outer;
    first = &e;
  }
  const singleflight::bulk_options options{.call =
                                               h.options.value_or(singleflight::call_options())};
  auto rows = group_->do_many(keys, options, [this, throws = h.loader_throws](auto& missing) {
    load_many(missing, throws);
  });
  for (std::size_t i = 0; i < keys.size(); ++i) {
    entry& e = *here(keys[i]);
    take_answer(e, [&] { got(e, std::move(rows[i]).result()); });
  }
  leave(*first);
}

void world::load_many(singleflight::batch<key, value>& missing, bool throws) {
  for (const key k : missing) {
    entry& e = *here(k);
    expect(e.call.begun && e.call.runs++ == 0, "a loader runs for a key that it does not lead");
    e.call.leader = threads_.current();
    e.call.failed = throws && k != missing[0];
    say(e, "loads");
  }
  const int thrown = here(missing[missing.size() - 1])->number;
  threads_.point("in the loader");
  for (std::size_t i = 0; i < missing.size(); ++i) {
    missing.set_at(i, value(here(missing[i])->number));
    threads_.point("after a key was settled");
    if (throws && missing.size() > 1) throw loader_error(thrown);
  }
}

rows& world::table() {
  if (rows_ == nullptr) rows_ = std::make_unique<rows>(threads_);
  return *rows_;
}

void world::forget(key k) {
  entry& e = enter(action::forget, k);
  forgot(e, group_->forget(k));
}

void world::forget_unshared(key k) {
  entry& e = enter(action::forget, k);
  const bool did = group_->forget_unshared(k);
  expect(!did || e.unlisted == nothing || !number(e.unlisted).call.joined,
         "a call was forgotten as unshared that somebody has joined");
  forgot(e, did);
}

void world::forgot(entry& e, bool did) {
  expect(did == (e.unlisted != nothing), "forget does not say what it did");
  e.outcome = did ? "forgotten" : "nothing to forget";
  if (did) {
    auto& closed = number(e.unlisted).call.closed;
    closed = std::min(closed, ++sequence_);
    threads_.touch({.adds = objects::history_of(e.on)});
  }
  leave(e);
}

void world::stop(std::stop_source& source) {
  entry& e = enter(action::stop, 0);
  source.request_stop();
  leave(e);
}

// --- Asynchronous callers ------------------------------------------------------------------------

/// What an asynchronous caller was answered, on whatever thread.
template <class Answer>
void world::resume(entry& e, const Answer& make) {
  threads_.touch({.writes = e.touches});
  expect(++e.resumed == 1, "an asynchronous caller is resumed twice");
  expect(!e.may_stay, "a coroutine is resumed whose frame was destroyed");
  take_answer(e, make);
  say(e, e.outcome.c_str());
}

template <class Start>
void world::callback(key k, const how& h, const Start& start) {
  const singleflight::async_options options = options_of(h);
  entry& e = enter(action::call, k, h);
  begin_asynchronously(e);
  group_->async_call(
      k, singleflight::resume_inline, options,
      [this, &e, &start](singleflight::leader<value> mine) {
        e.call.runs = 1;
        e.call.leader = nothing;
        threads_.touch({.writes = objects::others});
        if (e.manner.loader_takes_token) e.call.token = mine.stop_token();
        start(e, std::move(mine));
      },
      [this, &e](singleflight::outcome<value> o) {
        resume(e, [&] { got(e, std::move(o).result()); });
      });
  leave(e);
}

void world::callback(key k, const how& h) {
  callback(k, h, [this](entry& e, singleflight::leader<value> mine) {
    leaders_.emplace_back(&e, std::move(mine));
  });
}

void world::callback_at_once(key k, const how& h) {
  callback(k, h, [](const entry& e, singleflight::leader<value> mine) {
    std::move(mine).set_value(value(e.number));
  });
}

template <class On>
support::frame world::ask(world& w, entry& e, On on) {
  const singleflight::async_options options = options_of(e.manner);
  try {
    auto r = co_await w.group_->co_call(e.on, on, options, plain_loader{&w, &e});
    w.resume(e, [&] { w.got(e, r); });
  } catch (...) {
    const std::exception_ptr why = std::current_exception();
    w.resume(e, [&] { std::rethrow_exception(why); });
  }
}

int world::coroutine(key k, bool inlined, const how& h) {
  entry& e = enter(action::call, k, h);
  begin_asynchronously(e);
  const int number = static_cast<int>(coroutines_.size());
  auto& mine = coroutines_.emplace_back(&e, support::frame());
  if (inlined) {
    mine.second = ask(*this, e, singleflight::resume_inline);
  } else {
    mine.second = ask(*this, e, posts{this});
  }
  leave(e);
  return number;
}

void world::end(key k) {
  const auto of_key = [this, k] {
    return std::find_if(leaders_.begin(), leaders_.end(),
                        [k](const auto& l) { return l.first->on == k; });
  };
  threads_.await([&] { return of_key() != leaders_.end() || (back_ & only(0)) != 0; });
  threads_.touch({.writes = objects::others});
  const auto found = of_key();
  if (found == leaders_.end()) return;
  entry& of = *found->first;
  singleflight::leader<value> mine = std::move(found->second);
  leaders_.erase(found);
  entry& e = enter(action::end, k);
  e.touches = objects::futures_of(of.thread);
  std::move(mine).set_value(value(of.number));
  leave(e);
}

void world::destroy(int coroutine) {
  auto& [e, frame] = coroutines_[static_cast<std::size_t>(coroutine)];
  entry& mine = enter(action::stop, 0);
  mine.touches = e->touches | objects::others;
  threads_.touch({.writes = mine.touches});
  e->may_stay = e->resumed == 0;
  if (e->may_stay) e->outcome = "destroyed";
  frame.destroy();
  leave(mine);
}

void world::run_resumptions() {
  entry& e = enter(action::resume, 0);
  e.touches = objects::others | objects::futures_of(e.thread);
  threads_.touch({.writes = e.touches});
  while (!resumptions_.empty()) {
    const std::function<void()> task = std::move(resumptions_.front());
    resumptions_.erase(resumptions_.begin());
    task();
  }
  here_[static_cast<std::size_t>(e.thread)] = e.outer;
}

/// Says what an asynchronous caller may touch from here on, in critical sections, too: what becomes of it
/// is decided by atomic operations where it has a stop token.
void world::begin_asynchronously(entry& e) {
  e.touches = objects::futures_of(e.thread);
  if (e.manner.options) {
    e.touches |= objects::stop_states;
    stoppable_ |= objects::futures_of(e.thread);
  }
  threads_.touch({.writes = e.touches});
}

void world::await_resumption() {
  threads_.await([this] { return !resumptions_.empty(); });
  threads_.touch({.writes = objects::everything});
}

template <class Condition>
void world::await_call(key k, const Condition& holds) {
  threads_.await([this, k, &holds] {
    return std::any_of(calls_.begin(), calls_.end(),
                       [k, &holds](const entry* e) { return e->on == k && holds(*e); });
  });
  // What it waits for is noticed in critical sections of the shard.
  threads_.touch({.writes = plan_.asynchronous ? objects::mutex(0) : objects::everything});
}

void world::await_loading(key k) {
  await_call(k, [](const entry& e) { return e.call.runs > 0; });
}
void world::await_joined(key k) {
  await_call(k, [](const entry& e) { return e.call.joined; });
}

void world::await_back(int caller) {
  threads_.await([this, caller] { return (back_ & only(caller)) != 0; });
  threads_.touch({.writes = objects::everything});
}

void world::run_a_task() {
  threads_.touch({.writes = objects::others});
  if (tasks_.empty()) return;
  const std::function<void()> task = std::move(tasks_.front());
  tasks_.erase(tasks_.begin());
  int& helping = helping_[static_cast<std::size_t>(threads_.current())];
  ++helping;
  task();
  --helping;
}

void world::destroy_after(std::initializer_list<int> callers) {
  thread_set needed = 0;
  for (const int c : callers) needed |= only(c);
  threads_.await([this, needed] { return (needed & ~back_) == 0; });
  threads_.touch({.writes = objects::others});
  destroyer_ = threads_.current();
  group_.reset();
  shards_ = nullptr;
  threads_.point("after the group has gone");
}

/// The caller that has left a call as the last runs this, or the loader itself that finds it stopped.
void world::run_stop_callback(entry& of) {
  say(of, "is told to stop");
  int& helping = helping_[static_cast<std::size_t>(threads_.current())];
  ++helping;
  of.manner.when_stopped();
  --helping;
}

value world::load(entry& e, const std::stop_token* token) {
  auto& c = e.call;
  const bool may_run_alone = plan_.options.when_full == singleflight::group_options::run_alone;
  expect(c.begun || may_run_alone, "a loader runs for a call that was never listed");
  expect(c.runs++ == 0, "a loader runs twice");
  if (token != nullptr) {
    c.token = *token;
    expect(!c.reported || token->stop_requested(),
           "a loader that nobody wants any more is not told to stop");
  }
  std::optional<std::stop_callback<std::function<void()>>> told;
  if (token != nullptr && e.manner.when_stopped) {
    told.emplace(*token, [this, &e] { run_stop_callback(e); });
  }
  say(e, "loads");
  bool& loading = loading_[static_cast<std::size_t>(threads_.current())];
  loading = true;
  c.leader = threads_.current();
  threads_.point("in the loader");
  if (e.manner.inside) e.manner.inside();
  const auto& own = e.manner.options;  // all there is to want a call that runs alone
  const bool unwanted =
      c.begun ? c.abandoned
              : own && (own->stop.stop_requested() || own->deadline <= threads_.now());
  expect(token == nullptr || !token->stop_requested() || unwanted,
         "a loader is told to stop that somebody still waits for");
  if (!e.manner.loader_throws) return value(e.number);
  c.failed = true;
  throw loader_error(e.number);
}

// --- What no hook sees ---------------------------------------------------------------------------

/// A thread that leads a call has nothing but its own before it publishes, and one that follows
/// looks at the future. Stop tokens are for those that have one. Tasks have owners on several
/// threads, of whom the last to go matters; who waits for one has let go of it.
footprint world::outside_critical_sections() {
  const auto me = static_cast<std::size_t>(threads_.current());
  if (destroyer_ == threads_.current()) return {.writes = objects::everything};
  if ((workers_ & only(threads_.current())) != 0) {
    return loading_[me] ? footprint() : footprint{.writes = objects::others};
  }
  if (rows_ != nullptr) {
    return {.reads = objects::all_futures,
            .writes = stop_sources_.empty() ? 0 : objects::stop_states};
  }
  const entry* const e = here();
  if (e == nullptr) return {};
  footprint f;
  f.writes |= e->touches;
  // Who ends or stops a call may resume any caller, which says so then: see `resume` and `posts`.
  if (e->what == action::stop) f.writes |= stoppable_;
  for (const entry* k = e; k != nullptr; k = k->next_key) {
    if (k->joined != nothing) f.reads |= objects::futures_of(number(k->joined).thread);
  }
  if (e->on_executor) f.reads |= objects::futures_of(e->thread);
  if ((e->on_executor && !e->has_slept) || helping_[me] > 0) f.writes |= objects::others;
  const bool may_use_token =
      e->what == action::stop || e->manner.options.has_value() || e->manner.loader_takes_token;
  if (may_use_token && !stop_sources_.empty()) f.writes |= objects::stop_states;
  return f;
}

void world::before_sleeping() {
  if (entry* const e = here()) e->has_slept = true;
  if (stoppable_ != 0) threads_.touch({.writes = objects::stop_states});  // for a stop callback
}

void world::before_publishing() {
  const int me = threads_.current();
  threads_.touch({.writes = objects::futures_of(me) |
                            objects::futures_of(ended_[static_cast<std::size_t>(me)])});
}

// --- Oracles in critical sections ----------------------------------------------------------------

void world::before_unlock(const void* mutex) {
  // An asynchronous caller notes under the locks what becomes of it, by an atomic operation.
  if (const entry* const e = here(); e != nullptr && e->what != action::end) {
    threads_.touch({.writes = e->touches & ~objects::stop_states});
  }
  if (shards_ == nullptr) return;
  for (const shard_type& s : shards_->all()) {
    if (&s.mutex == mutex) notice_calls(s);
  }
  if (entry* const e = here(); e != nullptr && mutex == &singleflight::detail::the_wait_graph()) {
    e->in_circle = would_wait_for_itself(*e, max_threads);
  }
}

void world::notice_calls(const shard_type& home) {
  std::uint32_t keys = 0;
  home.for_each([&](const call_type& c) {
    const std::uint32_t bit = std::uint32_t{1} << static_cast<unsigned>(c.key);
    expect((keys & bit) == 0, "two calls are listed for one key");
    keys |= bit;
    expect(!c.ended, "a call is listed that has ended");
    expect(c.interested > 0, "a call is listed that nobody wants");
    if (std::none_of(calls_.begin(), calls_.end(),
                     [&](const entry* e) { return e->call.running == &c; })) {
      entry* const by = here(c.key);
      expect(by != nullptr && by->what == action::call && by->on == c.key && !by->call.begun,
             "a call is listed that the caller has not begun");
      by->call.running = &c;
      by->call.home = &home;
      by->call.begun = true;
      by->has_left = false;
      by->call.leader = by->thread;
      by->call.listed = true;
      by->call.waiters = c.waiters();
      if (by->counted == entry::account::none) by->counted = entry::account::led;
      calls_.push_back(by);
    }
  });
  for (entry* const e : calls_) {
    if (e->call.running != nullptr && e->call.home == &home) notice_change(*e);
  }
}

void world::notice_change(entry& owner) {
  auto& known = owner.call;
  const call_type& c = *known.running;
  entry* const by = here(owner.on);
  if (c.waiters() > known.waiters) {
    expect(known.listed && c.listed() && !c.ended,
           "a caller has joined a call that was forgotten, is dying or has ended");
    expect(by != nullptr && by->what == action::call && by->on == owner.on && by != &owner,
           "somebody has joined who has not called");
    by->joined = owner.number;
    by->has_left = false;
    if (by->counted == entry::account::none) by->counted = entry::account::joined;
    known.joined = true;
  }
  if (c.waiters() < known.waiters && by != nullptr) by->has_left = true;
  known.waiters = c.waiters();
  if (c.interested == 0 && !c.ended && !known.abandoned) {
    known.abandoned = true;
    known.abandoned_by = threads_.current();
  }
  expect(known.listed || !c.listed(), "a call is listed again");
  if (known.listed && !c.listed()) notice_unlisting(owner, c);
  known.listed = c.listed();
  if (!c.ended) return;
  known.running = nullptr;
  ended_[static_cast<std::size_t>(threads_.current())] = owner.thread;
  loading_[static_cast<std::size_t>(threads_.current())] = false;
}

void world::notice_unlisting(entry& owner, const call_type& c) {
  if (c.ended || c.interested == 0) return;
  entry* const by = here();
  if (by != nullptr && by->what == action::forget && by->on == owner.on) {
    by->unlisted = owner.number;
    return;
  }
  const auto most = plan_.options.max_age;
  expect(most != scheduler::clock::duration::max() && threads_.now() >= c.began + most,
         "a call was unlisted that nobody may unlist");
  expect(c.leader != std::this_thread::get_id(), "a call was unlisted by its own loader");
  ++superseded_;
}

// --- Oracles of answers --------------------------------------------------------------------------

void world::answered(entry& e, int of) {
  const bool alone = of == e.number && !e.call.begun &&
                     plan_.options.when_full == singleflight::group_options::run_alone;
  if (alone) return;
  expect(of == e.number ? e.call.begun : of == e.joined,
         "a caller has the result of a call that it neither led nor joined");
  auto& closed = number(of).call.closed;
  expect(closed > e.entered,
         "a caller has the result of a call that had ended or was forgotten before it came");
  if (closed == never) closed = ++sequence_;
  threads_.touch({.adds = objects::history_of(e.on)});
}

void world::got(entry& e, const singleflight::result<value>& r) {
  answered(e, r->of);
  expect(r.led() == (r->of == e.number), "led() is wrong");
  expect(r.shared() == number(r->of).call.joined, "shared() is wrong");
  e.outcome = "value of " + std::to_string(r->of);
}

void world::got(entry& e, const loader_error& error) {
  answered(e, error.of);
  const void*& first = number(error.of).call.thrown;
  if (first == nullptr) first = &error;
  expect(first == &error, "two callers of a call got different exceptions");
  e.outcome = "error of " + std::to_string(error.of);
}

void world::refused(entry& e, const std::error_code& why) {
  const auto& options = e.manner.options;
  if (why == std::errc::timed_out) {
    expect(options && options->deadline <= threads_.now(), "a caller timed out too early");
    e.outcome = "timed out";
  } else if (why == std::errc::operation_canceled) {
    expect(options && options->stop.stop_requested(), "a caller was cancelled without a request");
    e.outcome = "cancelled";
  } else if (why == std::errc::resource_deadlock_would_occur) {
    expect(e.in_circle || would_wait_for_itself(e, 1), "a caller was refused who is in no circle");
    e.outcome = "circle";
  } else if (why == std::errc::resource_unavailable_try_again) {
    expect(plan_.options.max_waiters < max_threads, "a caller was refused though there is room");
    e.outcome = "full";
  } else {
    expect(why == std::errc::owner_dead && drops_,
           "a caller has no answer, and no loader was lost");
    e.outcome = "owner dead";
  }
}

/// Whether the caller would wait for a call that its own thread leads, or whose leader waits, through
/// so many others, for it. Which of the key's calls it was, if some have been forgotten, nobody knows
/// any more.
bool world::would_wait_for_itself(const entry& e, std::size_t most_steps) const {
  return std::any_of(calls_.begin(), calls_.end(), [&](const entry* c) {
    return c->on == e.on && leads_back_to(e.thread, *c, most_steps);
  });
}

/// A wait counts whatever may end it, until its caller has left, which may run stop callbacks. A thread in a critical section may be about to join a call that
/// it is not known to have joined.
bool world::leads_back_to(int thread, const entry& call, std::size_t most_steps) const {
  const int leader = call.call.leader;
  if (most_steps == 0 || call.call.running == nullptr || leader == nothing) return false;
  if (leader == thread) return true;
  const entry* const inner = here_[static_cast<std::size_t>(leader)];
  if (inner == nullptr) return false;
  const auto waits_for = [&](const entry* c) {
    return c != nullptr && leads_back_to(thread, *c, most_steps - 1);
  };
  if (inner->call.begun) return inner->on_executor && !inner->has_left && waits_for(inner);
  return (inner->joined != nothing && !inner->has_left &&
          waits_for(&entries_[static_cast<std::size_t>(inner->joined)])) ||
         (threads_.in_critical_section(leader) && waits_for(listed_call_for(inner->on)));
}

const world::entry* world::listed_call_for(key k) const {
  const auto found = std::find_if(calls_.begin(), calls_.end(), [k](const entry* c) {
    return c->on == k && c->call.running != nullptr && c->call.listed;
  });
  return found == calls_.end() ? nullptr : *found;
}

// --- The end -------------------------------------------------------------------------------------

std::uint64_t world::judge() {
  leaders_.clear();
  for (const entry& e : entries_) {
    const bool asked = e.what == action::call && e.outcome.empty();
    expect(!asked, "an asynchronous caller was not resumed");
  }
  coroutines_.clear();
  resumptions_.clear();
  if (group_ != nullptr) {
    for (const shard_type& s : shards_->all()) {
      expect(s.listed() == 0, "a call is listed at the end");
    }
    judge_accounts();
    group_.reset();
  }
  judge_futures();
  if (rows_ != nullptr) rows_->judge();
  rows_.reset();
  expect(value::alive == 0, "there are values left");
  expect(loader_error::alive == 0, "there are exceptions left");
  return fingerprint();
}

void world::judge_accounts() {
  const singleflight::group_stats stats = group_->stats();
  singleflight::group_stats mine;
  std::uint64_t callers = 0;
  for (const entry& e : entries_) {
    if (e.what != action::call) continue;
    ++callers;
    mine.led += e.counted == entry::account::led ? 1 : 0;
    mine.joined += e.counted == entry::account::joined ? 1 : 0;
    mine.timed_out += e.outcome == "timed out" ? 1 : 0;
    mine.cancelled += e.outcome == "cancelled" ? 1 : 0;
    mine.failed += e.call.failed || (e.call.begun && e.call.runs == 0) ? 1 : 0;
  }
  expect(stats.in_flight == 0 && stats.waiting == 0, "a gauge is not 0 at the end");
  expect(stats.led == mine.led && stats.joined == mine.joined &&
             stats.led + stats.joined + stats.rejected == callers,
         "the entries do not add up");
  // A call that runs alone, on an executor, and is dropped or left is one that nobody here knows.
  const bool some_alone = plan_.options.when_full == singleflight::group_options::run_alone;
  const bool failures_fit = some_alone ? stats.failed >= mine.failed : stats.failed == mine.failed;
  expect(stats.timed_out == mine.timed_out && stats.cancelled >= mine.cancelled && failures_fit &&
             stats.superseded >= superseded_,
         "the counters do not add up");
}

void world::judge_futures() {
  for (auto& [e, future] : futures_) {
    try {
      answered(*e, future.get().of);
      e->outcome = "future of " + std::to_string(future.get().of);
    } catch (const loader_error& error) {
      got(*e, error);
    } catch (const singleflight::call_error& error) {
      refused(*e, error.code());
    }
  }
  futures_.clear();
}

/// FNV-1a over what each operation has led to.
std::uint64_t world::fingerprint() const {
  std::uint64_t hash = 0xCBF2'9CE4'8422'2325U;
  const auto add = [&hash](unsigned char byte) { hash = (hash ^ byte) * 0x100'0000'01B3U; };
  for (const entry& e : entries_) {
    for (const char c : e.outcome) add(static_cast<unsigned char>(c));
    add(e.call.joined ? 1 : 0);
    add(e.call.abandoned ? 1 : 0);
  }
  return hash;
}

}  // namespace schedules
