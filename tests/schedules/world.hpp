// SPDX-License-Identifier: MIT
// The group under test, what threads do with it, and the oracles that judge each execution.
#ifndef SINGLEFLIGHT_TESTS_SCHEDULES_WORLD_HPP
#define SINGLEFLIGHT_TESTS_SCHEDULES_WORLD_HPP

#include <array>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <exception>
#include <functional>
#include <future>
#include <limits>
#include <memory>
#include <optional>
#include <stop_token>
#include <string>
#include <system_error>
#include <vector>

#include "scheduler.hpp"

namespace schedules {
/// A precondition of the library does not hold.
[[noreturn]] void rule_broken(const char* rule);
}  // namespace schedules
#define SINGLEFLIGHT_ASSERT(condition, rule) \
  ((condition) ? static_cast<void>(0) : schedules::rule_broken(rule))
#include <singleflight/coroutine.hpp>
#include <singleflight/group.hpp>

#include "../tasks.hpp"

namespace schedules {

class rows;

using key = int;

struct key_hash {
  bool collide = false;
  [[nodiscard]] std::size_t operator()(key k) const noexcept {
    return collide ? 0 : static_cast<std::size_t>(k);
  }
};

/// The result of a call: which one it was. Counted, so that a lost or doubled one is noticed.
class value {
 public:
  explicit value(int call) noexcept : of(call) { ++alive; }
  value(const value& other) noexcept : of(other.of) { ++alive; }
  value(value&& other) noexcept : of(other.of) { ++alive; }
  value& operator=(const value&) = default;
  value& operator=(value&&) = default;
  ~value() { --alive; }

  int of;
  inline static int alive = 0;
};

/// What a loader throws.
class loader_error : public std::exception {
 public:
  explicit loader_error(int call) noexcept : of(call) { ++alive; }
  loader_error(const loader_error& other) noexcept : std::exception(other), of(other.of) {
    ++alive;
  }
  loader_error& operator=(const loader_error&) = default;
  ~loader_error() override { --alive; }

  int of;
  inline static int alive = 0;
};

using group_type = singleflight::group<key, value, key_hash>;
using call_type = singleflight::detail::call<key, value>;
using shard_type = singleflight::detail::call_map<key, value>;
using shards_type = singleflight::detail::shards<key, value>;

/// What a group is made of.
struct plan {
  singleflight::group_options options = {.shards = 1};
  key_hash hash = {};
  bool asynchronous = false;  // whether any caller is
};

/// How a caller calls.
struct how {
  std::optional<singleflight::call_options> options = {};
  bool loader_takes_token = false;
  bool loader_throws = false;
  std::function<void()> inside = {};        // what its loader does
  std::function<void()> when_stopped = {};  // the stop callback of a loader that takes the token
};

/// One execution's world. Threads are added, then run, then the end is judged. An oracle that is
/// not satisfied ends the process, with the schedule that replays the execution.
///
/// Oracles, at the moment that a shard's mutex is about to be released, which is when listing,
/// joining, leaving and ending happen:
///   - at most one call is listed for a key, and nobody wants it or it has ended: never;
///   - a call is listed once, by the one that leads it, and is not listed again;
///   - only a listed call is joined: none that was forgotten, is dying or has ended;
///   - a call is unlisted by its end, its forgetting, its age or the last loss of interest alone, and
///     for its age not by its own loader.
/// When a caller has its answer:
///   - it is that of the call that it led or was seen to join, and an exception is the same object;
///   - the call had not ended, been given out or been forgotten before the caller came;
///   - `led()` and `shared()` are true; a refusal has its reason; whoever took the last interest
///     out of a call has told its loader to stop, and nobody else has.
/// At the end: everybody is back (or the scheduler says so), no call is listed, the gauges are 0,
/// the counters add up, and values, exceptions and memory blocks made are gone.
///
/// Those of the first kind run inside a critical section. They look at nothing but its shard and
/// their own thread, since the search takes them to be independent of all else. Whether a caller
/// would wait for itself is looked up where it asks: when it is about to release the wait graph's
/// mutex, under which all waits inside loaders begin and end.
class world : public observer {
 public:
  world(scheduler& threads, const plan& p);
  ~world() override;
  world(const world&) = delete;
  world& operator=(const world&) = delete;

  void run(strategy& decides) { threads_.run(decides, *this); }
  /// Judges the end. Returns: a fingerprint of who got what.
  std::uint64_t judge();

  // --- For the set-up ----------------------------------------------------------------------------

  /// Makes a stop source for the threads to use.
  std::stop_source& stop_source();
  /// Adds a thread that makes calls.
  void caller(std::function<void()> body);
  /// Adds a thread that runs what is given to `executor`, until all callers are back.
  void worker();
  /// Adds a thread that drops the first task it finds, without running it.
  void dropping_worker();

  [[nodiscard]] static scheduler::clock::time_point after(std::chrono::milliseconds time) {
    return scheduler::clock::time_point(std::chrono::hours(1)) + time;
  }

  // --- For the threads ---------------------------------------------------------------------------

  void call(key k, const how& h = {});
  void call_on_executor(key k, const how& h = {});
  void async(key k, const how& h = {});
  /// Asks for these keys at once, each of which is one entry. The loader throws, if it does, when it has
  /// settled the first of its keys.
  void call_many(const std::vector<key>& keys, const how& h = {});
  void forget(key k);
  void forget_unshared(key k);
  void stop(std::stop_source& source);

  /// The rows that callers read through a cache. To be called in the set-up, too.
  rows& table();

  // Asynchronous callers: callbacks that are called inline, whose calls another thread ends, and
  // coroutines. `h.options` may have a stop token.

  /// Makes an asynchronous call, or joins one. One that is begun here is ended by `end`.
  void callback(key k, const how& h = {});
  /// The same, and ends the call at once that it begins.
  void callback_at_once(key k, const how& h = {});
  /// Has a coroutine ask, which is resumed inline, or by a task that `run_resumptions` runs. One that
  /// begins a call loads at once. Returns: its number, for `destroy`.
  int coroutine(key k, bool inlined, const how& h = {});
  /// Waits until the first thread has begun a call for that key by `callback`, and ends it; does
  /// nothing if that thread is back and has begun none.
  void end(key k);
  /// Destroys the frame of a coroutine. It must not be resumed meanwhile.
  void destroy(int coroutine);
  /// Runs what resumes coroutines on this thread, their executor.
  void run_resumptions();
  /// Blocks until there is something to run in there.
  void await_resumption();

  /// Blocks until a loader has begun for that key.
  void await_loading(key k);
  /// Blocks until a caller has joined a call for that key.
  void await_joined(key k);
  /// Blocks until that caller is back.
  void await_back(int caller);
  /// Runs the task that has been queued first, if there is one, as a worker would.
  void run_a_task();
  void advance(std::chrono::milliseconds time) { threads_.advance(time); }
  /// Destroys the group when those threads are back.
  void destroy_after(std::initializer_list<int> callers);

 private:
  static constexpr std::size_t most_entries = 8;  // of a thread
  static constexpr std::uint64_t never = std::numeric_limits<std::uint64_t>::max();
  static constexpr int nothing = -1;

  enum class action { none, call, forget, stop, end, resume };

  /// One operation of one thread, and the call that it began, if it did. A call goes by the number
  /// of the entry that began it.
  struct entry {
    int number = nothing;
    action what = action::none;
    key on = 0;
    int thread = nothing;
    how manner;
    bool on_executor = false;
    bool has_slept = false;
    bool has_left = false;      // the call that it waited for last
    bool in_circle = false;     // as of its last look at the wait graph
    entry* outer = nullptr;     // whose loader made this one
    entry* next_key = nullptr;  // of those that its caller asks for at once
    std::uint64_t entered = 0;
    int joined = nothing;    // the call that it has joined last
    int unlisted = nothing;  // the call that it has forgotten
    enum class account { none, led, joined } counted = account::none;  // the first thing it did
    std::string outcome;
    int resumed = 0;            // of an asynchronous caller
    bool may_stay = false;      // unanswered, since its frame was destroyed
    std::uint32_t touches = 0;  // beyond what its thread does, if it is asynchronous

    struct {
      const call_type* running = nullptr;  // until it has ended
      const shard_type* home = nullptr;
      bool begun = false;
      bool listed = false;
      std::size_t waiters = 0;     // as of the last look
      bool joined = false;         // by anybody, ever
      bool abandoned = false;      // by all that were interested
      int abandoned_by = nothing;  // thread
      bool reported = false;       // who abandoned it is back
      int leader = nothing;        // thread
      int runs = 0;
      bool failed = false;
      std::uint64_t closed = never;  // since when newcomers must not be given it
      std::stop_token token;
      const void* thrown = nullptr;
    } call;
  };

  struct plain_loader {
    world* in;
    entry* of;
    value operator()() const { return in->load(*of, nullptr); }
  };
  struct stoppable_loader {
    world* in;
    entry* of;
    value operator()(const std::stop_token& token) const { return in->load(*of, &token); }
  };

  // Operations.
  entry& enter(action what, key k, const how& h = {});
  void leave(entry& e);
  template <class Call>
  void answer(entry& e, const Call& make);
  template <class Call>
  void take_answer(entry& e, const Call& make);
  template <class Call>
  void with_loader(entry& e, const Call& make);
  value load(entry& e, const std::stop_token* token);
  void load_many(singleflight::batch<key, value>& missing, bool throws);
  void run_stop_callback(entry& of);
  template <class Condition>
  void await_call(key k, const Condition& holds);
  void forgot(entry& e, bool did);
  [[nodiscard]] static singleflight::async_options options_of(const how& h) {
    singleflight::async_options options;
    if (h.options) options.stop = h.options->stop;
    return options;
  }
  template <class Start>
  void callback(key k, const how& h, const Start& start);
  void begin_asynchronously(entry& e);
  template <class Answer>
  void resume(entry& e, const Answer& make);
  struct posts {
    world* in;
    template <class Task>
    void operator()(Task task) const {
      in->threads_.touch({.writes = objects::others});
      in->resumptions_.emplace_back(std::move(task));
    }
  };
  template <class On>
  static support::frame ask(world& w, entry& e, On on);

  template <class Task>
  void enqueue(Task task) {
    tasks_.emplace_back(std::move(task));
    threads_.touch({.writes = objects::others});
  }
  void work(bool drop_first);

  // Oracles in critical sections.
  void before_unlock(const void* mutex) override;
  [[nodiscard]] footprint outside_critical_sections() override;
  void before_publishing() override;
  void before_sleeping() override;
  void notice_calls(const shard_type& home);
  void notice_change(entry& owner);
  void notice_unlisting(entry& owner, const call_type& c);

  // Oracles of answers.
  void got(entry& e, const singleflight::result<value>& r);
  void got(entry& e, const loader_error& error);
  void refused(entry& e, const std::error_code& why);
  void answered(entry& e, int of);
  [[nodiscard]] bool would_wait_for_itself(const entry& e, std::size_t most_steps) const;
  [[nodiscard]] bool leads_back_to(int thread, const entry& call, std::size_t most_steps) const;
  [[nodiscard]] const entry* listed_call_for(key k) const;
  void judge_accounts();
  void judge_futures();
  [[nodiscard]] std::uint64_t fingerprint() const;
  void expect(bool holds, const char* what) const {
    if (!holds) threads_.fail(what);
  }
  void say(const entry& e, const char* what) const;

  [[nodiscard]] entry* here() const { return here_[static_cast<std::size_t>(threads_.current())]; }
  /// Returns: where this thread asks for that key, if it asks for many; else its innermost entry.
  [[nodiscard]] entry* here(key k) const {
    entry* e = here();
    while (e != nullptr && e->on != k && e->next_key != nullptr) e = e->next_key;
    return e;
  }
  [[nodiscard]] entry& number(int n) { return entries_[static_cast<std::size_t>(n)]; }

  scheduler& threads_;
  const plan plan_;
  std::unique_ptr<group_type> group_;
  const shards_type* shards_ = nullptr;  // null when the group is gone
  std::array<entry, max_threads * most_entries> entries_;
  std::array<std::size_t, max_threads> made_{};  // entries of each thread
  std::array<entry*, max_threads> here_{};       // the innermost entry of each thread
  std::vector<entry*> calls_;                    // the entries that have begun one
  std::uint64_t sequence_ = 0;
  std::uint64_t superseded_ = 0;
  int thread_count_ = 0;
  thread_set callers_ = 0;
  thread_set back_ = 0;
  std::vector<std::function<void()>> tasks_;
  bool drops_ = false;
  thread_set workers_ = 0;
  int destroyer_ = nothing;                  // the thread that destroys the group
  std::array<bool, max_threads> loading_{};  // whether each thread runs a loader, its own or not
  std::array<int, max_threads> helping_{};   // stop callbacks and tasks that each caller runs
  std::array<int, max_threads> ended_{};     // whose call each thread has ended last
  std::deque<std::stop_source> stop_sources_;
  std::vector<std::pair<entry*, std::shared_future<value>>> futures_;
  std::uint32_t stoppable_ = 0;  // the asynchronous callers with a stop token
  std::unique_ptr<rows> rows_;
  std::vector<std::pair<entry*, singleflight::leader<value>>> leaders_;
  std::deque<std::pair<entry*, support::frame>> coroutines_;
  std::vector<std::function<void()>> resumptions_;
};

}  // namespace schedules

#endif  // SINGLEFLIGHT_TESTS_SCHEDULES_WORLD_HPP
