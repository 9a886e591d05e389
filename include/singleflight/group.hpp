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
#include <memory>
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
#include "detail/mutex.hpp"
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
///      has returned from a call is never given that call's result. This is no cache.
///   3. Every caller gets the value, or the very exception object that the loader threw, or a
///      `call_error`. Nobody is left hanging, not even by a thread that exits inside its loader.
///   4. A call unlists itself and nothing else: one that was forgotten and ends late does not touch
///      a newer one.
///   5. No user code runs under a lock but `KeyEqual` and copying or moving a `Key`. Loaders,
///      values and destructors run outside and may call the group again.
///   6. A loader that calls its own key in its own group is refused, where it would wait for
///      itself.
///
/// Thread safety: all members may be called at once from any thread, except the destructor; `Hash`
/// and `KeyEqual` are called as `const` from many threads. What a leader did before its loader
/// returned or threw is visible to every caller that gets that result or exception.
///
/// Cost: a call that nobody joins takes two uncontended locks and allocates nothing but what the
/// copy of its key does. A follower takes one lock; the first of a call allocates twice, the others
/// never. A value is copied only for a caller that takes it by value.
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
                     requires(const Key& a) { static_cast<bool>(a == a); }),
                "singleflight: KeyEqual cannot compare two Keys; give Key an operator== or name a "
                "KeyEqual whose operator() is const");

 public:
  /// Makes an empty group.
  /// Throws: `std::invalid_argument` if the options make no sense, `std::bad_alloc`.
  explicit group(group_options options = {}, Hash hash = Hash(), KeyEqual equal = KeyEqual())
      : shard_bits_(shard_bits(options.shards)),
        shards_(std::make_unique<shard[]>(std::size_t{1} << shard_bits_)),
        hash_(std::move(hash)),
        equal_(std::move(equal)) {}

  group(const group&) = delete;  // nor movable: calls in flight point into it
  group& operator=(const group&) = delete;

  /// Precondition: every member function has returned.
  ~group() {
    SINGLEFLIGHT_ASSERT(stats().in_flight == 0,
                        "a group must outlive the calls that are made through it");
  }

  /// Leads a call for `key`, or follows the one that is listed.
  ///
  /// Effects: if no call for `key` is listed, lists one, runs `fn()` on this thread, unlists the
  ///   call and hands its result to the followers. Otherwise waits for the listed call; `fn` is not
  ///   invoked.
  /// Returns: the call's result.
  /// Throws: what the loader that ran threw, the same object for every caller of the call.
  ///   `call_error` with `resource_deadlock_would_occur` if this thread is running the loader of
  ///   the listed call; with `owner_dead` if the leader's thread ended inside the loader. What
  ///   hash, equality, key copy and the first follower's allocation throw: only to this caller,
  ///   which has then not entered.
  /// Blocks: while the loader runs, its own or the leader's.
  /// Complexity: one hash; leading: two locks and one copy (or move) of the key; following: one
  ///   lock, and two allocations if it is the first.
  /// Lifetime: the call owns its key, so `fn` may move from or destroy what `key` refers to.
  ///
  /// `key` is a `Key` or converts to one; if both `Hash` and `KeyEqual` have `is_transparent`, it
  /// is whatever they take, and a `Key` is made of it only by the caller that leads. `fn` is
  /// callable with no argument and returns what converts to `Value`.
  template <class K = Key, class Fn>
  result<Value> do_call(K&& key, Fn&& fn) {
    static_assert(std::is_invocable_v<Fn>,
                  "singleflight: the loader must be callable with no argument");
    if constexpr (std::is_invocable_v<Fn>) {
      static_assert(std::is_convertible_v<std::invoke_result_t<Fn>, Value>,
                    "singleflight: what the loader returns must convert to the group's Value");
    }
    return enter(lookup_key(std::forward<K>(key)), std::forward<Fn>(fn));
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
    return forget_if(lookup_key(std::forward<K>(key)), [](const call& c) { return !c.shared; });
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

  // --- Leading and following ---------------------------------------------------------------------

  template <class K, class Fn>
  result<Value> enter(K&& key, Fn&& fn) {
    const std::uint64_t hash = detail::mix(hash_(key));
    shard& home = shard_of(hash);
    detail::lock lock(home.mutex);
    if (call* running = home.find(hash, key, equal_)) {
      if (running->leader == std::this_thread::get_id()) {
        home.reject();
        lock.unlock();
        throw call_error(std::errc::resource_deadlock_would_occur,
                         "singleflight: a loader called its own key and would wait for itself");
      }
      std::shared_future<Value> future = home.join(*running);
      lock.unlock();
      return follow(std::move(future));
    }
    call own(hash, std::forward<K>(key));
    home.begin(own);
    lock.unlock();
    return lead(home, own, std::forward<Fn>(fn));
  }

  /// Touches nothing but the future: when it is ready, the call may be gone.
  static result<Value> follow(std::shared_future<Value> future) {
    future.get();  // throws what the call failed with
    if constexpr (std::is_void_v<Value>) {
      return result<void>(true, false);
    } else {
      return result<Value>(std::move(future), false);
    }
  }

  /// Runs the loader, and ends the call in this order: unlist under the lock, then publish outside.
  /// Publishing first would hand an ended call to callers that enter in between; publishing under
  /// the lock would wake the followers into it.
  template <class Fn>
  static result<Value> lead(shard& home, call& own, Fn&& fn) {
    if constexpr (std::is_void_v<Value>) {
      run(home, own, std::forward<Fn>(fn));
      end(home, own);
      if (own.shared) own.shared->promise.set_value();
      return result<void>(own.shared.has_value(), true);
    } else {
      Value value = run(home, own, std::forward<Fn>(fn));
      end(home, own);
      try {
        if (!own.shared) return result<Value>(std::move(value));
        own.shared->promise.set_value(std::move(value));
      } catch (...) {  // the move threw
        {
          const detail::lock lock(home.mutex);
          home.fail();
        }
        if (own.shared) own.shared->promise.set_exception(std::current_exception());
        throw;
      }
      return result<Value>(std::move(own.shared->future), true);
    }
  }

  /// Runs the loader; if it does not return, ends the call and tells the followers why.
  template <class Fn>
  static Value run(shard& home, call& own, Fn&& fn) {
    try {
      return static_cast<Value>(std::forward<Fn>(fn)());
    } catch (...) {
      {
        const detail::lock lock(home.mutex);
        home.fail();
        home.end(own);
      }
      if (own.shared) own.shared->promise.set_exception(current_failure());
      throw;  // in place: the forced unwinding of a thread that exits must go on
    }
  }

  static void end(shard& home, call& own) noexcept {
    const detail::lock lock(home.mutex);
    home.end(own);
  }

  /// What the followers of a failed call are told. Forced unwinding (pthread_exit, cancellation) is
  /// no exception, and has no exception_ptr.
  static std::exception_ptr current_failure() noexcept {
    if (std::exception_ptr thrown = std::current_exception()) return thrown;
    try {
      throw call_error(std::errc::owner_dead,
                       "singleflight: the leader's thread ended inside its loader");
    } catch (...) {  // a bad_alloc if there is no memory for the text
      return std::current_exception();
    }
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
    if constexpr (looks_up_directly<K>) {
      return static_cast<K&&>(key);
    } else {
      static_assert(std::is_convertible_v<K, Key>,
                    "singleflight: this key is no Key and converts to none; to look up by another "
                    "type, give the group a Hash and a KeyEqual that both have is_transparent");
      return Key(std::forward<K>(key));
    }
  }

  static constexpr std::size_t max_shards = 65'536;

  static unsigned shard_bits(std::size_t wanted) {
    if (wanted > max_shards) {
      throw std::invalid_argument(
          "singleflight: group_options::shards must be at most 65536; leave it 0 if in doubt");
    }
    if (wanted == 0) wanted = 8 * std::size_t{std::max(std::thread::hardware_concurrency(), 1U)};
    return static_cast<unsigned>(std::bit_width(std::min(wanted, max_shards) - 1));
  }

  [[nodiscard]] std::size_t shard_count() const noexcept { return std::size_t{1} << shard_bits_; }

  /// By the high bits of the hash, in two steps, since one shift by 64 would be undefined.
  [[nodiscard]] shard& shard_of(std::uint64_t hash) const noexcept {
    return shards_[static_cast<std::size_t>(hash >> 1 >> (63 - shard_bits_))];
  }

  template <class K, class Condition>
  bool forget_if(K&& key, const Condition& condition) {
    const std::uint64_t hash = detail::mix(hash_(key));
    shard& home = shard_of(hash);
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
        all.push_back({c.key, c.shared ? c.shared->followers : 0,
                       c.shared ? now - c.shared->first_joined : now - now});
      });
      return;
    }
  }

  const unsigned shard_bits_;
  const std::unique_ptr<shard[]> shards_;
  [[no_unique_address]] const Hash hash_;
  [[no_unique_address]] const KeyEqual equal_;
};

}  // namespace singleflight::inline v1

#endif  // SINGLEFLIGHT_GROUP_HPP
