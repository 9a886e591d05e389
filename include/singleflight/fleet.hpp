// SPDX-License-Identifier: MIT
#ifndef SINGLEFLIGHT_FLEET_HPP
#define SINGLEFLIGHT_FLEET_HPP

#include <algorithm>
#include <atomic>
#include <chrono>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <exception>
#include <functional>
#include <new>
#include <optional>
#include <stdexcept>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>

#include "detail/config.hpp"
#include "detail/random.hpp"
#include "detail/saturating_time.hpp"
#include "keep.hpp"

#if __has_include(<unistd.h>)
#include <unistd.h>
#endif

namespace singleflight::inline SINGLEFLIGHT_ABI {

/// How a fleet works, fixed when it is made.
struct fleet_options {
  /// How long a leader owns a key; it is not renewed. A load that takes longer is not stored, and
  /// another process starts one of its own meanwhile. 1 ms to 1 hour.
  std::chrono::milliseconds lease{2000};
  /// How long a caller waits for other processes before it runs its own loader. Take more than two
  /// leases: if a leader dies, one process takes over when its lease has ended, and the others can
  /// wait for that one as long as its lease lasts. With less, all of them run their own loaders
  /// then. At most 1 hour.
  std::chrono::milliseconds max_wait{5000};
  /// How many leaders in other processes may fail before a caller runs its own loader. At least 1.
  std::size_t attempts = 2;
  /// How long a result waits for the callers that joined. 1 ms to 1 hour.
  std::chrono::milliseconds handover{1000};
  /// By what part of itself a lifetime is changed at random, up or down, so that entries that were
  /// stored together do not expire together. 0 to less than 1.
  double jitter = 0.1;
};

/// What a fleet has done since it was made, and what it is doing now. Every call of `load` is
/// counted once, in one of the counters up to `unreachable`; so they add up to the entries.
struct fleet_stats {
  std::uint64_t hits = 0;         ///< Found the value in the cache at once.
  std::uint64_t led = 0;          ///< Ran the loader for the fleet.
  std::uint64_t followed = 0;     ///< Waited for another process, and found its value in the cache.
  std::uint64_t handed_over = 0;  ///< Waited for another process, and got its value directly.
  std::uint64_t taken_over = 0;   ///< Waited for a process that failed, then led.
  std::uint64_t alone = 0;  ///< Ran the loader without a lease: `max_wait`, `attempts`, bad bytes.
  std::uint64_t refused = 0;      ///< Ran the loader without a lease: the store refused.
  std::uint64_t unreachable = 0;  ///< Ran the loader without a lease: the store did not answer.

  std::uint64_t lost_fills = 0;  ///< Results of leaders that were to be stored and were not.
  std::size_t waiting = 0;       ///< Callers that wait for another process now.

  /// Returns: how often `load` was called.
  [[nodiscard]] std::uint64_t entries() const noexcept {
    return hits + led + followed + handed_over + taken_over + alone + refused + unreachable;
  }
};

/// What a lease store answers to `fill`, `release` and `invalidate`. "Somebody else has the lease"
/// and "the store failed" are different answers, here and below: they call for different actions.
enum class lease_answer {
  held,        ///< It was done; for `fill` and `release`: the caller held the lease.
  lost,        ///< The lease had ended or was voided. Nothing is stored.
  refused,     ///< The store said no: read-only, out of memory, no permission.
  unreachable  ///< No answer. It may have been done or not.
};

/// What a lease store answers to `enter`.
struct lease_entry {
  /// What an entry found.
  enum class kind {
    hit,         ///< `value` is in the cache.
    lead,        ///< The caller holds the lease now.
    wait,        ///< `leader` holds it, for another `left`.
    refused,     ///< As in `lease_answer`.
    unreachable  ///< As in `lease_answer`; the caller may hold the lease.
  };
  /// Which of them it is.
  kind what = kind::unreachable;
  /// With `kind::hit`: the bytes in the cache.
  std::string value = {};
  /// With `kind::wait`: the token of the process that leads.
  std::string leader = {};
  /// With `kind::wait`: how long its lease lasts.
  std::chrono::milliseconds left{0};
};

/// What a lease store answers to `wait`.
struct lease_end {
  /// What a wait found.
  enum class kind {
    kept,        ///< The leader has stored its result in the cache.
    value,       ///< The leader's result, which is not in the cache, is `value`.
    failed,      ///< The leader has no result.
    pending,     ///< Nothing has happened.
    refused,     ///< As in `lease_answer`.
    unreachable  ///< As in `lease_answer`.
  };
  /// Which of them it is.
  kind what = kind::unreachable;
  /// With `kind::value`: the result.
  std::string value = {};
};

/// A cache that also keeps leases: the one place that all processes share. Members are called at
/// once from many threads. The state of the engine is an answer, never an exception. A token names
/// one lease and is not used again.
///
/// * `enter(key, token, lease)`, in one atomic step: the value, if there is one; else the lease for
///   `token`, if nobody holds it; else who holds it. Repeated with the same token, it answers the
///   same.
/// * `fill(key, token, bytes, lifetime, handover)`, in one atomic step: if `token` holds the lease,
///   ends it and, if the lifetime is more than zero and there is no value, stores the bytes. In any
///   case tells those who wait for `token`: that the value is in the cache, or the bytes
///   themselves.
/// * `release(key, token, handover)`: if `token` holds the lease, ends it and tells those who wait
///   for `token` that there is no result.
/// * `wait(key, leader, at_most, round)`: until the leader of that token has told; returns
///   `pending` after `at_most`, or a little later, but not at once: a store that cannot wait
///   sleeps, longer with each `round`, which counts the waits of one caller. What the leader told
///   is kept for `handover`.
/// * `invalidate(key)`, in one atomic step: drops the value and the lease.
///
/// A store with a member `now()` gives the time to the fleet, too; else `std::chrono::steady_clock`
/// does.
template <class Store>
concept lease_store = requires(Store& store, std::string_view key, std::string_view token,
                               std::string_view bytes, std::chrono::milliseconds time,
                               std::size_t round) {
  { store.enter(key, token, time) } -> std::same_as<lease_entry>;
  { store.fill(key, token, bytes, time, time) } -> std::same_as<lease_answer>;
  { store.release(key, token, time) } -> std::same_as<lease_answer>;
  { store.wait(key, token, time, round) } -> std::same_as<lease_end>;
  { store.invalidate(key) } -> std::same_as<lease_answer>;
};

/// Turns values into bytes and back. Both members are called at once from many threads. `decode`
/// throws a `std::exception` for bytes that it cannot read; others may have written them.
template <class Codec, class Value>
concept lease_codec = requires(const Codec& codec, const Value& value, std::string bytes) {
  { codec.encode(value) } -> std::convertible_to<std::string_view>;
  { codec.decode(std::move(bytes)) } -> std::convertible_to<Value>;
};

/// For values that are strings: they are stored as they are.
struct identity_codec {
  /// Returns: the value itself.
  [[nodiscard]] std::string_view encode(std::string_view value) const noexcept { return value; }
  /// Returns: the bytes themselves.
  [[nodiscard]] std::string decode(std::string&& bytes) const noexcept { return std::move(bytes); }
};

/// Coalesces identical requests of many processes: of all the processes that want one key at the
/// same time, one runs its loader and stores the result, the others get it.
///
///     singleflight::hiredis_client redis({.host = "cache"});
///     singleflight::redis_leases leases(redis);
///     singleflight::fleet<std::string, decltype(leases)> fleet(leases);
///     singleflight::group<std::string, std::string> flights;
///
///     std::string get(const std::string& id) {
///       if (auto hit = cache.find(id)) return *hit;
///       return flights.do_call(id, [&] {  // of the callers of this process one goes on
///         return fleet.load("template:" + id, 30s, [&] { return db.load_template(id); });
///       });
///     }
///
/// Promise: at most one load per key in the fleet, while the store is reachable and keeps the
/// lease, and the load ends within it. Otherwise the caller runs its own loader, so with a `group`
/// in front there is at most one load per key and process. In every case:
///   1. A leader whose lease ended or was voided stores nothing.
///   2. The store makes no caller fail, and none wait longer than `max_wait` for other processes.
///   3. Nobody joins a load after its result was published, and nobody who enters after an
///      invalidation gets the result of a load that began before it.
///   4. Failures are not stored.
///   5. The lease is given back when the loader throws, when its thread exits, when the codec
///      throws, and when nothing is to be kept.
///
/// What breaks "one": a load longer than the lease; a store that loses the lease, by failover,
/// eviction or a flush; a partition; a leader elsewhere for longer than `max_wait`. It saves work
/// and is no lock: do not guard writes with it.
///
/// Thread safety: all members may be called at once from any thread, except the destructor.
///
/// Blocks: for no longer than `max_wait`, each operation of the store, and the loader. A leader
/// that asks for a key whose leader in another process asks for its own waits until `max_wait` has
/// passed.
///
/// Lifetime: the store must outlive the fleet.
template <class Value, lease_store Store, class Codec = identity_codec>
class fleet {
  static_assert(std::is_object_v<Value> && std::same_as<Value, std::remove_cv_t<Value>> &&
                    std::is_move_constructible_v<Value>,
                "singleflight: the Value of a fleet must be a movable object type, without const");
  static_assert(lease_codec<Codec, Value>,
                "singleflight: the Codec of a fleet needs, as const members, encode(const Value&), "
                "which returns a std::string or std::string_view, and decode(std::string), which "
                "returns a Value");

 public:
  /// Throws: `std::invalid_argument` if the options make no sense; what `std::random_device`
  /// throws.
  explicit fleet(Store& store, fleet_options options = {}, Codec codec = {})
      : store_(store),
        options_(checked(options)),
        codec_(std::move(codec)),
        identity_(random_text()) {}

  fleet(const fleet&) = delete;
  fleet& operator=(const fleet&) = delete;
  ~fleet() = default;

  /// Gives the value for `key`: from the cache, from the process that loads it now, or from `fn`.
  ///
  /// Effects: if no process loads the key, runs `fn` on this thread and stores what it returns for
  ///   `lifetime`, or for what a returned `keep` says. Otherwise waits. Runs `fn` as well if the
  ///   store is of no help, if `max_wait` has passed, and if `attempts` leaders failed; without a
  ///   lease nothing is stored. Bytes in the cache that the codec cannot decode are invalidated,
  ///   once, and loaded again.
  /// Throws: what `fn` and `Codec::encode` throw, `std::bad_alloc`; nothing of the store's.
  template <class Fn>
  [[nodiscard]] Value load(std::string_view key, detail::saturating_duration lifetime, Fn&& fn) {
    static_assert(returns_value<Fn> || returns_keep<Fn>,
                  "singleflight: the loader of a fleet takes no argument and returns a Value or a "
                  "singleflight::keep<Value>");
    const std::string token = next_token();
    const time_point until = now() + options_.max_wait;
    std::size_t failures = 0;
    std::size_t bad_waits = 0;
    bool waited = false;
    bool mended = false;
    for (std::size_t round = 0;; ++round) {
      lease_entry entry = enter(key, token);
      switch (entry.what) {
        case entered::hit:
          if (std::optional<Value> value = decoded(std::move(entry.value))) {
            count(waited ? followed_ : hits_);
            return *std::move(value);
          }
          if (std::exchange(mended, true)) return run_alone(alone_, fn);
          invalidate(key);
          continue;
        case entered::lead:
          count(waited ? taken_over_ : led_);
          return lead(key, token, lifetime, fn, &lost_fills_);
        case entered::refused:
          return run_alone(refused_, fn);
        case entered::unreachable:
          // The request may have arrived: then this caller has the lease, and others wait for it.
          count(unreachable_);
          return lead(key, token, lifetime, fn, nullptr);
        case entered::wait:
          break;
      }
      waited = true;
      const auto left = std::chrono::floor<std::chrono::milliseconds>(until - now());
      if (left <= left.zero()) return run_alone(alone_, fn);
      lease_end end = wait(key, entry, left, round);
      switch (end.what) {
        case ended::value:
          if (std::optional<Value> value = decoded(std::move(end.value))) {
            count(handed_over_);
            return *std::move(value);
          }
          return run_alone(alone_, fn);
        case ended::failed:
          if (++failures >= options_.attempts) return run_alone(alone_, fn);
          break;
        case ended::refused:
        case ended::unreachable:  // `enter` says whether that is true of all the store
          if (++bad_waits > 1) return run_alone(unreachable_, fn);
          break;
        case ended::kept:
        case ended::pending:
          break;
      }
    }
  }

  /// To be called after what is behind the cache has changed: drops the value, and voids the lease,
  /// so that no load which began before is stored. The callers that joined such a load still get
  /// its result, and so do those that join its call in the `group` of a process.
  /// Returns: whether the store did it. If not, it may keep an old value for its lifetime.
  bool invalidate(std::string_view key) {
    return guarded(lease_answer::unreachable, [&] { return store_.invalidate(key); }) ==
           lease_answer::held;
  }

  /// Returns: the counters and the gauge; each is read on its own.
  [[nodiscard]] fleet_stats stats() const noexcept {
    return {.hits = hits_,
            .led = led_,
            .followed = followed_,
            .handed_over = handed_over_,
            .taken_over = taken_over_,
            .alone = alone_,
            .refused = refused_,
            .unreachable = unreachable_,
            .lost_fills = lost_fills_,
            .waiting = waiting_};
  }

 private:
  using counter = std::atomic<std::uint64_t>;
  using time_point = std::chrono::steady_clock::time_point;
  using entered = lease_entry::kind;
  using ended = lease_end::kind;

  template <class Fn>
  static constexpr bool returns_value = std::is_invocable_r_v<Value, Fn&>;
  template <class Fn>
  static constexpr bool returns_keep = [] {
    if constexpr (std::invocable<Fn&>) {
      return std::same_as<std::remove_cvref_t<std::invoke_result_t<Fn&>>, keep<Value>>;
    }
    return false;
  }();

  /// Longer lifetimes are cut to it: some engines cannot add larger ones to the time.
  static constexpr std::chrono::milliseconds longest = std::chrono::hours(24 * 365 * 10);
  /// How long one wait may take. A store that loses the news of a leader's end is asked again after
  /// it.
  static constexpr std::chrono::milliseconds slice{100};

  /// Gives the lease back when its leader goes without having filled: by an exception, or because
  /// its thread exits inside the loader.
  class held_lease {
   public:
    held_lease(fleet& owner, std::string_view key, std::string_view token) noexcept
        : owner_(owner), key_(key), token_(token) {}
    held_lease(const held_lease&) = delete;
    held_lease& operator=(const held_lease&) = delete;
    ~held_lease() {
      if (ended_) return;
      owner_.guarded(lease_answer::unreachable,
                     [&] { return owner_.store_.release(key_, token_, owner_.options_.handover); });
    }

    [[nodiscard]] lease_answer fill(std::string_view bytes, std::chrono::milliseconds lifetime) {
      return owner_.guarded(lease_answer::unreachable, [&] {
        const lease_answer answer =
            owner_.store_.fill(key_, token_, bytes, lifetime, owner_.options_.handover);
        ended_ = true;
        return answer;
      });
    }

   private:
    fleet& owner_;
    const std::string_view key_;
    const std::string_view token_;
    bool ended_ = false;
  };

  class counted_wait {
   public:
    explicit counted_wait(std::atomic<std::size_t>& waiting) noexcept : waiting_(waiting) {
      ++waiting_;
    }
    counted_wait(const counted_wait&) = delete;
    counted_wait& operator=(const counted_wait&) = delete;
    ~counted_wait() { --waiting_; }

   private:
    std::atomic<std::size_t>& waiting_;
  };

  static fleet_options checked(const fleet_options& options) {
    using namespace std::chrono_literals;
    if (options.lease < 1ms || options.lease > 1h) {
      throw std::invalid_argument("singleflight: fleet_options::lease must be 1 ms to 1 hour");
    }
    if (options.max_wait < 0ms || options.max_wait > 1h) {
      throw std::invalid_argument("singleflight: fleet_options::max_wait must be 0 to 1 hour");
    }
    if (options.attempts < 1) {
      throw std::invalid_argument("singleflight: fleet_options::attempts must be at least 1");
    }
    if (options.handover < 1ms || options.handover > 1h) {
      throw std::invalid_argument("singleflight: fleet_options::handover must be 1 ms to 1 hour");
    }
    if (!(options.jitter >= 0 && options.jitter < 1)) {
      throw std::invalid_argument("singleflight: fleet_options::jitter must be 0 to less than 1");
    }
    return options;
  }

  static void count(counter& which) noexcept { which.fetch_add(1, std::memory_order_relaxed); }

  /// Calls the store. A store that throws all the same has not answered.
  template <class Call, class Answer>
  static Answer guarded(Answer if_it_throws, const Call& call) {
    try {
      return call();
    } catch (const std::exception&) {
      return if_it_throws;
    }
  }

  lease_entry enter(std::string_view key, std::string_view token) {
    return guarded(lease_entry{}, [&] { return store_.enter(key, token, options_.lease); });
  }

  lease_end wait(std::string_view key, const lease_entry& entry, std::chrono::milliseconds left,
                 std::size_t round) {
    const auto lease_left = (std::max)(entry.left, std::chrono::milliseconds(1));
    const counted_wait waiting(waiting_);
    return guarded(lease_end{}, [&] {
      return store_.wait(key, entry.leader, (std::min)({slice, lease_left, left}), round);
    });
  }

  /// Returns: nothing if the codec cannot read the bytes.
  std::optional<Value> decoded(std::string&& bytes) const {
    try {
      return std::optional<Value>(std::in_place, codec_.decode(std::move(bytes)));
    } catch (const std::bad_alloc&) {
      throw;
    } catch (const std::exception&) {
      return std::nullopt;
    }
  }

  template <class Fn>
  static keep<Value> run(Fn& fn, detail::saturating_duration lifetime) {
    if constexpr (returns_keep<Fn>) {
      return std::invoke(fn);
    } else {
      return {std::invoke(fn), lifetime};
    }
  }

  template <class Fn>
  static Value run_alone(counter& why, Fn& fn) {
    count(why);
    return run(fn, std::chrono::seconds(0)).value;
  }

  /// Runs the loader, and fills if this caller holds the lease. `lost` counts results that were not
  /// stored.
  template <class Fn>
  Value lead(std::string_view key, std::string_view token, detail::saturating_duration lifetime,
             Fn& fn, counter* lost) {
    held_lease lease(*this, key, token);
    keep<Value> result = run(fn, lifetime);
    const auto kept_for = jittered(result.lifetime);
    const auto& bytes = codec_.encode(std::as_const(result.value));
    const lease_answer answer = lease.fill(bytes, kept_for);
    if (answer != lease_answer::held && kept_for.count() > 0 && lost != nullptr) count(*lost);
    return std::move(result.value);
  }

  std::chrono::milliseconds jittered(detail::saturating_duration asked) {
    using std::chrono::milliseconds;
    if (asked <= milliseconds::zero()) return milliseconds::zero();
    const auto lifetime = (std::min)(std::chrono::floor<milliseconds>(asked), longest);
    const double factor = detail::random_between(1 - options_.jitter, 1 + options_.jitter);
    const auto changed = static_cast<std::int64_t>(static_cast<double>(lifetime.count()) * factor);
    return (std::max)(milliseconds(changed), milliseconds(1));
  }

  time_point now() const {
    if constexpr (requires(const Store& store) {
                    { store.now() } -> std::same_as<time_point>;
                  }) {
      return std::as_const(store_).now();
    } else {
      return std::chrono::steady_clock::now();
    }
  }

  static std::string random_text() {
    static constexpr std::string_view digits = "0123456789abcdef";
    std::random_device random;
    std::uniform_int_distribution<std::size_t> digit(0, digits.size() - 1);
    std::string text(32, '0');
    for (char& c : text) c = digits[digit(random)];
    return text;
  }

  /// Names one lease: by this fleet, by the process, since `fork` copies the fleet, and by a
  /// number.
  std::string next_token() {
#if __has_include(<unistd.h>)
    const auto process = static_cast<long long>(::getpid());
#else
    const long long process = 0;
#endif
    const std::uint64_t number = tokens_.fetch_add(1, std::memory_order_relaxed);
    return identity_ + '-' + std::to_string(process) + '-' + std::to_string(number);
  }

  Store& store_;
  const fleet_options options_;
  const Codec codec_;
  const std::string identity_;

  counter tokens_ = 0;
  counter hits_ = 0;
  counter led_ = 0;
  counter followed_ = 0;
  counter handed_over_ = 0;
  counter taken_over_ = 0;
  counter alone_ = 0;
  counter refused_ = 0;
  counter unreachable_ = 0;
  counter lost_fills_ = 0;
  std::atomic<std::size_t> waiting_ = 0;
};

}  // namespace singleflight::inline SINGLEFLIGHT_ABI

#endif  // SINGLEFLIGHT_FLEET_HPP
