// SPDX-License-Identifier: MIT
#ifndef SINGLEFLIGHT_GROUP_HPP
#define SINGLEFLIGHT_GROUP_HPP

#include <algorithm>
#include <chrono>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <future>
#include <initializer_list>
#include <memory>  // std::hash and std::equal_to, too: <functional> costs each user 7,000 lines
#include <new>
#include <optional>
#include <stdexcept>
#include <thread>
#include <type_traits>
#include <utility>
#include <variant>
#include <vector>

#include "async_options.hpp"
#include "batch.hpp"
#include "call_context.hpp"
#include "call_error.hpp"
#include "detail/assert.hpp"
#include "detail/async_wait.hpp"
#include "detail/bulk.hpp"
#include "detail/bulk_loader.hpp"
#include "detail/call.hpp"
#include "detail/call_map.hpp"
#include "detail/callback_wait.hpp"
#include "detail/config.hpp"
#include "detail/executor_call.hpp"
#include "detail/exit.hpp"
#include "detail/follow.hpp"
#include "detail/key.hpp"
#include "detail/lead.hpp"
#include "detail/loader.hpp"
#include "detail/mutex.hpp"
#include "detail/owned_call.hpp"
#include "detail/owned_calls.hpp"
#include "detail/saturating_time.hpp"
#include "detail/shards.hpp"
#include "detail/stoppable_wait.hpp"
#include "detail/traits.hpp"
#include "detail/wait_graph.hpp"
#include "detail/waiter_list.hpp"
#include "detail/watch.hpp"
#include "leader.hpp"
#include "observer.hpp"
#include "options.hpp"
#include "outcome.hpp"
#include "result.hpp"
#include "stats.hpp"
#include "version.hpp"

namespace singleflight::inline SINGLEFLIGHT_ABI {

namespace detail {
/// What coroutines need: defined in coroutine.hpp.
template <class Group>
struct include_singleflight_coroutine_hpp;
template <class Group>
struct include_singleflight_coroutine_hpp_for_many;
struct async_access;
struct bulk_access;
}  // namespace detail

/// Coalesces identical requests that are made at the same time: of all the callers that ask for one
/// key, one runs its loader and the others get what it returns.
///
///     singleflight::group<std::string, template_details> flights;
///
///     template_details get(const std::string& id) {
///       if (auto hit = cache.find(id)) return *hit;
///       // 1,000 threads miss together: one query
///       return flights.do_call(id, [&](const auto& key, const singleflight::call_context& call) {
///         if (auto hit = cache.find(key)) return *hit;
///         auto row = db.load_template(key);
///         if (!call.forgotten()) {  // by a writer, who stores, forgets and then erases
///           cache.put(key, row, 30s);
///           if (call.forgotten()) cache.erase(key);
///         }
///         return row;
///       });
///     }
///
/// A *call* is one execution of a loader for a key. Its *leader* runs the loader: in `do_call` the
/// caller itself, on an executor the thread that runs the task, else whoever has the `leader`. Its
/// *followers* are the callers that joined it and wait. A call is *listed* while new callers can
/// join it.
///
/// The contract:
///
///   1. **One call.** At any instant at most one call per key is listed, and every caller that
///      arrives while it is listed joins it.
///   2. **Never stale.** A call leaves the map before its result is published: a caller that
///      arrives after any caller has received a result never receives that result. This is no
///      cache.
///   3. **Everyone is answered**: with the value, with the very exception object that the loader
///      threw, or with a `call_error`. No caller is left hanging by an exception, by a failed
///      allocation, by an executor that drops the loader, or, where the end of a thread unwinds its
///      frames (glibc with libstdc++), by a thread that exits inside its loader.
///   4. **Each caller owns its own wait.** Its deadline or stop request changes nothing for the
///      others.
///   5. **Unwanted work is stopped.** When the last interested caller leaves, the call is unlisted
///      at the same instant, and then the stop token that its loader took is triggered, once. The
///      loader's stop callbacks run on the thread of that caller, before it returns; where a leader
///      withdraws, on the thread that requests the stop.
///   6. **Identity.** A call unlists itself and nothing else: a call that was forgotten or
///      superseded and ends late does not touch a newer one.
///   7. **No user code under a lock**, except `KeyEqual`, copying or moving a `Key`, and `operator
///      new` with its new-handler. These must not use the same group. Hashes, loaders, values,
///      executors, stop callbacks and destructors run outside and may call the group again.
///   8. **Deadlocks are refused.** A caller whose wait would close a circle, directly or through
///      other keys, threads and groups, gets a `call_error` at once, whatever its deadline.
///   9. **A hung leader does not own its key**, where the group has a `max_age`.
///   10. **No copies, and no allocation when nobody shares.** An unshared call allocates what the
///       copy of its key does and nothing else, unless its loader takes a stop token or runs on an
///       executor. Followers share one value; it is copied only for a caller that takes it by
///       value.
///   11. **One call for all kinds.** Threads, stoppable threads, futures, coroutines, callbacks and
///       Asio handlers lead and follow one call of one key, and share its value or its exception
///       object.
///   12. **The call owns its work**, where an asynchronous caller began it: that caller is one of
///       those that wait, and may leave, be destroyed, or never be resumed, as any other.
///   13. **Callers are resumed where they said.** Those with an executor by a task that it is
///       given, never inside the function that made them enter; those with `resume_inline` by the
///       thread that ends the call, after the threads were woken and the tasks were posted. Many of
///       them, and many calls that end each other, take a bounded stack.
///   14. **Resumed or left.** An asynchronous caller is resumed once, or it has left: never both
///       and never neither, whichever of the end of the call, its stop request and its destruction
///       comes first. A caller that is resumed may stop, destroy or resume any other.
///   15. **No destructor waits for asynchronous calls.** They keep alive what they need of the
///       group; `drained` waits for them.
///   16. **Circles through asynchronous calls are refused**, where the loaders say by
///       `async_options::inside` which call they ask for.
///
/// Thread safety: all members may be called at once from any thread, except the destructor; `Hash`
/// and `KeyEqual` are called as `const` from many threads. What a leader did before its loader
/// returned or threw is visible to every caller that gets that result or exception. An exception is
/// one object for all callers: catch it by `const&`. No member may be called in a signal handler.
///
/// fork (POSIX): the child can use and destroy every group. It has the calls that the forking
/// thread leads, listed or not, without their followers, and no others: their futures fail with
/// `owner_dead`, and their tasks do nothing. `fork` takes the lock of every shard, so it must not
/// be called where those locks are held (see 7).
///
/// Cost: a call that no caller joins takes two uncontended locks and one hash. Where `Key` is a
/// `std::basic_string` with the standard allocator, a shard keeps the buffer of an ended call's
/// key, at most 1,024 bytes, and a copy that fits into it does not allocate either. A follower
/// takes one lock of its shard. The first follower of a call allocates a promise, the first that
/// can leave, or that leads a call itself, one object more, the others nothing. A follower inside a
/// loader takes the lock of the wait graph, which is one for the process, two or three times.
/// Besides, it is taken only by the leader of the call that such a follower waits for and, where
/// the group has a `max_age`, by callers inside a loader. A shard allocates when more calls are in
/// flight in it than ever before.
///
/// Observers: an `Observer` with any of the members that observer.hpp describes is told what
/// becomes of calls and callers. What it lacks costs nothing.
template <class Key, class Value, class Hash = std::hash<Key>, class KeyEqual = std::equal_to<Key>,
          class Observer = no_observer>
class group {
 public:
  using key_type = Key;            ///< The type of a key.
  using value_type = Value;        ///< The type of a value.
  using observer_type = Observer;  ///< The type of the observer.

 private:
  static_assert(std::is_object_v<Key> && std::same_as<Key, std::remove_cv_t<Key>>,
                "singleflight: Key must be an object type, without const and without &");
  static_assert(!detail::is_view<Key>,
                "singleflight: a call may outlive what this Key shows and does not own; make Key a "
                "std::string or another type that owns (to look up by std::string_view, give the "
                "group a Hash and a KeyEqual that both have is_transparent)");
  static_assert(!std::is_reference_v<Value>,
                "singleflight: Value must not be a reference, since results outlive the loader; "
                "use a pointer or std::reference_wrapper");
  static_assert(std::same_as<Value, std::remove_cv_t<Value>> && !std::is_array_v<Value>,
                "singleflight: Value must be void or an object type, without const and no array");
  static_assert(std::is_void_v<Value> || std::is_reference_v<Value> || detail::is_complete<Value>,
                "singleflight: Value is declared but not defined here; define it before the group");
  static_assert(!detail::is_future<Value>,
                "singleflight: Value must not be a future or a promise, which one caller alone can "
                "use; have the loader wait for it and return its value");
  static_assert(std::is_void_v<Value> || std::is_reference_v<Value> ||
                    detail::is_move_constructible<Value>,
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
  static_assert(observer_of<Observer, Key>,
                "singleflight: Observer must be an object that can be moved into the group");

 public:
  /// Makes an empty group.
  /// Throws: `std::invalid_argument` if the options make no sense, `std::bad_alloc`.
  explicit group(group_options options = {}, Hash hash = Hash(), KeyEqual equal = KeyEqual(),
                 Observer observer = Observer())
      : options_(checked(options)),
        shards_(options_.shards),
        hash_(std::move(hash)),
        equal_(std::move(equal)),
        observer_(std::move(observer)) {
    detail::watch_this_thread();
  }

  group(const group&) = delete;  // nor movable: calls in flight point into it
  group& operator=(const group&) = delete;

  /// Precondition: every member function has returned, unless the process is ending: a static group
  /// may be destroyed while calls are in flight, which then end in memory that stays.
  /// Blocks: until no call is left on an executor. A call that its executor neither runs nor drops
  /// blocks without end. Where `std::exit` destroys the group, calls that are queued fail with
  /// `owner_dead`, and it does not block if `std::exit` was called in a loader or an executor. If it
  /// was called under the lock of a shard (see 7), the calls that are queued stay as they are.
  ~group() {
    if (waits_for_all()) return;
    SINGLEFLIGHT_ASSERT(detail::may_be_destroyed_by_exit(this),
                        "a group must outlive the calls that are made through it");
    shards_.keep();
    observer_.keep();
  }

  /// Leads a call for `key`, or follows the one that is listed.
  ///
  /// Effects: if no call for `key` is listed, lists one, runs the loader `fn` on this thread,
  ///   unlists the call and hands its result to the followers. Otherwise waits for the listed call,
  ///   no longer than the options say; `fn` is not invoked.
  /// Returns: the call's result.
  /// Throws: what the loader that ran threw, the same object for every caller of the call;
  ///   `call_error`, which lists its reasons; `std::invalid_argument` for `attempts == 0`, and for
  ///   a number beyond the range of an integer `Key`. What hash, equality, key copy and the
  ///   allocations throw: only to this caller, which then neither leads nor waits.
  /// Blocks: while the loader runs, its own or the leader's. A follower leaves at its deadline or
  ///   stop request, or for a newer call at the group's `max_age`; if it is the last to leave, it
  ///   runs the loader's stop callbacks first. A leader cannot leave: it is running the loader. Its
  ///   stop request withdraws its interest, and it returns when the loader does, with what the
  ///   loader gave. Use `do_call_on` if the first caller must be able to leave.
  /// Complexity: one hash. Leading: two locks, one copy (or move) of the key, and an allocation if
  ///   the loader takes a stop token. Following: one lock of the shard, two if it leaves; three
  ///   more of the call with a stop token; see the class for those inside a loader and for
  ///   allocations.
  /// Lifetime: the call owns its key, so `fn` may move from or destroy what `key` refers to. A key
  ///   that is given by `std::move` is gone when `fn` runs: let `fn` take the key.
  ///
  /// `key` is a `Key` or converts to one without loss; if both `Hash` and `KeyEqual` have
  /// `is_transparent`, it is whatever they take, and a `Key` is made of it only by the caller that
  /// leads. `fn` is callable with one of these, and the first that fits is chosen: `()`,
  /// `(const Key&)`, `(std::stop_token)`, `(const call_context&)`, `(const Key&, std::stop_token)`,
  /// `(const Key&, const call_context&)`. The key that it takes is the call's own. It returns what
  /// converts to `Value`, and returns on the thread on which it was called.
  template <class K = Key, class Fn>
  result<Value> do_call(K&& key, const call_options& options, Fn&& fn) {
    check_loader<Fn>();
    return enter(lookup_key(std::forward<K>(key)), limits_of(options), std::forward<Fn>(fn));
  }

  /// As above, waiting for as long as it takes.
  template <class K = Key, class Fn>
  result<Value> do_call(K&& key, Fn&& fn) {
    check_loader<Fn>();
    return enter(lookup_key(std::forward<K>(key)), no_limits(), std::forward<Fn>(fn));
  }

  /// Refused: the options come before the loader.
  template <class K = Key, class Fn>
  void do_call(K&&, Fn&&, const call_options&) {
    static_assert(detail::always_false<Fn>,
                  "singleflight: the options come before the loader: do_call(key, options, fn)");
  }

  /// As `do_call`, but if this caller begins the call, the loader runs on `executor` and this
  /// caller waits like everybody else, so that it can leave, too. It does not
  /// leave for a newer call at `max_age`.
  ///
  /// An executor is callable with a copyable function object that takes nothing:
  /// `[&](auto task) { boost::asio::post(pool, std::move(task)); }`. It may run the task at once,
  /// later or elsewhere, and returns without waiting for it; to invoke the task again does nothing.
  /// If the executor throws, the call fails with that exception; if it drops the task, with
  /// `owner_dead`. A task that is run when every caller has left does not run the loader any more.
  /// Until the executor returns, its thread counts as the call's leader.
  ///
  /// Throws: as `do_call`. What copying `fn` throws fails the call, for everybody.
  /// Complexity: as `do_call`; to begin a call takes one allocation more than its promise, and at
  ///   most eight locks, four of them of the shard.
  /// Lifetime: the call owns its loader, a copy of `fn` (or `fn`, moved), and destroys it when it
  ///   ends, which the group's destructor waits for. So the loader must not own the group.
  ///   Arguments are evaluated in no order: a loader that captures the key by `std::move` in the
  ///   same expression leaves an empty key to look up. Let it take the key instead.
  template <class K = Key, class Executor, class Fn>
  result<Value> do_call_on(K&& key, Executor&& executor, const call_options& options, Fn&& fn) {
    check_executor<Executor, Fn>();
    return enter_on(lookup_key(std::forward<K>(key)), limits_of(options),
                    std::forward<Executor>(executor), std::forward<Fn>(fn));
  }

  /// Begins a call for `key` on an executor, or joins the one that is listed, and waits for
  /// neither. This caller stays interested until the call ends, so the call is not stopped while
  /// others leave.
  /// Returns: the future of the call's result, which does not refer to the group.
  /// Throws: `call_error` with `resource_unavailable_try_again` if the call is full and the group
  ///   rejects; what hash, equality, key copy and allocations throw. What the executor throws is in
  ///   the future.
  /// Complexity: to join, one hash and one lock; to begin, as `do_call_on`.
  /// Lifetime: as `do_call_on`. To wait for the future inside a loader escapes the search for
  ///   circles.
  template <class K = Key, class Executor, class Fn>
  [[nodiscard]] std::shared_future<Value> do_async(K&& key, Executor&& executor, Fn&& fn) {
    check_executor<Executor, Fn>();
    return enter_async(lookup_key(std::forward<K>(key)), std::forward<Executor>(executor),
                       std::forward<Fn>(fn));
  }

  /// Asks for many keys at once: those that nobody loads are loaded by one invocation of `fn`, the
  /// calls of the others are joined, whoever leads them.
  ///
  /// Effects: each key is that of a call as `do_call` begins or joins it, and the options hold for
  ///   each. Of equal keys only one is looked up, and they share one outcome. `fn` is invoked on
  ///   this thread, with the keys of which this caller leads the calls; not if there are none; once
  ///   for every `max_batch` of them, and again for keys that may be tried again. When it returns,
  ///   keys that it has not settled fail with `no_such_file_or_directory`; if it throws, with what
  ///   it threw. After that the calls that were joined are waited for.
  /// Returns: an outcome for each position of `keys`.
  /// Throws: `std::invalid_argument` if `attempts` or `max_batch` is 0; what hash, equality, key
  ///   copy and allocations throw while the keys are read. No call has begun then. Later exceptions
  ///   are outcomes.
  /// Blocks: as `do_call`. No call of this caller is open while it waits for those of others, so
  ///   callers whose keys overlap do not wait for each other.
  /// Complexity: to enter, one hash and one copy of each key, and one lock of each shard that has
  ///   one of them; to settle a key, one lock, or one for each shard where `rest` settles them. No
  ///   allocation for each key but what its copy takes and, where it is mentioned twice, a promise;
  ///   as `do_call` for calls that are joined.
  ///
  /// `keys` is a range that can be iterated over twice, of what `do_call` takes as a key: a
  /// container, a braced list, a view. `fn` is callable with `batch<Key, Value>&`, or with that and
  /// a `const call_context&`. It settles keys by the members of the batch, or returns a range of
  /// pairs of a key and its value. It is called as an lvalue.
  template <class Keys = std::initializer_list<Key>, class Fn>
  [[nodiscard]] std::vector<outcome<Value>> do_many(Keys&& keys, const bulk_options& options,
                                                    Fn&& fn) {
    detail::check_bulk_loader<std::remove_reference_t<Fn>, Key, Value>();
    return detail::bulk<group, Key, Value>(*this, keys, limits_of(options.call),
                                           max_batch_of(options))
        .run(fn);
  }

  /// As above, waiting for as long as it takes.
  template <class Keys = std::initializer_list<Key>, class Fn>
  [[nodiscard]] std::vector<outcome<Value>> do_many(Keys&& keys, Fn&& fn) {
    return do_many(std::forward<Keys>(keys), bulk_options{}, std::forward<Fn>(fn));
  }

  /// As above, with the loader on `executor`, so that this caller can leave while it runs.
  ///
  /// `executor` is as in `do_call_on`; it is called once for every batch, the next one when all
  /// calls of the one before have ended. Keys that all callers have left before the loader could
  /// begin are not in its batch.
  /// Throws: as above; what copying `fn` throws fails the calls of its batch.
  /// Complexity: as above; to begin a call takes one more copy of its key, three allocations more
  ///   than its promise, and ten locks.
  /// Lifetime: each batch has a copy of `fn`, which is destroyed when it has been run. So the
  ///   loader must not own the group, nor refer to what is gone when this caller has left.
  template <class Keys = std::initializer_list<Key>, class Executor, class Fn>
  [[nodiscard]] std::vector<outcome<Value>> do_many_on(Keys&& keys, Executor&& executor,
                                                       const bulk_options& options, Fn&& fn) {
    using stored = std::decay_t<Fn>;
    detail::check_bulk_loader<stored, Key, Value>();
    static_assert(std::copy_constructible<stored>,
                  "singleflight: each batch on an executor keeps its loader, so the loader must be "
                  "copyable");
    return detail::bulk<group, Key, Value>(*this, keys, limits_of(options.call),
                                           max_batch_of(options))
        .template run_on<Executor, stored>(executor, fn);
  }

  // --- Callers that are not threads
  // ---------------------------------------------------------------- The calls are the same:
  // threads, futures, coroutines and callbacks lead and follow one call of one key. An asynchronous
  // call, one that is begun by a member below, belongs to nobody's frame: the caller that began it
  // is one of those that wait for it.

  /// Makes the caller follow the listed call of `key`, or begin one, and returns without waiting.
  ///
  /// Effects: if no call for `key` is listed, lists one and calls `start(leader<Value>)` on this
  ///   thread, outside all locks: whatever becomes of the leader ends the call. If `start` throws,
  ///   the call fails with that exception. When the call has ended, or this caller has left it,
  ///   `on` runs `done(outcome<Value>)`, once: with the result, or with what `do_call` would throw.
  /// `on` is an executor as in `do_call_on`, and `done` runs in the task that it is given, never in
  ///   here; or it is `resume_inline`: then `done` runs on the thread that ends the call or
  ///   requests the stop, which may be this one, in here. `done` must not throw. If the executor
  ///   throws, `done` runs where the executor was called; if it drops the task, `done` is destroyed
  ///   without being called.
  /// Throws: what hash, equality, key copy and allocations throw; then `done` is not called.
  ///   `std::invalid_argument` for `attempts == 0`.
  /// Blocks: while `start` runs. Complexity: one hash; to join, two locks; to begin, three, two of
  ///   them of the shard, or one if the call ends while `start` runs. One allocation for the caller
  ///   and one for a call that it begins.
  /// Lifetime: the call keeps alive what it needs of the group, which may be destroyed before it
  ///   has ended: see `drained`.
  template <class K = Key, class On, class Start, class Done>
  void async_call(K&& key, On&& on, const async_options& options, Start&& start, Done&& done) {
    check_resumption<On>();
    static_assert(std::is_invocable_v<std::decay_t<Start>, leader<Value>>,
                  "singleflight: start must be callable with a leader<Value>");
    static_assert(std::is_invocable_v<std::decay_t<Done>, outcome<Value>>,
                  "singleflight: done must be callable with an outcome<Value>");
    using wait =
        detail::callback_wait<group, std::decay_t<On>, std::decay_t<Start>, std::decay_t<Done>>;
    refuse_bad(options);
    wait::enter(std::make_shared<wait>(*this, Key(lookup_key(std::forward<K>(key))),
                                       std::forward<On>(on), options, std::forward<Start>(start),
                                       std::forward<Done>(done)));
  }

  /// As `do_call`, for a coroutine: `co_await flights.co_call(key, on, load)` gives a
  /// `result<Value>`, or throws as `do_call` does. Needs <singleflight/coroutine.hpp>, which says
  /// the rest. Nothing happens before it is awaited.
  template <class K = Key, class On, class Load>
  [[nodiscard]] auto co_call(K&& key, On&& on, const async_options& options, Load&& load) {
    refuse_bad(options);
    return make_co_call(std::forward<K>(key), std::forward<On>(on), options,
                        std::forward<Load>(load));
  }

  /// As above, with no options.
  template <class K = Key, class On, class Load>
  [[nodiscard]] auto co_call(K&& key, On&& on, Load&& load) {
    return make_co_call(std::forward<K>(key), std::forward<On>(on), detail::no_options{},
                        std::forward<Load>(load));
  }

  /// Refused: a coroutine says where it is resumed.
  template <class K = Key, class Load>
  void co_call(K&&, Load&&) {
    static_assert(
        detail::always_false<Load>,
        "singleflight: say where the coroutine is resumed: co_call(key, on, load), where on "
        "is an executor or singleflight::resume_inline");
  }
  /// Refused: nothing here could keep a deadline. (Constrained, so that braces mean
  ///   `async_options`.)
  template <class K = Key, class On, std::same_as<call_options> Options, class Load>
  void co_call(K&&, On&&, const Options&, Load&&) {
    static_assert(
        detail::always_false<Load>,
        "singleflight: a coroutine takes async_options, which have no deadline, since the "
        "library has no timer: request a stop by a timer of yours, or use async_call of "
        "<singleflight/asio.hpp> or <singleflight/boost_asio.hpp>, which have one");
  }

  /// As `do_many`, for a coroutine: `co_await flights.co_call_many(keys, on, load)` gives a
  /// `std::vector<outcome<Value>>`, an outcome for each position of `keys`. Needs
  /// <singleflight/coroutine.hpp>.
  ///
  /// Effects: the keys are read here; nothing else happens before it is awaited. Then each is that
  ///   of a call as `co_call` begins or joins it. `load` is invoked once for those of which this
  ///   caller has begun the calls, at most `max_batch` at a time, on the thread of the coroutine;
  ///   it is a loader of `do_many`, or returns what can be awaited and gives nothing or a range of
  ///   pairs of a key and its value. Its batch lives until that is done. The coroutine is resumed
  ///   when all keys are answered, as one that awaits `co_call`. If it is destroyed before, it is
  ///   as if it had been stopped.
  /// Throws: as `do_many`, while the keys are read. Later exceptions are outcomes.
  /// Complexity: as `async_call` for each key. Lifetime: each batch has a copy of `load`. The group
  ///   must live until all keys have been asked for, or while one of them may be tried again; hash
  ///   and equality are copied.
  template <class Keys = std::initializer_list<Key>, class On, class Load>
  [[nodiscard]] auto co_call_many(Keys&& keys, On&& on, const async_bulk_options& options,
                                  Load&& load) {
    check_resumption<On>();
    detail::check_copied_bulk_loader<std::decay_t<Load>, Key, Value>();
    refuse_bad(options.call);
    max_batch_of(options);
    return detail::include_singleflight_coroutine_hpp_for_many<group>::call(
        *this, keys, std::forward<On>(on), options, std::forward<Load>(load));
  }

  /// As above, with no options.
  template <class Keys = std::initializer_list<Key>, class On, class Load>
  [[nodiscard]] auto co_call_many(Keys&& keys, On&& on, Load&& load) {
    return co_call_many(std::forward<Keys>(keys), std::forward<On>(on), async_bulk_options{},
                        std::forward<Load>(load));
  }

  /// Follows the listed call of `key` and waits for it, as `do_call` does, or begins one and
  /// returns at once.
  /// Returns: the result; or the leader of a new call, which whoever has it is to end, on any
  ///   thread. While it is in flight, this caller counts as interested.
  /// Throws: as `do_call`. The options are those of a wait: they do not affect a caller that leads.
  /// Complexity: as `do_call`; to begin a call takes an allocation and two locks, to end it one.
  template <class K = Key>
  [[nodiscard]] std::variant<result<Value>, leader<Value>> lead_or_follow(
      K&& key, const call_options& options = {}) {
    return enter_or_lead(lookup_key(std::forward<K>(key)), limits_of(options));
  }

  /// Returns: an awaitable that is ready at an instant when no asynchronous call is in flight.
  ///   Needs <singleflight/coroutine.hpp>. Its coroutine is resumed inline by the thread that has
  ///   ended the last of them, after all others that waited for it, and may destroy the group.
  [[nodiscard]] auto drained() {
    return detail::include_singleflight_coroutine_hpp<group>::drained(shards_.owned());
  }

  /// Waits until no asynchronous call is in flight.
  /// Blocks: without end if it is called where such a call is to be ended. Throws:
  ///   `std::bad_alloc`.
  void wait_drained() {
    const std::shared_ptr<detail::waiter_list> last = shards_.owned().until_drained();
    if (last == nullptr) return;
    detail::thread_waiter me(*last);
    static_cast<void>(me.wait_until((clock::time_point::max)()));
  }

  // --- For all callers ---------------------------------------------------------------------------

  /// Unlists the call for `key`, so that the next caller starts a new one: for a writer that wants
  /// no later reader to get what was read before its write. The call goes on, and those who have
  /// joined it get its result.
  /// Returns: whether a call was listed.
  /// Throws: what hash and equality throw.
  /// Complexity: one hash, one lock.
  template <class K = Key>
  bool forget(K&& key) {
    return forget_if(lookup_key(std::forward<K>(key)), [](const call&) { return true; });
  }

  /// As `forget`, but only if no caller has joined the call: if it returns true, no caller has
  /// joined or will join the call.
  /// Returns: whether a call was unlisted.
  template <class K = Key>
  bool forget_unshared(K&& key) {
    return forget_if(lookup_key(std::forward<K>(key)), [](const call& c) { return !c.joined(); });
  }

  /// Returns: the counters and gauges, each shard's read at one instant.
  /// Complexity: one lock per shard.
  [[nodiscard]] group_stats stats() const {
    group_stats sum;
    for (const shard& s : shards_.all()) {
      const detail::lock lock(s.mutex);
      sum += s.stats();
    }
    return sum;
  }

  /// Returns: the listed calls, each shard's read at one instant, in no order.
  /// Throws: `std::bad_alloc`, what copying a `Key` throws.
  /// Complexity: linear in the calls and the shards. One lock per shard, held while its keys are
  ///   copied, and one more each time that the memory at hand is too little for them.
  [[nodiscard]] std::vector<call_info<Key>> in_flight()
      const requires std::copy_constructible<Key> {
    std::vector<call_info<Key>> all;
    for (const shard& s : shards_.all()) append_calls(s, all);
    return all;
  }

  /// Returns: the observer, which calls may be using at the same time.
  [[nodiscard]] auto& observer() const noexcept { return observer_.get(); }

 private:
  friend struct detail::async_access;
  friend struct detail::bulk_access;
  template <class, class, class>
  friend class detail::bulk;
  template <class, class, class, class>
  friend class detail::executor_batch;

  using call = detail::call<Key, Value>;
  using shard = detail::call_map<Key, Value>;
  using waiter = detail::waiter<Key, Value, typename detail::watch<Observer, Key>::note>;
  using limits = detail::wait_limits;
  using entry = detail::entry;
  using watch = detail::watch<Observer, Key>;
  using bulk_watch = detail::bulk_watch<Observer, Key, Value>;
  using owned_call = detail::owned_call<Key, Value>;
  using async_wait = detail::async_wait<Key, Value>;
  using clock = std::chrono::steady_clock;
  template <class Fn>
  using executor_call_ptr = detail::executor_call_ptr<Key, Value, Fn>;

  /// In the place of `limits`, so that a leader without options checks nothing.
  struct no_limits {};
  [[nodiscard]] static const limits& limits_to_wait(const limits& given) noexcept { return given; }
  [[nodiscard]] static limits limits_to_wait(no_limits) noexcept {
    // Never destroyed: groups may be used by the destructors of other statics.
    alignas(call_options) static std::byte room[sizeof(call_options)];
    static const call_options& none = *::new (static_cast<void*>(room)) call_options;
    return limits(none);
  }

  // --- Entering ----------------------------------------------------------------------------------
  // Each way in looks for a call to join, and begins one if there is none, under one lock.

  /// Leads a call here, or follows one; once, or several times if that call fails or grows too old
  /// and the caller may try again.
  template <class K, class Limits, class Fn>
  result<Value> enter(K&& key, const Limits& given, Fn&& fn) {
    const auto [home, hash] = shards_.locate(hash_(key));
    watch seen(observer_);
    [[maybe_unused]] const auto telling = seen.tells_superseded(key);
    for (entry me;;) {
      seen.enters(me);
      if constexpr (std::same_as<Limits, limits>) {
        detail::refuse_if_late(home, given, me, [&](auto why) { seen.tell_refused(key, why); });
      }
      detail::lock lock(home.mutex);
      call* const running = joinable(home, hash, key, seen);
      if (running == nullptr || must_run_alone(*running)) {
        call own(hash, home.make_key(std::forward<K>(key)), std::this_thread::get_id(),
                 detail::stop_source_for<Fn, Key>());
        if constexpr (detail::takes_context<Fn, Key>) own.forgets_before = home.forgets();
        seen.begins(own, running);
        begin(home, own, running, me);
        lock.unlock();
        if constexpr (watch::tells) {
          return seen.lead(own, [&, &at = home] {
            if constexpr (std::same_as<Limits, limits>) {
              return detail::lead(at, own, given.options(), std::forward<Fn>(fn),
                                  seen.on_withdrawal());
            } else {
              return detail::lead(at, own, std::forward<Fn>(fn));
            }
          });
        } else if constexpr (std::same_as<Limits, limits>) {
          return detail::lead(home, own, given.options(), std::forward<Fn>(fn));
        } else {
          return detail::lead(home, own, std::forward<Fn>(fn));
        }
      }
      const limits& wanted = limits_to_wait(given);
      waiter wait(wanted);
      const auto refusal = join(home, *running, wait, me, seen);
      lock.unlock();
      if (refusal) refuse(key, *refusal, seen);
      if (auto answer = seen.follow(key, wait, home, me)) return *std::move(answer);
    }
  }

  /// The same with the loader on an executor.
  template <class K, class Executor, class Fn>
  result<Value> enter_on(K&& key, const limits& given, Executor&& executor, Fn&& fn) {
    const auto [home, hash] = shards_.locate(hash_(key));
    watch seen(observer_);
    [[maybe_unused]] const auto telling = seen.tells_superseded(key);
    for (entry me;;) {
      seen.enters(me);
      detail::refuse_if_late(home, given, me, [&](auto why) { seen.tell_refused(key, why); });
      executor_call_ptr<Fn> started;  // before the lock: it owns a key, and is destroyed unlocked
      waiter wait(given);
      detail::lock lock(home.mutex);
      call* const running = joinable(home, hash, key, seen);
      if (running == nullptr || must_run_alone(*running)) {
        detail::make_executor_call(started, home, shards_.owned(), hash, std::forward<K>(key),
                                   seen);
        seen.begins(*started, running);
        wait.attend(home, started);
        started->begin(home, started);
        begin(home, started->get(), running, me);
        lock.unlock();
        seen.tell_began_elsewhere(*started);
        detail::launch(std::move(started), std::forward<Executor>(executor), std::forward<Fn>(fn));
        return *seen.wait_for_own(wait, home, me);  // never empty: it leaves it for no newer call
      }
      const auto refusal = join(home, *running, wait, me, seen);
      lock.unlock();
      if (refusal) refuse(key, *refusal, seen);
      if (auto answer = seen.follow(key, wait, home, me)) return *std::move(answer);
    }
  }

  /// Begins a call on an executor, or joins the one that is listed, without waiting.
  template <class K, class Executor, class Fn>
  std::shared_future<Value> enter_async(K&& key, Executor&& executor, Fn&& fn) {
    const auto [home, hash] = shards_.locate(hash_(key));
    entry me;
    watch seen(observer_);
    [[maybe_unused]] const auto telling = seen.tells_superseded(key);
    executor_call_ptr<Fn> started;  // before the lock: it owns a key, and is destroyed unlocked
    detail::lock lock(home.mutex);
    call* const running = joinable(home, hash, key, seen);
    if (running == nullptr || must_run_alone(*running)) {
      detail::make_executor_call(started, home, shards_.owned(), hash, std::forward<K>(key), seen);
      seen.begins(*started, running);
      std::shared_future<Value> future = started->prepare_future(started, {}).future;
      started->begin(home, started);
      begin(home, started->get(), running, me);
      lock.unlock();
      seen.tell_began_elsewhere(*started);
      detail::launch(std::move(started), std::forward<Executor>(executor), std::forward<Fn>(fn));
      return future;
    }
    if (running->followers() >= options_.max_waiters) {
      me.count(home, &group_stats::rejected);
      lock.unlock();
      refuse(key, detail::reason::full, seen);
    }
    std::shared_future<Value> future = home.make_ticket(*running, {}).future;
    me.count(home, &group_stats::joined);
    home.add_follower(*running);
    seen.joins(*running);
    lock.unlock();
    seen.tell_joined(key, true);
    return future;
  }

  /// Follows a call, or begins one that somebody else is to end.
  template <class K>
  std::variant<result<Value>, leader<Value>> enter_or_lead(K&& key, const limits& given) {
    const auto [home, hash] = shards_.locate(hash_(key));
    watch seen(observer_);
    [[maybe_unused]] const auto telling = seen.tells_superseded(key);
    for (entry me;;) {
      seen.enters(me);
      detail::refuse_if_late(home, given, me, [&](auto why) { seen.tell_refused(key, why); });
      std::shared_ptr<owned_call> begun;  // before the lock: it owns a key
      waiter wait(given);
      detail::lock lock(home.mutex);
      call* const running = joinable(home, hash, key, seen);
      if (running == nullptr || must_run_alone(*running)) {
        begun = make_owned(home, hash, std::forward<K>(key), seen);
        seen.begins(*begun, running);
        begun->begin(home, begun);
        begin(home, begun->get(), running, me);
        lock.unlock();
        seen.tell_began_elsewhere(*begun);
        begun->started();
        return detail::leader_maker::make<Value>(std::move(begun));
      }
      const auto refusal = join(home, *running, wait, me, seen);
      lock.unlock();
      if (refusal) refuse(key, *refusal, seen);
      if (auto answer = seen.follow(key, wait, home, me)) return *std::move(answer);
    }
  }

  /// Makes an asynchronous caller follow a call, or begin one.
  /// Returns: what has become of it.
  template <class K>
  detail::entered enter_for(async_wait& wait, K&& key) {
    const auto [home, hash] = shards_.locate(hash_(key));
    watch seen(observer_);
    [[maybe_unused]] const auto telling = seen.tells_superseded(key);
    seen.enters(wait.me);
    if constexpr (watch::tells) {
      auto teller = seen.make_teller(key);
      const bool finishes_here = !std::exchange(wait.finishes, true);
      detail::lock lock(home.mutex);
      const detail::entered now = enter_told(wait, home, hash, key, seen, teller);
      lock.unlock();
      if (finishes_here) wait.finishes = false;
      if (now == detail::entered::ready) seen.tell_refused(key, wait.refused_for());
      if (now == detail::entered::begun) seen.tell_began_elsewhere(wait.begun_here());
      if (now != detail::entered::waits) return now;
      seen.tell_joined(key);
      return finishes_here ? wait.finish_start() : now;
    } else {
      const detail::lock lock(home.mutex);
      return enter_locked(wait, home, hash, key, seen);
    }
  }

  /// Enters, and gives the caller what is to tell of the end of its wait.
  template <class K, class Teller>
  detail::entered enter_told(async_wait& wait, shard& home, std::uint64_t hash, K&& key,
                             watch& seen, Teller& teller) SINGLEFLIGHT_REQUIRES(home.mutex) {
    const detail::entered now = enter_locked(wait, home, hash, key, seen);
    if (now != detail::entered::ready) {
      wait.teller = seen.arm(std::move(teller), now == detail::entered::begun);
    }
    return now;
  }

  template <class K>
  detail::entered enter_locked(async_wait& wait, shard& home, std::uint64_t hash, K&& key,
                               watch& seen) SINGLEFLIGHT_REQUIRES(home.mutex) {
    std::optional<detail::reason> refusal = wait.was_stopped();
    if (!refusal) {  // else before anything that others could notice
      call* const running = joinable(home, hash, key, wait.inside(), seen);
      if (running == nullptr || must_run_alone(*running, wait.inside())) {
        wait.prepare(make_owned(home, hash, std::forward<K>(key), seen));
        owned_call& own = wait.begun_here();
        seen.begins(own, running);
        refusal = wait.attend(home);
        if (!refusal) {
          own.begin(home, wait.begun());
          begin(home, own.get(), running, wait.me);
          return detail::entered::begun;
        }
      } else {
        refusal =
            wait.join(home, *running, options_.max_waiters, shards_.alive(), expiry(*running));
        seen.joins(*running);
      }
    }
    wait.me.count(home, refusal ? &group_stats::rejected : &group_stats::joined);
    if (!refusal) return detail::entered::waits;
    if (*refusal == detail::reason::stop) home.count(&group_stats::cancelled);
    if (*refusal == detail::reason::deadline) home.count(&group_stats::timed_out);
    wait.refuse(*refusal);
    return detail::entered::ready;
  }

  template <class K, class On, class Options, class Load>
  [[nodiscard]] auto make_co_call(K&& key, On&& on, const Options& options, Load&& load) {
    check_resumption<On>();
    return detail::include_singleflight_coroutine_hpp<group>::template call<On, Load>(
        *this, Key(lookup_key(std::forward<K>(key))), std::forward<On>(on), options,
        std::forward<Load>(load));
  }

  template <class K>
  [[nodiscard]] std::shared_ptr<owned_call> make_owned(shard& home, std::uint64_t hash, K&& key,
                                                       const watch& seen)
      SINGLEFLIGHT_REQUIRES(home.mutex) {
    return seen.template make<owned_call>(home, shards_.owned(), hash,
                                          home.make_key(std::forward<K>(key)),
                                          detail::no_stop_source(), false, shards_.alive());
  }

  template <class K>
  [[noreturn]] static void refuse(const K& key, detail::reason why, watch& seen) {
    seen.tell_refused(key, why);
    detail::throw_call_error(why);
  }

  /// Returns: the call to join, or null. A call that is too old is not joined; it leaves the map.
  /// One that waits for this thread is returned all the same: to begin it anew inside itself would
  /// be a recursion without end.
  template <class K, class Seen = detail::no_note>
  call* joinable(shard& home, std::uint64_t hash, const K& key, Seen&& seen = {})
      SINGLEFLIGHT_REQUIRES(home.mutex) {
    call* const running = home.find(hash, key, equal_);
    if (running == nullptr || !ages() || clock::now() < expiry(*running) ||
        waits_for_this_thread(*running)) {
      return running;
    }
    home.supersede(*running);
    seen.supersedes(*running);
    return nullptr;
  }

  /// As above, for a caller inside another call, or in none: nor if the call waits for that one.
  template <class K>
  call* joinable(shard& home, std::uint64_t hash, const K& key, const detail::wait_node* inside,
                 watch& seen) SINGLEFLIGHT_REQUIRES(home.mutex) {
    if (inside != nullptr && ages()) {
      call* const running = home.find(hash, key, equal_);
      if (running != nullptr && detail::waits_for(*running, *inside)) return running;
    }
    return joinable(home, hash, key, seen);
  }

  /// Whether a caller runs its own loader beside a call that is full. Not if this thread leads
  /// that, or it waits for the call `inside`: see `joinable`.
  [[nodiscard]] bool must_run_alone(const call& running,
                                    const detail::wait_node* inside = nullptr) const noexcept {
    return options_.when_full == group_options::run_alone &&
           running.followers() >= options_.max_waiters && !is_led_here(running) &&
           !(inside != nullptr && detail::waits_for(running, *inside));
  }

  [[nodiscard]] static bool is_led_here(const call& running) noexcept {
    return running.leader == std::this_thread::get_id();
  }

  /// Whether this thread leads the call, or its leader waits for this thread inside the loader.
  [[nodiscard]] static bool waits_for_this_thread(const call& running) noexcept {
    return is_led_here(running) ||
           (detail::calls_led_by_this_thread > 0 &&
            detail::the_wait_graph().waits_for(running.leader, std::this_thread::get_id()));
  }

  [[nodiscard]] bool ages() const noexcept { return options_.max_age != (clock::duration::max)(); }
  /// Returns: when the call will be too old; the end of time if calls do not age.
  [[nodiscard]] clock::time_point expiry(const call& running) const noexcept {
    return ages() ? detail::later(running.began, options_.max_age) : (clock::time_point::max)();
  }

  /// Begins a call: listed, or unlisted beside a listed one that is full.
  void begin(shard& home, call& own, const call* running, detail::account& me) const
      SINGLEFLIGHT_REQUIRES(home.mutex) {
    if (ages()) own.began = clock::now();
    home.begin(own);
    if (running == nullptr) {
      home.list(own);
    } else {
      home.leave_unlisted(own);
    }
    me.count(home, running == nullptr ? &group_stats::led : &group_stats::rejected);
  }

  /// Makes the caller a follower, or counts it as rejected. Returns: why, or nothing.
  /// Throws: `std::bad_alloc`, only to this caller.
  template <class Waiter, class Seen = detail::no_note>
  std::optional<detail::reason> join(shard& home, call& running, Waiter& wait, entry& me,
                                     Seen&& seen = {}) const SINGLEFLIGHT_REQUIRES(home.mutex) {
    const auto refusal = wait.join(home, running, options_.max_waiters, expiry(running));
    me.count(home, refusal ? &group_stats::rejected : &group_stats::joined);
    seen.joins(running);
    return refusal;
  }

  /// Returns: a key among those that a caller asks for, or null.
  [[nodiscard]] detail::bulk_key<Key, Value>* find_in(const detail::bulk_keys<Key, Value>& keys,
                                                      const Key& key) {
    return keys.find(shards_.locate(hash_(key)).hash, key, equal_);
  }

  template <class K, class Condition>
  bool forget_if(K&& key, const Condition& condition) {
    const auto [home, hash] = shards_.locate(hash_(key));
    const detail::lock lock(home.mutex);
    call* const running = home.find(hash, key, equal_);
    if (running != nullptr && !condition(*running)) return false;
    home.forget();
    if (running == nullptr) return false;
    home.unlist(*running);
    return true;
  }

  /// Makes room outside the lock, so that no key is moved or destroyed under it, and at least twice
  /// as much as before, so that no key is moved often.
  static void append_calls(const shard& from, std::vector<call_info<Key>>& all) {
    for (std::size_t needed = 0;;) {
      if (needed > all.capacity()) all.reserve((std::max)(needed, 2 * all.capacity()));
      const detail::lock lock(from.mutex);
      needed = all.size() + from.listed();
      if (needed > all.capacity()) continue;
      const auto now = clock::now();
      from.for_each(
          [&](const call& c) { all.emplace_back(c.key, c.waiters(), now - c.waiting_since(now)); });
      return;
    }
  }

  /// Waits for the calls on executors. Returns: whether nobody uses the shards any more.
  [[nodiscard]] bool waits_for_all() noexcept {
    detail::owned_calls& owned = shards_.owned();
    if (!owned.empty()) {
      const bool none_left = !detail::is_in_exit()
                                 ? owned.wait()
                                 : in_flight_at_end() != unknown && owned.end_at_exit();
      if (!none_left) return false;
    }
    const std::size_t asynchronous = owned.asynchronous();  // first: they end meanwhile
    return in_flight_at_end() <= asynchronous;
  }

  static constexpr auto unknown = static_cast<std::size_t>(-1);

  /// Returns: how many calls are in flight, or `unknown` if this thread has ended the process in
  /// user code under the lock of a shard: it would wait there for itself.
  [[nodiscard]] std::size_t in_flight_at_end() const noexcept SINGLEFLIGHT_NOT_ANALYSED {
    std::size_t sum = 0;
    for (const shard& s : shards_.all()) {
      if (!s.mutex.lock_unless_held()) {
        if (detail::may_be_destroyed_by_exit(this)) return unknown;
        s.mutex.lock();
      }
      sum += s.stats().in_flight;
      s.mutex.unlock();
    }
    return sum;
  }

  // --- Checks ------------------------------------------------------------------------------------

  template <class K>
  [[nodiscard]] static decltype(auto) lookup_key(K&& key) {
    return detail::lookup_key<Key, Hash, KeyEqual>(std::forward<K>(key));
  }

  template <class Fn>
  static constexpr void check_loader() {
    static_assert(detail::is_loader<Fn, Key>,
                  "singleflight: the loader must be callable with nothing, the key, a "
                  "std::stop_token, a const call_context&, or the key and one of the last two");
    if constexpr (detail::is_loader<Fn, Key>) {
      using returned = decltype(detail::invoke_loader(
          std::declval<Fn>(), std::declval<const Key&>(), std::declval<detail::token_function&>(),
          std::declval<detail::context_function&>()));
      static_assert(std::is_convertible_v<returned, Value>,
                    "singleflight: what the loader returns must convert to the group's Value");
    }
  }

  template <class Executor, class Fn>
  static constexpr void check_executor() {
    check_loader<std::decay_t<Fn>>();
    static_assert(std::is_constructible_v<std::decay_t<Fn>, Fn>,
                  "singleflight: the call on an executor keeps its loader, so the loader must be "
                  "copyable or given by std::move");
    static_assert(
        std::is_invocable_v<Executor, detail::executor_task<Key, Value, std::decay_t<Fn>>>,
        "singleflight: the executor must be callable with a function object: "
        "[&](auto task) { pool.post(std::move(task)); }");
  }

  template <class On>
  static constexpr void check_resumption() {
    static_assert(
        std::same_as<std::decay_t<On>, resume_inline_t> ||
            std::is_invocable_v<std::decay_t<On>&, detail::any_task>,
        "singleflight: say where the caller is resumed: by an executor, which is callable "
        "with a function object, or singleflight::resume_inline");
  }

  static void refuse_bad(const async_options& options) {
    if (options.attempts == 0) {
      throw std::invalid_argument("singleflight: async_options::attempts must be at least 1");
    }
  }

  [[nodiscard]] static limits limits_of(const call_options& options) {
    if (options.attempts == 0) {
      throw std::invalid_argument("singleflight: call_options::attempts must be at least 1");
    }
    return limits(options);
  }

  template <class Options>
  static std::size_t max_batch_of(const Options& options) {
    if (options.max_batch == 0) {
      throw std::invalid_argument("singleflight: max_batch must be at least 1");
    }
    return options.max_batch;
  }

  static constexpr std::size_t max_shards = 65'536;

  [[nodiscard]] static group_options checked(group_options options) {
    if (options.shards == 0) options.shards = group_options::default_shards();
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

  const group_options options_;
  detail::shards<Key, Value> shards_;
  SINGLEFLIGHT_DETAIL_NO_UNIQUE_ADDRESS const Hash hash_;
  SINGLEFLIGHT_DETAIL_NO_UNIQUE_ADDRESS const KeyEqual equal_;
  SINGLEFLIGHT_DETAIL_NO_UNIQUE_ADDRESS detail::observer_holder<Observer, watch::tells> observer_;
};

}  // namespace singleflight::inline SINGLEFLIGHT_ABI

#endif  // SINGLEFLIGHT_GROUP_HPP
