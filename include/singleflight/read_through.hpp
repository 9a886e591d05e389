// SPDX-License-Identifier: MIT
#ifndef SINGLEFLIGHT_READ_THROUGH_HPP
#define SINGLEFLIGHT_READ_THROUGH_HPP

#include <algorithm>
#include <atomic>
#include <chrono>
#include <concepts>
#include <cstdint>
#include <exception>
#include <functional>
#include <memory>
#include <optional>
#include <stdexcept>
#include <tuple>
#include <type_traits>
#include <utility>

#include "detail/config.hpp"
#include "detail/key.hpp"
#include "detail/loader.hpp"
#include "detail/random.hpp"
#include "detail/saturating_time.hpp"
#include "detail/traits.hpp"
#include "group.hpp"
#include "keep.hpp"

namespace singleflight::inline SINGLEFLIGHT_ABI {

/// What a cache keeps for `read_through`: what was found, and how long it holds. Both times count
/// from the beginning of the load, so an entry that is copied into another cache gets no longer
/// life.
template <class Value, class Clock = std::chrono::system_clock>
struct cache_entry {
  std::optional<Value> value;               ///< Empty: it was found that there is none.
  typename Clock::time_point fresh_until;   ///< Until then it is served, and nothing is loaded.
  typename Clock::time_point usable_until;  ///< Until then it may stand in for a load.

  /// Two entries of the same load are equal.
  [[nodiscard]] bool operator==(const cache_entry&) const = default;
};

/// How long `read_through` keeps what it has loaded.
struct read_options {
  /// How long a value is fresh, unless its loader says otherwise. Zero or less: it is not kept.
  detail::saturating_duration lifetime = std::chrono::seconds(30);
  /// The same for the answer that there is none.
  detail::saturating_duration absent_lifetime = std::chrono::seconds(5);
  /// By what part of itself a lifetime is changed at random, up or down, so that entries that were
  /// made together do not expire together. 0 to less than 1.
  double jitter = 0.1;
  /// How long an entry that is no longer fresh may be served in place of a load: one that fails, or
  /// one that runs on the executor.
  detail::saturating_duration stale = std::chrono::seconds(0);
  /// After a load has failed, how long such an entry is served without another load.
  detail::saturating_duration retry_after = std::chrono::seconds(1);
};

/// What a `read_through` has done since it was made. Each `get` is a hit, a stale hit or a miss.
struct read_stats {
  std::uint64_t hits = 0;              ///< Found a fresh entry.
  std::uint64_t stale_hits = 0;        ///< Was served an entry that is not fresh any more.
  std::uint64_t misses = 0;            ///< Had to wait for a load, or for that of another.
  std::uint64_t second_look_hits = 0;  ///< Calls that found an entry which was not there before.
  std::uint64_t loads = 0;  ///< Loaders that were run, to refresh an entry or because of a miss.
  std::uint64_t failed_loads = 0;  ///< Of those: threw.
  std::uint64_t not_put = 0;       ///< Values that were not put, for their keys were forgotten.
  std::uint64_t undone = 0;        ///< Values that were put and erased, for the same reason.
  std::uint64_t cache_errors = 0;  ///< Exceptions of the cache that no caller has seen.
};

/// In place of an executor: entries are not refreshed before they are needed.
struct no_refresh {};

/// A cache of three functions. `find(key)` returns a `std::optional` of an entry, `put(key, entry)`
/// keeps one, `erase(key)` drops it. Each may throw.
template <class Find, class Put, class Erase>
struct cache_functions {
  Find find;    ///< Looks up a key.
  Put put;      ///< Keeps an entry.
  Erase erase;  ///< Drops a key.
};
/// Takes the types of the three functions.
template <class Find, class Put, class Erase>
cache_functions(Find, Put, Erase) -> cache_functions<Find, Put, Erase>;

/// Reads through a cache that it does not own: of the callers that miss one key at the same time,
/// one loads it. What it loads is in the cache afterwards, and nothing that was read before a write
/// of this process. It keeps no entry itself: how many there are, and which of them must go, is the
/// cache's.
///
///     singleflight::read_through<std::string, row, my_cache&> rows(cache, {.lifetime = 30s});
///
///     std::optional<row> get(const std::string& id) {
///       return rows.get(id, [&](const auto& key) { return db.load(key); });  // nullopt: there is none
///     }
///     void update(const std::string& id, const row& changed) {
///       rows.write(id, [&] { db.store(id, changed); });
///     }
///
/// A `Cache` has `find(key)`, which returns a `std::optional<cache_entry<Value>>`; `put(key,
/// entry)`; `erase(key)`. All three are called at once from many threads, without a lock, and may
/// throw: an error of the cache fails no read. It may drop entries at any time, and should at
/// `usable_until`.
///
/// With `options.stale`, an entry is served for that long after it was fresh, where a load fails;
/// with an executor, also while the load runs there. Of all callers that find an entry stale, one
/// begins the load. An executor is as in `group::do_call_on`; if it throws, the entry is not
/// refreshed now. The loader then outlives the caller that gave it: let it capture by value.
///
/// What is not seen: writes of other processes. A value that one of them has overwritten stays
/// until its lifetime is over, unless the cache refuses it by its version.
///
/// Thread safety: all members may be called at once from any thread, except the destructor, which
/// waits for the loads on the executor.
template <class Key, class Value, class Cache, class Executor = no_refresh,
          class Hash = std::hash<Key>, class KeyEqual = std::equal_to<Key>,
          class Clock = std::chrono::system_clock, class Observer = no_observer>
class read_through {
  static_assert(detail::copyable<Value>,
                "singleflight: a Value that is read through a cache must be copyable, since the "
                "cache keeps one; make it a std::shared_ptr");

 public:
  using entry = cache_entry<Value, Clock>;  ///< What the cache keeps.
  using group_type =
      group<Key, entry, Hash, KeyEqual, Observer>;  ///< By which callers share a load.

  /// Throws: `std::invalid_argument` if `jitter` is not in [0, 1); as the constructor of `group`.
  explicit read_through(Cache cache, read_options options = {}, Executor refresh = {},
                        group_options of_group = {}, Hash hash = Hash(),
                        KeyEqual equal = KeyEqual(), Observer observer = Observer())
      : cache_(std::forward<Cache>(cache)),
        options_(checked(options)),
        refresh_(std::move(refresh)),
        flights_(of_group, std::move(hash), std::move(equal), std::move(observer)) {}

  /// Reads a key from the cache, or loads it.
  ///
  /// Effects: a fresh entry is returned. Else, if there is an executor and the entry is usable, the
  ///   entry is returned and a load begun, unless there is one. Else this caller leads or follows a
  ///   call as of `group::do_call`, whose loader looks into the cache again, runs `load` and puts
  ///   what it gives, unless the key was forgotten. If the first look threw, the loader does not
  ///   touch the cache again.
  /// Returns: the value, or nothing if there is none.
  /// Throws: as `group::do_call`, unless this caller has found an entry that is usable: then it
  ///   gets that, also at its deadline.
  ///
  /// `load` is a loader as of `group::do_call`. It returns a `Value`, or a `std::optional<Value>`
  /// that is empty if there is none, or `keep{one of the two, lifetime}`.
  ///
  /// `key`, here and below, is what a group takes as a key: a `Key`, or what converts to one without
  /// loss. A number beyond the range of an integer `Key` is a `std::invalid_argument`.
  template <class K = Key, class Fn>
  std::optional<Value> get(K&& key, const call_options& options, Fn&& load) {
    check_loader<Fn>();
    return read(own_key(std::forward<K>(key)), options, std::forward<Fn>(load));
  }

  /// As above, waiting for as long as it takes.
  template <class K = Key, class Fn>
  std::optional<Value> get(K&& key, Fn&& load) {
    return get(std::forward<K>(key), call_options{}, std::forward<Fn>(load));
  }

  /// Has no caller get what was read before now, nor a cache keep it: for a writer, after its
  /// write.
  /// Throws: what hash, equality and the erase of the cache throw. In the last case the cache may
  ///   still have the entry.
  template <class K = Key>
  void invalidate(K&& key) {
    drop(own_key(std::forward<K>(key)));
  }

  /// Runs `store`, which writes, and invalidates the key, also if `store` throws, or its thread
  /// ends in there: it may have written.
  /// Returns: what `store` returns. Throws: what `store` throws; else as `invalidate`. If no key can
  ///   be made of what was given, `store` does not run.
  template <class K = Key, class Fn>
  std::invoke_result_t<Fn> write(K&& given, Fn&& store) {
    using stored = std::invoke_result_t<Fn>;
    const Key& key = own_key(std::forward<K>(given));
    if constexpr (std::is_void_v<stored>) {
      store_or_drop(key, std::forward<Fn>(store));
      drop(key);
    } else {
      stored result = store_or_drop(key, std::forward<Fn>(store));
      drop(key);
      return static_cast<stored&&>(result);
    }
  }

  /// Returns: the counters, each read at some time during the call.
  [[nodiscard]] read_stats stats() const noexcept {
    return {hits_,         stale_hits_, misses_, second_look_hits_, loads_,
            failed_loads_, not_put_,    undone_, cache_errors_};
  }

  /// Returns: the group by which callers share a load. Its values are entries. For its `stats`, and
  ///   for `do_many`, whose loader then follows the same rule: put unless forgotten, look again,
  ///   erase.
  [[nodiscard]] group_type& flights() noexcept { return flights_; }
  /// As above, to be looked at.
  [[nodiscard]] const group_type& flights() const noexcept { return flights_; }

  /// Returns: the cache.
  [[nodiscard]] std::remove_reference_t<Cache>& cache() noexcept { return cache_; }

 private:
  using counter = std::atomic<std::uint64_t>;
  using time_point = typename Clock::time_point;
  using duration = std::chrono::steady_clock::duration;
  static constexpr bool refreshes = !std::same_as<Executor, no_refresh>;

  static void count(counter& c) noexcept { c.fetch_add(1, std::memory_order_relaxed); }

  /// Returns: the key that a caller gives, or a `Key` made of it, which is what a cache takes.
  template <class K>
  [[nodiscard]] static decltype(auto) own_key(K&& key) {
    if constexpr (std::same_as<std::remove_cvref_t<K>, Key>) {
      return std::as_const(key);
    } else {
      return Key(detail::lookup_key<Key, Hash, KeyEqual>(std::forward<K>(key)));
    }
  }

  // --- Loading -----------------------------------------------------------------------------------

  template <class Fn>
  std::optional<Value> read(const Key& key, const call_options& options, Fn&& load) {
    bool cache_answers = true;
    std::optional<entry> found = find(key, cache_answers);
    const auto now = Clock::now();
    if (found && now < found->fresh_until) {
      count(hits_);
      return std::move(found->value);
    }
    const bool usable = found && now < found->usable_until;
    if constexpr (refreshes) {
      if (usable) {
        begin_refresh(key, std::forward<Fn>(load));
        count(stale_hits_);
        return std::move(found->value);
      }
    }
    try {
      auto loaded =
          flights_.do_call(key, options, [&](const Key& own, const call_context& call) -> entry {
            return fill(own, call, cache_answers, std::forward<Fn>(load));
          });
      count(misses_);
      return std::move(loaded).value().value;
    } catch (...) {
      if (std::current_exception() == nullptr) throw;  // forced unwinding must go on
      if (!usable || Clock::now() >= found->usable_until) {
        count(misses_);
        throw;
      }
    }
    count(stale_hits_);
    return std::move(found->value);
  }

  /// What the leader does for all who have missed.
  template <class Fn>
  entry fill(const Key& key, const call_context& call, bool cache_answers, Fn&& load) {
    std::optional<entry> old;
    if (cache_answers) old = find(key, cache_answers);
    const auto began = Clock::now();
    if (old && began < old->fresh_until) {
      count(second_look_hits_);
      return *std::move(old);
    }
    count(loads_);
    try {
      auto [made, kept] =
          made_of(began, detail::invoke_loader_in(std::forward<Fn>(load), key, call));
      if (cache_answers && kept) put(key, made, call);
      return std::move(made);
    } catch (...) {
      if (std::current_exception() == nullptr) throw;
      count(failed_loads_);
      if (old && began < old->usable_until) serve_for_a_while(key, *std::move(old), call);
      throw;
    }
  }

  template <class Fn>
  void begin_refresh(const Key& key, Fn&& load) {
    try {
      std::ignore =
          flights_.do_async(key, refresh_,
                            [this, load = std::decay_t<Fn>(std::forward<Fn>(load))](
                                const Key& own, const call_context& call) mutable -> entry {
                              return fill(own, call, true, load);
                            });
    } catch (...) {  // another time
      if (std::current_exception() == nullptr) throw;
    }
  }

  /// A load has failed: has callers served the entry that there is, and none load again so soon.
  void serve_for_a_while(const Key& key, entry&& old, const call_context& call) {
    old.fresh_until = (std::min)(later(Clock::now(), options_.retry_after), old.usable_until);
    put(key, old, call);
  }

  // --- The cache ---------------------------------------------------------------------------------

  /// `answers` becomes false if it throws.
  std::optional<entry> find(const Key& key, bool& answers) {
    try {
      return cache_.find(key);
    } catch (...) {
      if (std::current_exception() == nullptr) throw;
      count(cache_errors_);
      answers = false;
      return std::nullopt;
    }
  }

  /// Puts what was read, unless the key was forgotten since; looks again, and then takes it back.
  void put(const Key& key, const entry& made, const call_context& call) {
    if (call.forgotten()) return count(not_put_);
    try {
      cache_.put(key, made);
    } catch (...) {
      if (std::current_exception() == nullptr) throw;
      count(cache_errors_);  // it may be there all the same
    }
    if (!call.forgotten()) return;
    count(undone_);
    try {
      cache_.erase(key);
    } catch (...) {
      if (std::current_exception() == nullptr) throw;
      count(cache_errors_);
    }
  }

  void drop(const Key& key) {
    flights_.forget(key);
    cache_.erase(key);
  }

  template <class Fn>
  decltype(auto) store_or_drop(const Key& key, Fn&& store) {
    try {
      return std::forward<Fn>(store)();
    } catch (...) {  // also of a thread that ends in there
      try {
        drop(key);
      } catch (...) {
        count(cache_errors_);
      }
      throw;
    }
  }

  // --- Entries -----------------------------------------------------------------------------------

  /// An entry, and whether the cache is to keep it.
  struct made_entry {
    entry made;
    bool kept;
  };

  template <class Loaded>
  [[nodiscard]] made_entry made_of(time_point began, Loaded&& loaded) const {
    std::optional<Value> value = found_in(std::forward<Loaded>(loaded));
    const auto lifetime = value ? options_.lifetime : options_.absent_lifetime;
    return made_for(began, std::move(value), lifetime);
  }

  template <class Kept>
  [[nodiscard]] made_entry made_of(time_point began, keep<Kept>&& kept) const {
    return made_for(began, found_in(std::move(kept.value)), kept.lifetime);
  }

  /// Returns: what a loader has found. `std::optional` would convert it out of sight of compilers,
  /// which warn here if a number is cut.
  template <class Loaded>
  [[nodiscard]] static std::optional<Value> found_in(Loaded&& loaded) {
    using type = std::remove_cvref_t<Loaded>;
    constexpr bool converts = !std::same_as<type, Value> &&
                              !std::same_as<type, std::optional<Value>> &&
                              !std::same_as<type, std::nullopt_t>;
    if constexpr (converts && std::is_convertible_v<Loaded, Value>) {
      Value value = std::forward<Loaded>(loaded);
      return value;
    } else if constexpr (converts && detail::is_optional<type>) {
      if (!loaded) return std::nullopt;
      return found_in(*std::forward<Loaded>(loaded));
    } else {
      return std::forward<Loaded>(loaded);  // or it converts to an optional by itself
    }
  }

  [[nodiscard]] made_entry made_for(time_point began, std::optional<Value>&& value,
                                    detail::saturating_duration lifetime) const {
    const auto fresh = later(began, jittered(lifetime));
    return {{std::move(value), fresh, later(fresh, options_.stale)}, lifetime > duration::zero()};
  }

  [[nodiscard]] duration jittered(duration lifetime) const {
    if (options_.jitter == 0) return lifetime;
    const double factor = detail::random_between(1 - options_.jitter, 1 + options_.jitter);
    return detail::saturate(std::chrono::duration<double, duration::period>(lifetime) * factor);
  }

  /// Returns: the time after that duration; the end of time if the clock cannot hold it.
  [[nodiscard]] static time_point later(time_point time, duration d) {
    const auto in_ticks = std::chrono::duration_cast<typename Clock::duration>(d);
    constexpr auto end = (time_point::max)();
    return in_ticks > Clock::duration::zero() && time > end - in_ticks ? end : time + in_ticks;
  }

  // --- Checks ------------------------------------------------------------------------------------

  template <class Fn>
  static constexpr void check_loader() {
    static_assert(detail::is_loader<Fn, Key>,
                  "singleflight: the loader must be callable with nothing, the key, a "
                  "std::stop_token, a const call_context&, or the key and one of the last two");
  }

  [[nodiscard]] static read_options checked(const read_options& options) {
    if (!(options.jitter >= 0 && options.jitter < 1)) {
      throw std::invalid_argument("singleflight: read_options::jitter must be in [0, 1)");
    }
    return options;
  }

  Cache cache_;
  const read_options options_;
  SINGLEFLIGHT_DETAIL_NO_UNIQUE_ADDRESS Executor refresh_;
  counter hits_ = 0;
  counter stale_hits_ = 0;
  counter misses_ = 0;
  counter second_look_hits_ = 0;
  counter loads_ = 0;
  counter failed_loads_ = 0;
  counter not_put_ = 0;
  counter undone_ = 0;
  counter cache_errors_ = 0;
  group_type flights_;  // the last member: its destructor waits for loads that use the others
};

}  // namespace singleflight::inline SINGLEFLIGHT_ABI

#endif  // SINGLEFLIGHT_READ_THROUGH_HPP
