// SPDX-License-Identifier: MIT
#ifndef SINGLEFLIGHT_DETAIL_BULK_WATCH_HPP
#define SINGLEFLIGHT_DETAIL_BULK_WATCH_HPP

#include <cstddef>
#include <memory>
#include <utility>
#include <vector>

#include "../observer.hpp"
#include "bulk_keys.hpp"
#include "config.hpp"
#include "fixed_block.hpp"
#include "lead.hpp"
#include "watch.hpp"

namespace singleflight::inline SINGLEFLIGHT_ABI::detail {

/// What a caller that asks for many keys tells the observer: of each key what a caller of that key
/// alone would tell.
template <class Observer, class Key, class Value, bool IsTold = wants<Observer, Key>::anything>
class bulk_watch {
  using key_type = bulk_key<Key, Value>;
  using keys = bulk_keys<Key, Value>;
  using capture = typename wants<Observer, Key>::capture;
  using holder = observer_holder<Observer, true>;

  enum class news { none, refused, joined, began, began_elsewhere };

  struct of_key {
    of_key(const holder& o, const capture& captured) noexcept : seen(o, captured) {}
    watch<Observer, Key> seen;
    news noted = news::none;
  };

 public:
  using note = leave_note;

  /// Tells of a call that its caller leads.
  class ends {
   public:
    explicit ends(bulk_watch& w) noexcept : watch_(w) {}
    void tell_ended(const key_type& k, ending how) const noexcept {
      watch_.of(k).seen.tell_ended(k.own, how);
    }
    [[nodiscard]] auto on_withdrawal(const key_type& k) const noexcept {
      return watch_.of(k).seen.on_withdrawal(&k.own.key);
    }

   private:
    bulk_watch& watch_;
  };

  bulk_watch(const holder& o, keys& all, std::size_t most) : holder_(o), all_(all), each_(most) {
    noted_.reserve(most);
  }
  bulk_watch(const bulk_watch&) = delete;
  bulk_watch& operator=(const bulk_watch&) = delete;

  [[nodiscard]] ends to_tell_ends() noexcept { return ends(*this); }

  /// To be called when all keys have been read. Throws: `std::bad_alloc`.
  void enter() {
    capture captured{};
    if constexpr (wants<Observer, Key>::to_capture) captured = holder_.get().capture();
    while (each_.size() < all_.in_order().size()) each_.emplace_back(holder_, captured);
  }

  // --- Under the lock of the shard ---------------------------------------------------------------

  /// To be called each time that the caller enters for this key.
  /// Returns: what notes whether it joins a call or finds one too old.
  watch<Observer, Key>& enters(key_type& k) noexcept {
    of_key& one = of(k);
    one.noted = news::none;
    one.seen.enters(k.me);
    noted_.push_back(&k);
    return one.seen;
  }

  void is_refused(const key_type& k) noexcept { of(k).noted = news::refused; }
  void has_joined(const key_type& k) noexcept { of(k).noted = news::joined; }

  template <class Call>
  void begins(key_type& k, const Call* running) noexcept {
    of(k).seen.begins_and_keeps_key(k.own, running);
    of(k).noted = news::began;
  }

  /// Makes a call that is loaded elsewhere. Throws: what copying the key and the allocation throw.
  template <class Base, class Call, class... Args>
  [[nodiscard]] std::shared_ptr<Base> make(const key_type& k, const Call* running, Args&&... args) {
    auto made = of(k).seen.template make<Base>(std::forward<Args>(args)...);
    of(k).seen.begins(*made, running);
    return made;
  }
  void has_begun_elsewhere(const key_type& k) noexcept { of(k).noted = news::began_elsewhere; }

  // --- Outside all locks -------------------------------------------------------------------------

  /// Tells what was noted under the lock, also if this thread is ended there. Made before the lock.
  [[nodiscard]] auto tells_at_exit() noexcept {
    struct telling {
      bulk_watch& self;
      explicit telling(bulk_watch& w) noexcept : self(w) {}
      telling(const telling&) = delete;
      telling& operator=(const telling&) = delete;
      ~telling() { self.tell_noted(); }
    };
    return telling(*this);
  }

  template <class Waiter>
  auto wait(key_type& k, Waiter& waiter) {
    auto& seen = of(k).seen;
    return k.elsewhere != nullptr ? seen.wait_for_own(waiter, k.home, k.me, &k.own.key)
                                  : seen.wait(k.own.key, waiter, k.home, k.me);
  }

  /// For a wait that does not come, the caller's thread being ended.
  template <class Waiter>
  void abandons(const key_type& k, const Waiter& waiter) noexcept {
    auto& seen = of(k).seen;
    if (k.elsewhere != nullptr) {
      seen.tell_end_of_wait_for_own(waiter, &k.own.key);
    } else {
      seen.tell_end_of_wait(k.own.key, waiter, ending::exception);
    }
  }

 private:
  [[nodiscard]] of_key& of(const key_type& k) noexcept {
    return each_.begin()[&k - all_.in_order().begin()];
  }

  void tell_noted() noexcept {
    for (key_type* const k : noted_) {
      of_key& one = of(*k);
      const Key& key = k->own.key;
      switch (one.noted) {
        case news::refused:
          one.seen.tell_refused(key, k->why);
          break;
        case news::joined:
          one.seen.tell_joined(key);
          break;
        case news::began:
          one.seen.tell_began(key);
          break;
        case news::began_elsewhere:
          one.seen.tell_began_elsewhere(*k->elsewhere);
          break;
        default:
          one.seen.tell_superseded(key);
      }
    }
    noted_.clear();
  }

  const holder& holder_;
  keys& all_;
  fixed_block<of_key> each_;      // in the order of the keys
  std::vector<key_type*> noted_;  // those that were entered for under one lock
};

/// The same for who observes nothing.
template <class Observer, class Key, class Value>
class bulk_watch<Observer, Key, Value, false> {
  using key_type = bulk_key<Key, Value>;

 public:
  using note = no_note;

  struct ends {
    static void tell_ended(const key_type&, ending) noexcept {}
    [[nodiscard]] static tell_nobody on_withdrawal(const key_type&) noexcept { return {}; }
  };

  bulk_watch(const observer_holder<Observer, false>&, bulk_keys<Key, Value>&,
             std::size_t) noexcept {}

  [[nodiscard]] static ends to_tell_ends() noexcept { return {}; }
  static void enter() noexcept {}
  static no_note enters(const key_type&) noexcept { return {}; }
  static void is_refused(const key_type&) noexcept {}
  static void has_joined(const key_type&) noexcept {}
  template <class Call>
  static void begins(const key_type&, const Call*) noexcept {}
  template <class Base, class Call, class... Args>
  [[nodiscard]] static std::shared_ptr<Base> make(const key_type&, const Call*, Args&&... args) {
    return std::make_shared<Base>(std::forward<Args>(args)...);
  }
  static void has_begun_elsewhere(const key_type&) noexcept {}
  [[nodiscard]] static no_note tells_at_exit() noexcept { return {}; }
  template <class Waiter>
  static auto wait(key_type& k, Waiter& waiter) {
    return waiter.wait(k.home, k.me);
  }
  template <class Waiter>
  static void abandons(const key_type&, const Waiter&) noexcept {}
};

}  // namespace singleflight::inline SINGLEFLIGHT_ABI::detail

#endif  // SINGLEFLIGHT_DETAIL_BULK_WATCH_HPP
