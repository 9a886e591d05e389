// SPDX-License-Identifier: MIT
#ifndef SINGLEFLIGHT_GROUP_HPP
#define SINGLEFLIGHT_GROUP_HPP

#include <algorithm>
#include <bit>
#include <chrono>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <exception>
#include <functional>
#include <future>
#include <limits>
#include <memory>
#include <optional>
#include <stdexcept>
#include <system_error>
#include <thread>
#include <type_traits>
#include <utility>
#include <vector>

#include "call_error.hpp"
#include "detail/assert.hpp"
#include "detail/call.hpp"
#include "detail/call_map.hpp"
#include "detail/executor_call.hpp"
#include "detail/lead.hpp"
#include "detail/mutex.hpp"
#include "detail/stop.hpp"
#include "detail/wait_graph.hpp"
#include "options.hpp"
#include "result.hpp"
#include "stats.hpp"
#include "version.hpp"

namespace singleflight::inline v1 {

/// Coalesces identical requests that are made at the same time: of all the callers that ask for one
/// key, one runs its loader and the others get what it returns.
///
///     singleflight::group<std::string, template_details> flights;
///
///     template_details get(const std::string& id) {
///       if (auto hit = cache.find(id)) return *hit;
///       return flights.do_call(id, [&] {  // 1,000 threads miss together: one query
///         if (auto hit = cache.find(id)) return *hit;
///         auto row = db.load_template(id);
///         cache.put(id, row, 30s);
///         return row;
///       });
///     }
///
/// A *call* is one execution of a loader for a key. Its *leader* is the caller that runs it, on its
/// own thread; its *followers* are the callers that joined it and wait. A call is *listed* while
/// new callers can join it.
///
/// Guarantees:
///   1. At any instant at most one call per key is listed, and every caller that arrives while it
///      is listed joins it.
///   2. A call leaves the map before its result is published, so whoever enters after any caller
///      has returned with a call's result is never given that result. This is no cache.
///   3. Every caller gets the value, or the very exception object that the loader threw, or a
///      `call_error`. Nobody is left hanging: not by an exception, not by a thread that exits
///      inside its loader, not by an executor that drops it.
///   4. Each caller owns its own wait: its deadline or stop request changes nothing for the others.
///   5. Work that nobody wants is stopped: when the last interested caller leaves, the call is
///      unlisted at the same instant, and then the stop token that its loader took is triggered,
///      once.
///   6. A call unlists itself and nothing else: one that was forgotten or superseded and ends late
///      does not touch a newer one.
///   7. No user code runs under a lock but `KeyEqual` and copying or moving a `Key`. Loaders,
///      values, executors, stop callbacks and destructors run outside and may call the group again.
///   8. A caller that would wait for itself, directly or in a circle through other keys, threads
///      and groups, is refused.
///   9. With `group_options::max_age`, a hung leader does not own its key.
///
/// Thread safety: all members may be called at once from any thread, except the destructor; `Hash`
/// and `KeyEqual` are called as `const` from many threads. What a leader did before its loader
/// returned or threw is visible to every caller that gets that result or exception.
///
/// Cost: a call that nobody joins takes two uncontended locks. It allocates what the copy of its
/// key does, and nothing else unless its loader takes a stop token or runs on an executor; where
/// `Key` is a `std::basic_string` with the standard allocator, a shard keeps the buffer of an ended
/// call's key, at most 1,024 bytes, and a copy that fits into it does not allocate either. A
/// follower takes one lock; the first of a call allocates a promise, the first that can leave, or
/// that leads a call itself, one object more, the others nothing. A value is copied only for a
/// caller that takes it by value. (The map of a shard allocates when more calls are in flight than
/// ever before.)
template <class Key, class Value, class Hash = std::hash<Key>, class KeyEqual = std::equal_to<Key>>
class group {
  static_assert(std::is_object_v<Key> && std::same_as<Key, std::remove_cv_t<Key>>,
                "singleflight: Key must be an object type, without const and without &");
  static_assert(!std::is_reference_v<Value>,
                "singleflight: Value must not be a reference, since results outlive the loader; "
                "use a pointer or std::reference_wrapper");
  static_assert(std::same_as<Value, std::remove_cv_t<Value>> && !std::is_array_v<Value>,
                "singleflight: Value must be void or an object type, without const and no array");
  static_assert(std::is_void_v<Value> || std::is_reference_v<Value> ||
                    std::is_move_constructible_v<Value>,
                "singleflight: Value must be movable; wrap it in a std::unique_ptr or "
                "std::shared_ptr");
  static_assert(std::is_invocable_r_v<std::size_t, const Hash&, const Key&>,
                "singleflight: Hash cannot hash a Key; specialise std::hash<Key> or name a Hash "
                "whose operator() is const");
  static_assert(std::is_invocable_r_v<bool, const KeyEqual&, const Key&, const Key&> &&
                    (!std::same_as<KeyEqual, std::equal_to<Key>> ||
                     requires(const Key& a, const Key& b) { static_cast<bool>(a == b); }),
                "singleflight: KeyEqual cannot compare two Keys; give Key an operator== or name a "
                "KeyEqual whose operator() is const");

 public:
  /// Makes an empty group.
  /// Throws: `std::invalid_argument` if the options make no sense, `std::bad_alloc`.
  explicit group(group_options options = {}, Hash hash = Hash(), KeyEqual equal = KeyEqual())
      : options_(checked(options)),
        shard_bits_(shard_bits(options.shards)),
        shard_shift_(63 - shard_bits_),
        shards_(std::make_unique<shard[]>(std::size_t{1} << shard_bits_)),
        hash_(std::move(hash)),
        equal_(std::move(equal)) {}

  group(const group&) = delete;  // nor movable: calls in flight point into it
  group& operator=(const group&) = delete;

  /// Precondition: every member function has returned.
  /// Blocks: until no call is left on an executor. One that its executor neither runs nor drops
  /// blocks for ever.
  ~group() {
    on_executors_.wait();
    SINGLEFLIGHT_ASSERT(stats().in_flight == 0,
                        "a group must outlive the calls that are made through it");
  }

  /// Leads a call for `key`, or follows the one that is listed.
  ///
  /// Effects: if no call for `key` is listed, lists one, runs the loader `fn` on this thread,
  ///   unlists the call and hands its result to the followers. Otherwise waits for the listed call,
  ///   no longer than the options say; `fn` is not invoked.
  /// Returns: the call's result.
  /// Throws: what the loader that ran threw, the same object for every caller of the call;
  ///   `call_error`, which lists its reasons; `std::invalid_argument` for `attempts == 0`. What
  ///   hash, equality, key copy and the allocations throw: only to this caller, which then neither
  ///   leads nor waits.
  /// Blocks: while the loader runs, its own or the leader's. A follower leaves at its deadline or
  ///   stop request, or for a newer call at the group's `max_age`. A leader cannot: it is running
  ///   the loader. Its stop request withdraws its interest, and it returns when the loader does,
  ///   with what the loader gave. Use `do_call_on` if the first caller must be able to leave.
  /// Complexity: one hash. Leading: two locks, one copy (or move) of the key, and an allocation if
  ///   the loader takes a stop token. Following: one lock, two if it leaves; see the class for
  ///   allocations.
  /// Lifetime: the call owns its key, so `fn` may move from or destroy what `key` refers to.
  ///
  /// `key` is a `Key` or converts to one; if both `Hash` and `KeyEqual` have `is_transparent`, it
  /// is whatever they take, and a `Key` is made of it only by the caller that leads. `fn` is
  /// callable with no argument or with a `std::stop_token`, and returns what converts to `Value`.
  template <class K = Key, class Fn>
  result<Value> do_call(K&& key, const call_options& options, Fn&& fn) {
    check_key<K>();
    check_loader<Fn>();
    check(options);
    return enter(lookup_key(std::forward<K>(key)), options, on_this_thread(), std::forward<Fn>(fn));
  }

  /// As above, waiting for as long as it takes.
  template <class K = Key, class Fn>
  result<Value> do_call(K&& key, Fn&& fn) {
    check_key<K>();
    check_loader<Fn>();
    return enter(lookup_key(std::forward<K>(key)), no_options(), on_this_thread(),
                 std::forward<Fn>(fn));
  }

  /// As `do_call`, but if this caller begins the call, the loader runs on `executor` and this
  /// caller waits like everybody else, so that it can leave, too. Only `max_age` does not make it
  /// leave.
  ///
  /// An executor is callable with a copyable function object that takes nothing:
  /// `[&](auto task) { boost::asio::post(pool, std::move(task)); }`. It may run the task at once,
  /// later or elsewhere; to invoke it again does nothing. If the executor throws, the call fails
  /// with that exception; if it drops the task, with `owner_dead`. A task that is run when every
  /// caller has left does not run the loader any more.
  ///
  /// Throws: as `do_call`. What copying `fn` throws fails the call, for everybody.
  /// Complexity: as `do_call`; to begin a call allocates.
  /// Lifetime: the call owns its loader, a copy of `fn` (or `fn`, moved), and destroys it when it
  ///   ends, which the group's destructor waits for. So the loader must not own the group.
  template <class K = Key, class Executor, class Fn>
  result<Value> do_call_on(K&& key, Executor&& executor, const call_options& options, Fn&& fn) {
    check_key<K>();
    check_executor<Executor, Fn>();
    check(options);
    return enter(lookup_key(std::forward<K>(key)), options, std::forward<Executor>(executor),
                 std::forward<Fn>(fn));
  }

  /// Begins a call for `key` on an executor, or joins the one that is listed, and waits for
  /// neither. This caller counts as interested for ever, so the call is not stopped for want of
  /// interest.
  /// Returns: the future of the call's result, which does not refer to the group.
  /// Throws: `call_error` with `resource_unavailable_try_again` if the call is full and the group
  ///   rejects; what hash, equality, key copy and allocations throw. What the executor throws is in
  ///   the future.
  /// Complexity: one hash, one lock; to begin a call allocates.
  /// Lifetime: as `do_call_on`. To wait for the future inside a loader escapes the search for
  ///   circles.
  template <class K = Key, class Executor, class Fn>
  [[nodiscard]] std::shared_future<Value> do_async(K&& key, Executor&& executor, Fn&& fn) {
    check_key<K>();
    check_executor<Executor, Fn>();
    return enter_async(lookup_key(std::forward<K>(key)), std::forward<Executor>(executor),
                       std::forward<Fn>(fn));
  }

  /// Unlists the call for `key`, so that the next caller starts a new one: for a writer that wants
  /// no later reader to get what was read before its write. The call goes on, and who has joined it
  /// gets its result.
  /// Returns: whether a call was listed.
  /// Throws: what hash and equality throw.
  /// Complexity: one hash, one lock.
  template <class K = Key>
  bool forget(K&& key) {
    return forget_if(lookup_key(std::forward<K>(key)), [](const call&) { return true; });
  }

  /// As `forget`, but only if nobody has joined the call. Exact: if it returns true, nobody ever
  /// will.
  /// Returns: whether a call was listed, and is no more.
  template <class K = Key>
  bool forget_unshared(K&& key) {
    return forget_if(lookup_key(std::forward<K>(key)), [](const call& c) { return !c.joined(); });
  }

  /// Returns: the counters and gauges, each shard's read at one instant.
  /// Complexity: one lock per shard.
  [[nodiscard]] group_stats stats() const {
    group_stats sum;
    for (std::size_t i = 0; i < shard_count(); ++i) {
      const detail::lock lock(shards_[i].mutex);
      sum += shards_[i].stats();
    }
    return sum;
  }

  /// Returns: the listed calls, each shard's read at one instant, in no order.
  /// Throws: `std::bad_alloc`, what copying a `Key` throws.
  /// Complexity: one lock per shard, held while its keys are copied.
  [[nodiscard]] std::vector<call_info<Key>> in_flight()
      const requires std::copy_constructible<Key> {
    std::vector<call_info<Key>> all;
    for (std::size_t i = 0; i < shard_count(); ++i) append_calls(shards_[i], all);
    return all;
  }

 private:
  using call = detail::call<Key, Value>;
  using shard = detail::call_map<Key, Value>;
  using follower = detail::follower<Key, Value>;
  using clock = std::chrono::steady_clock;

  struct on_this_thread {};  // in the place of an executor
  struct no_options {};      // in the place of call_options: nothing to look at on a leader's path

  template <class Options>
  static constexpr bool has_options = std::same_as<Options, call_options>;

  [[nodiscard]] static const call_options& waiting_options(const call_options& options) noexcept {
    return options;
  }
  [[nodiscard]] static call_options waiting_options(no_options) noexcept { return {}; }

  // --- Entering ----------------------------------------------------------------------------------

  /// What has become of one entry so far.
  struct entry {
    std::size_t failures = 0;  // of calls that it followed
    bool counted = false;      // as led, joined or rejected, which happens once
  };

  /// One caller's wait for one call, in that caller's frame.
  struct waiting {
    waiting() = default;
    waiting(const waiting&) = delete;  // the wait graph points at the edge
    waiting& operator=(const waiting&) = delete;
    ~waiting() {
      if (in_graph) detail::the_wait_graph().remove(edge);
    }

    follower place;
    bool began = false;                                    // the call, rather than joined it
    clock::time_point too_old = clock::time_point::max();  // when to leave for a newer call
    detail::wait_edge edge;
    bool in_graph = false;
  };

  /// The path of every caller that waits: to a call that it leads or follows; once, or several
  /// times if that call fails or grows too old and the caller may try again.
  template <class K, class Options, class Executor, class Fn>
  result<Value> enter(K&& key, const Options& options, Executor&& executor, Fn&& fn) {
    const auto [home, hash] = locate(key);
    constexpr bool runs_here = std::same_as<Executor, on_this_thread>;
    for (entry me;;) {
      if constexpr (has_options<Options>) refuse_if_late(home, options, me);
      // Goes after the lock has been released: it owns a key.
      [[maybe_unused]] std::conditional_t<runs_here, entry, executor_call<Fn>> started;
      detail::lock lock(home.mutex);
      call* const running = joinable(home, hash, key);
      if (running != nullptr && !must_run_alone(*running)) {
        const call_options& how = waiting_options(options);
        waiting wait;
        const std::errc refusal = join(home, *running, how, me, wait);
        lock.unlock();
        if (refusal != std::errc()) refuse(refusal);
        if (auto answer = await(home, how, me, wait)) return *std::move(answer);
      } else if constexpr (runs_here) {
        call own(hash, home.make_key(std::forward<K>(key)), std::this_thread::get_id(),
                 detail::stop_source_for<Fn>());
        begin(home, own, running, 1, me);
        lock.unlock();
        return lead(home, own, options, std::forward<Fn>(fn));
      } else {
        make_call_on_executor(started, home, hash, std::forward<K>(key));
        waiting wait;
        wait.began = true;
        wait.place = home.prepare_wait(started->get(), needs(options, wait));
        begin(home, *started, running, 0, me);
        home.wait(started->get());
        started->get().shared->leader_waits = true;
        lock.unlock();
        launch(std::move(started), std::forward<Executor>(executor), std::forward<Fn>(fn));
        return *await(home, options, me, wait);  // it leaves its own call for no other
      }
    }
  }

  /// Begins a call on an executor, or joins the one that is listed, without waiting.
  template <class K, class Executor, class Fn>
  std::shared_future<Value> enter_async(K&& key, Executor&& executor, Fn&& fn) {
    const auto [home, hash] = locate(key);
    entry me;
    executor_call<Fn> started;  // goes after the lock has been released: it owns a key
    detail::lock lock(home.mutex);
    call* const running = joinable(home, hash, key);
    if (running != nullptr && !must_run_alone(*running)) {
      if (is_full(*running)) {
        count(home, &group_stats::rejected, me);
        lock.unlock();
        refuse(std::errc::resource_unavailable_try_again);
      }
      follower place = home.prepare_wait(*running, {});
      count(home, &group_stats::joined, me);
      running->shared->joined = true;
      home.wait(*running);
      return std::move(place.future);
    }
    make_call_on_executor(started, home, hash, std::forward<K>(key));
    std::shared_future<Value> future = started->get().shared->future;
    begin(home, *started, running, 1, me);
    lock.unlock();
    launch(std::move(started), std::forward<Executor>(executor), std::forward<Fn>(fn));
    return future;
  }

  /// Returns: the call to join, or null. One that is too old is not joined; it leaves the map.
  template <class K>
  call* joinable(shard& home, std::uint64_t hash, const K& key) SINGLEFLIGHT_REQUIRES(home.mutex) {
    call* running = home.find(hash, key, equal_);
    if (running == nullptr || !ages() || clock::now() < too_old(*running)) return running;
    home.supersede(*running);
    return nullptr;
  }

  /// Begins a call: listed, or on its own beside a listed one that is full.
  void begin(shard& home, call& own, const call* running, std::size_t interested, entry& me) const
      SINGLEFLIGHT_REQUIRES(home.mutex) {
    if (ages()) own.began = clock::now();
    home.begin(own, interested);
    if (running == nullptr) home.list(own);
    count(home, running == nullptr ? &group_stats::led : &group_stats::rejected, me);
  }

  template <class Fn>
  void begin(shard& home, detail::executor_call<Key, Value, Fn>& own, const call* running,
             std::size_t interested, entry& me) const SINGLEFLIGHT_REQUIRES(home.mutex) {
    own.begin();
    begin(home, own.get(), running, interested, me);
  }

  static void count(shard& home, typename shard::counter which, entry& me)
      SINGLEFLIGHT_REQUIRES(home.mutex) {
    if (!std::exchange(me.counted, true)) home.count(which);
  }

  // --- Leading -----------------------------------------------------------------------------------

  /// Runs a call on this thread, watching for this caller's stop request if it can have one.
  template <class Options, class Fn>
  static result<Value> lead(shard& home, call& own, [[maybe_unused]] const Options& options,
                            Fn&& fn) {
    if constexpr (has_options<Options>) {
      const detail::on_stop withdraw(options, withdrawal{home, own});
      return lead(home, own, std::forward<Fn>(fn));
    } else {
      return lead(home, own, std::forward<Fn>(fn));
    }
  }

  /// In the order that detail/lead.hpp gives the reasons for.
  template <class Fn>
  static result<Value> lead(shard& home, call& own, Fn&& fn) {
    if constexpr (std::is_void_v<Value>) {
      detail::run(home, own, std::forward<Fn>(fn));
      detail::end(home, own);
      if (own.shared) detail::publish(home, own);
      return result<void>(own.joined(), true);
    } else {
      Value value = detail::run(home, own, std::forward<Fn>(fn));
      detail::end(home, own);
      if (!own.shared) return keep(home, value);
      detail::publish(home, own, std::move(value));
      return result<Value>(std::move(own.shared->future), own.joined(), true);
    }
  }

  /// Takes back the leader's interest in a call that may be over already.
  struct withdrawal {
    shard& home;
    call& own;

    void operator()() const noexcept {
      detail::lock lock(home.mutex);
      if (own.ended) return;
      home.count(&group_stats::cancelled);
      detail::stop_source unwanted = home.lose_interest(own);
      lock.unlock();
      unwanted.request_stop();
    }
  };

  /// Returns: the value of a call that nobody joined.
  template <class V>
  static result<V> keep(shard& home, V& value) {
    try {
      return result<V>(std::move(value));
    } catch (...) {  // the move threw
      const detail::lock lock(home.mutex);
      home.count(&group_stats::failed);
      throw;
    }
  }

  template <class Fn>
  using executor_call = std::shared_ptr<detail::executor_call<Key, Value, std::decay_t<Fn>>>;
  template <class Fn>
  using executor_task = detail::executor_task<Key, Value, std::decay_t<Fn>>;

  template <class Call, class K>
  void make_call_on_executor(std::shared_ptr<Call>& made, shard& home, std::uint64_t hash, K&& key)
      SINGLEFLIGHT_REQUIRES(home.mutex) {
    made = std::make_shared<Call>(home, on_executors_, hash, home.make_key(std::forward<K>(key)));
    // A handle from the start, since the wait graph is shown each new leader by way of it.
    home.prepare_wait(made->get(), {.to_leave = true, .to_be_stopped = false, .an_edge = false});
  }

  /// Gives a call that has begun to its executor.
  template <class Call, class Executor, class Fn>
  static void launch(std::shared_ptr<Call> started, Executor&& executor, Fn&& fn) {
    try {
      const detail::leading here;  // until the executor has returned
      started->set_loader(std::forward<Fn>(fn));
      std::forward<Executor>(executor)(executor_task<Fn>(started));
      started->handed_over();
    } catch (...) {
      started->abandon(detail::current_failure());
      if (std::current_exception() == nullptr) throw;  // forced unwinding must go on
    }
  }

  // --- Following ---------------------------------------------------------------------------------

  [[nodiscard]] bool is_full(const call& running) const noexcept {
    return running.followers() >= options_.max_waiters;
  }
  [[nodiscard]] bool must_run_alone(const call& running) const noexcept {
    return is_full(running) && options_.when_full == group_options::run_alone &&
           running.leader != std::this_thread::get_id();  // that would be a recursion without end
  }

  [[nodiscard]] bool ages() const noexcept { return options_.max_age != clock::duration::max(); }
  /// Returns: when the call will be too old; the end of time if calls do not age.
  [[nodiscard]] clock::time_point too_old(const call& running) const noexcept {
    const auto most = clock::time_point::max() - running.began;
    return running.began + std::min(options_.max_age, most);
  }

  /// Makes the caller a follower, or counts it as rejected. Returns: why, or `std::errc()`.
  /// Throws: `std::bad_alloc`, only to this caller.
  std::errc join(shard& home, call& running, const call_options& options, entry& me,
                 waiting& wait) const SINGLEFLIGHT_REQUIRES(home.mutex) {
    if (running.leader == std::this_thread::get_id()) {
      count(home, &group_stats::rejected, me);
      return std::errc::resource_deadlock_would_occur;
    }
    if (is_full(running)) {
      count(home, &group_stats::rejected, me);
      return std::errc::resource_unavailable_try_again;
    }
    wait.too_old = too_old(running);
    wait.place = home.prepare_wait(running, needs(options, wait));
    if (!connect(options, wait)) {
      count(home, &group_stats::rejected, me);
      return std::errc::resource_deadlock_would_occur;
    }
    count(home, &group_stats::joined, me);
    running.shared->joined = true;
    home.wait(running);
    return {};
  }

  [[nodiscard]] static bool has_deadline(const call_options& options) noexcept {
    return options.deadline != clock::time_point::max();
  }

  /// Whether this wait could close a circle: if this thread leads a call, and no deadline ends the
  /// wait. (An end by `max_age` would only begin the same circle anew.)
  [[nodiscard]] static bool could_hang(const call_options& options) noexcept {
    return detail::calls_led_by_this_thread > 0 && !has_deadline(options);
  }

  [[nodiscard]] static detail::wait_needs needs(const call_options& options,
                                                const waiting& wait) noexcept {
    return {.to_leave = has_deadline(options) || wait.too_old != clock::time_point::max(),
            .to_be_stopped = detail::can_be_stopped(options),
            .an_edge = could_hang(options)};
  }

  /// Puts the wait into the wait graph if it could close a circle. Returns: whether it closes none.
  static bool connect(const call_options& options, waiting& wait) noexcept {
    if (!could_hang(options)) return true;
    wait.edge.waiter = std::this_thread::get_id();
    wait.edge.leader = &wait.place.handle->leader;
    wait.in_graph = detail::the_wait_graph().add(wait.edge);
    return wait.in_graph;
  }

  /// Waits for the call to end, or for this caller to leave it.
  /// Returns: the call's result; nothing if this caller is to try again with another call.
  std::optional<result<Value>> await(shard& home, const call_options& options, entry& me,
                                     waiting& wait) const {
    if (wait.began && !connect(options, wait)) {
      leave(home, wait, std::errc::resource_deadlock_would_occur);
    }
    while (!published(home, options, wait)) {
      if (leave(home, wait, reason_to_leave(options, wait))) return std::nullopt;
      wait.too_old =
          clock::time_point::max();  // it has ended, and no newer call is wanted any more
    }
    try {
      wait.place.future.get();
    } catch (...) {
      if (wait.began || ++me.failures >= options.attempts) throw;
      return std::nullopt;
    }
    const bool shared = !wait.began || wait.place.handle->joined;
    if constexpr (std::is_void_v<Value>) {
      return result<void>(shared, wait.began);
    } else {
      return result<Value>(std::move(wait.place.future), shared, wait.began);
    }
  }

  /// Blocks until the result is there or this caller does not want to wait any longer.
  /// Returns: whether it is there.
  static bool published(shard& home, const call_options& options, const waiting& wait) {
    const std::shared_future<Value>& future = wait.place.future;
    const clock::time_point until = std::min(options.deadline, wait.too_old);
    try {
      if (detail::can_be_stopped(options)) {
        return wait.place.handle->stoppable->wait(options, until);
      }
      if (until != clock::time_point::max()) {
        return future.wait_until(until) == std::future_status::ready;
      }
      future.wait();
      return true;
    } catch (...) {  // forced unwinding: this thread is cancelled while it waits
      if (wait.place.handle != nullptr) take_leave(home, wait, std::errc::owner_dead);
      throw;
    }
  }

  /// A caller that leaves for this reason is not refused but goes on with the newer call.
  static constexpr std::errc for_newer_call{};

  [[nodiscard]] static std::errc reason_to_leave(const call_options& options,
                                                 const waiting& wait) noexcept {
    if (detail::was_stopped(options)) return std::errc::operation_canceled;
    return options.deadline <= wait.too_old ? std::errc::timed_out : for_newer_call;
  }

  /// Leaves a call that has no result yet.
  /// Returns: whether this caller has left for a newer call; if not, its result is there or about
  /// to be. Throws: `call_error` with any other reason if it has left.
  static bool leave(shard& home, const waiting& wait, std::errc why) {
    if (!take_leave(home, wait, why)) return false;
    if (why != for_newer_call) refuse(why);
    return true;
  }

  /// Takes this caller off the books. A call that has ended has done so already, and will publish
  /// its result as soon as that is moved, which no deadline or stop request waits for.
  /// Returns: false if this caller is to stay for the result.
  static bool take_leave(shard& home, const waiting& wait, std::errc why) {
    detail::lock lock(home.mutex);
    call* const running = wait.place.handle->running;
    const bool in_a_hurry = why == std::errc::timed_out || why == std::errc::operation_canceled;
    if (running == nullptr && !in_a_hurry) return false;
    if (why == std::errc::timed_out) home.count(&group_stats::timed_out);
    if (why == std::errc::operation_canceled) home.count(&group_stats::cancelled);
    if (running == nullptr) return true;
    if (why == for_newer_call && running->listed()) home.supersede(*running);
    if (wait.began) running->shared->leader_waits = false;
    detail::stop_source unwanted = home.leave(*running);
    lock.unlock();
    unwanted.request_stop();
    return true;
  }

  /// Turns away a caller that comes too late already, without a trace but in the counters.
  static void refuse_if_late(shard& home, const call_options& options, entry& me) {
    const bool stopped = detail::was_stopped(options);
    if (!stopped && !(has_deadline(options) && clock::now() >= options.deadline)) return;
    {
      const detail::lock lock(home.mutex);
      count(home, &group_stats::rejected, me);
      home.count(stopped ? &group_stats::cancelled : &group_stats::timed_out);
    }
    refuse(stopped ? std::errc::operation_canceled : std::errc::timed_out);
  }

  [[noreturn]] static void refuse(std::errc why) {
    const char* reason = "singleflight: the deadline passed before the call ended";
    if (why == std::errc::operation_canceled) {
      reason = "singleflight: the caller was told to stop before the call ended";
    } else if (why == std::errc::resource_deadlock_would_occur) {
      reason = "singleflight: a loader called what waits for it, and would wait for itself";
    } else if (why == std::errc::resource_unavailable_try_again) {
      reason = "singleflight: the call has group_options::max_waiters followers already";
    }
    throw call_error(why, reason);
  }

  // --- Checks ------------------------------------------------------------------------------------

  template <class Fn>
  static constexpr void check_loader() {
    static_assert(detail::is_loader<Fn>,
                  "singleflight: the loader must be callable with no argument or with a "
                  "std::stop_token");
    if constexpr (detail::is_loader<Fn>) {
      using returned =
          decltype(detail::run_loader(std::declval<Fn>(), detail::stop_source_for<Fn>()));
      static_assert(std::is_convertible_v<returned, Value>,
                    "singleflight: what the loader returns must convert to the group's Value");
    }
  }

  template <class K>
  static constexpr void check_key() {
    static_assert(!looks_up_directly<K> || std::is_constructible_v<Key, K>,
                  "singleflight: this key can be looked up, but the caller that leads must make a "
                  "Key of it and cannot");
  }

  template <class Executor, class Fn>
  static constexpr void check_executor() {
    check_loader<std::decay_t<Fn>>();
    static_assert(std::is_constructible_v<std::decay_t<Fn>, Fn>,
                  "singleflight: the call on an executor keeps its loader, so the loader must be "
                  "copyable or given by std::move");
    static_assert(std::is_invocable_v<Executor, executor_task<Fn>>,
                  "singleflight: the executor must be callable with a function object: "
                  "[&](auto task) { pool.post(std::move(task)); }");
  }

  static void check(const call_options& options) {
    if (options.attempts == 0) {
      throw std::invalid_argument("singleflight: call_options::attempts must be at least 1");
    }
  }

  static const group_options& checked(const group_options& options) {
    if (options.shards > max_shards) {
      throw std::invalid_argument(
          "singleflight: group_options::shards must be at most 65536; leave it 0 if in doubt");
    }
    if (options.max_age <= clock::duration::zero()) {
      throw std::invalid_argument(
          "singleflight: group_options::max_age must be more than zero; leave it out for no limit");
    }
    return options;
  }

  // --- Keys and shards ---------------------------------------------------------------------------

  template <class K>
  static constexpr bool looks_up_directly = std::same_as<std::remove_cvref_t<K>, Key> || requires {
    typename Hash::is_transparent;
    typename KeyEqual::is_transparent;
  };

  /// Returns: the key itself if it can be looked up as it is, else a `Key` made of it.
  template <class K>
  static decltype(auto) lookup_key(K&& key) {
    if constexpr (looks_up_directly<K> && std::is_lvalue_reference_v<K>) {
      return std::as_const(key);  // a Key may be made in another way of a Key& than of a const Key&
    } else if constexpr (looks_up_directly<K>) {
      return std::forward<K>(key);
    } else {
      static_assert(std::is_convertible_v<K, Key>,
                    "singleflight: this key is no Key and converts to none; to look up by another "
                    "type, give the group a Hash and a KeyEqual that both have is_transparent");
      return Key(std::forward<K>(key));
    }
  }

  static constexpr std::size_t max_shards = 65'536;

  static unsigned shard_bits(std::size_t wanted) noexcept {
    if (wanted == 0) wanted = 8 * std::size_t{std::max(std::thread::hardware_concurrency(), 1U)};
    return static_cast<unsigned>(std::bit_width(std::min(wanted, max_shards) - 1));
  }

  [[nodiscard]] std::size_t shard_count() const noexcept { return std::size_t{1} << shard_bits_; }

  /// Where the call for a key is listed, if it is.
  struct location {
    shard& home;
    std::uint64_t hash;  // within the shard
  };

  /// The high bits of the mixed hash pick the shard, the ones below them the bucket. In two steps,
  /// since one shift by 64 would be undefined. Throws: what the hash throws.
  template <class K>
  [[nodiscard]] location locate(const K& key) const {
    const std::uint64_t mixed = detail::mix(hash_(key));
    return {shards_[static_cast<std::size_t>(mixed >> 1 >> shard_shift_)], mixed << shard_bits_};
  }

  template <class K, class Condition>
  bool forget_if(K&& key, const Condition& condition) {
    const auto [home, hash] = locate(key);
    const detail::lock lock(home.mutex);
    call* running = home.find(hash, key, equal_);
    if (running == nullptr || !condition(*running)) return false;
    home.unlist(*running);
    return true;
  }

  /// Makes room outside the lock, so that no key is moved or destroyed under it.
  static void append_calls(const shard& from, std::vector<call_info<Key>>& all) {
    for (std::size_t room = 0;;) {
      all.reserve(all.size() + room);
      const detail::lock lock(from.mutex);
      if (from.listed() > room) {
        room = from.listed();
        continue;
      }
      const auto now = std::chrono::steady_clock::now();
      from.for_each([&](const call& c) {
        const auto since = c.waiters() > 0 ? c.shared->waiting_since : now;
        all.emplace_back(c.key, c.waiters(), now - since);
      });
      return;
    }
  }

  const group_options options_;
  const unsigned shard_bits_;
  const unsigned shard_shift_;  // from the top bits, less one
  const std::unique_ptr<shard[]> shards_;
  [[no_unique_address]] const Hash hash_;
  [[no_unique_address]] const KeyEqual equal_;
  detail::drain on_executors_;
};

}  // namespace singleflight::inline v1

#endif  // SINGLEFLIGHT_GROUP_HPP
