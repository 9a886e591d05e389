// SPDX-License-Identifier: MIT
#ifndef SINGLEFLIGHT_DETAIL_WATCH_HPP
#define SINGLEFLIGHT_DETAIL_WATCH_HPP

#include <chrono>
#include <cstddef>
#include <memory>
#include <new>
#include <optional>
#include <type_traits>
#include <utility>

#include "../call_error.hpp"
#include "../observer.hpp"
#include "async_wait.hpp"
#include "call.hpp"
#include "config.hpp"
#include "follow.hpp"

// What tells the observer of a group. What is noted under a lock is told when it has been released.
namespace singleflight::inline SINGLEFLIGHT_ABI::detail {

/// A group's observer. Where it wants anything it is apart from the group, which calls may outlive.
template <class Observer, bool IsTold>
class observer_holder {
 public:
  explicit observer_holder(Observer&& o) : observer_(std::move(o)) {}

  [[nodiscard]] const Observer& get() const noexcept { return observer_; }
  static void keep() noexcept {}

 private:
  SINGLEFLIGHT_DETAIL_NO_UNIQUE_ADDRESS Observer observer_;
};

template <class Observer>
class observer_holder<Observer, true> {
 public:
  explicit observer_holder(Observer&& o) : observer_(std::make_shared<Observer>(std::move(o))) {}

  [[nodiscard]] Observer& get() const noexcept { return *observer_; }
  [[nodiscard]] const std::shared_ptr<Observer>& owner() const noexcept { return observer_; }
  /// Lets the observer live on, for calls that end after the group.
  void keep() const noexcept { ::new (std::nothrow) std::shared_ptr<Observer>(observer_); }

 private:
  std::shared_ptr<Observer> observer_;
};

[[nodiscard]] constexpr leaving leaving_for(reason why) noexcept {
  switch (why) {
    case reason::deadline:
      return leaving::deadline;
    case reason::stop:
      return leaving::stop;
    case reason::newer_call:
      return leaving::newer_call;
    case reason::circle:
      return leaving::circle;
    default:
      return leaving::gone;
  }
}

[[nodiscard]] constexpr refusal refusal_for(reason why) noexcept {
  switch (why) {
    case reason::deadline:
      return refusal::deadline;
    case reason::stop:
      return refusal::stop;
    case reason::circle:
      return refusal::circle;
    default:
      return refusal::full;
  }
}

/// Who began a call, as far as the observer is concerned. Lives as long as the call.
template <class Observer, class Key>
struct begun_call {
  using want = wants<Observer, Key>;
  using clock = std::chrono::steady_clock;

  typename want::capture leader{};  // fixed before the call is listed
  clock::time_point began;          // of who begins it, before it can end
  std::optional<Key> key;           // likewise; empty if it is not needed

  /// To be called under the lock, before the call begins. Throws: what copying the key throws.
  template <class Call>
  void begin(Call& own) {
    if constexpr (want::to_capture) own.captured = &leader;
    if constexpr (want::key_later) key.emplace(own.key);
  }

  /// To be called outside the lock, before the call can end.
  void start() noexcept {
    if constexpr (want::call_ended || want::left) began = clock::now();
  }

  template <class Call>
  void tell_ended(Observer& o, const Call& own, ending how) const noexcept {
    if constexpr (want::call_ended) {
      const call_ended_event<typename want::capture> e{leader, clock::now() - began, how,
                                                       own.followers()};
      call_ended_hook::tell(o, key ? *key : own.key, e);
    }
  }

  /// `named`: the key, if there is no copy of it.
  void tell_left(Observer& o, leaving why, const Key* named = nullptr) const noexcept {
    if constexpr (want::left) {
      const left_event<typename want::capture> e{leader, clock::now() - began, why, true};
      if constexpr (want::key_later) {
        left_hook::tell(o, named != nullptr ? *named : *key, e);
      } else {
        left_hook::tell(o, nullptr, e);
      }
    }
  }
};

/// A call on the heap whose end is told.
template <class Base, class Observer, class Key>
class watched_call final : public Base {
 public:
  template <class... Args>
  explicit watched_call(std::shared_ptr<Observer> o, Args&&... args)
      : Base(std::forward<Args>(args)...), observer_(std::move(o)) {}

  begun_call<Observer, Key> begun;

 private:
  void is_over(bool lost) noexcept override {
    if (!lost) {
      begun.tell_ended(*observer_, this->get(),
                       this->has_value_ ? ending::value : ending::exception);
    }
    Base::is_over(lost);
  }

  const std::shared_ptr<Observer> observer_;
};

/// How a caller has left its call.
struct leave_note {
  std::optional<reason> left;
  std::optional<std::chrono::steady_clock::time_point> superseded;  // when the call began

  void leaves(reason why) noexcept { left = why; }
  template <class Call>
  void supersedes(const Call& old) noexcept {
    superseded = old.began;
  }
};

/// What one entry of a caller tells the observer, in that caller's frame.
template <class Observer, class Key, bool IsTold = wants<Observer, Key>::anything>
class watch {
  using want = wants<Observer, Key>;
  using capture = typename want::capture;
  using clock = std::chrono::steady_clock;
  using holder = observer_holder<Observer, true>;

  /// The key is the waiting caller's, which outlives the wait.
  struct teller final : wait_teller {
    teller(const std::shared_ptr<Observer>& o, const Key& k) : observer(o), key(k) {}

    void tell_left(reason why) noexcept override {
      if constexpr (want::superseded) {
        if (superseded) {
          superseded_hook::tell(*observer, key, superseded_event{clock::now() - *superseded});
        }
      }
      if constexpr (want::left) {
        left_hook::tell(*observer, key,
                        left_event<capture>{leader, clock::now() - since, leaving_for(why), began});
      }
    }
    void tell_ended(bool with_value) noexcept override {
      if constexpr (want::wait_ended) {
        wait_ended_hook::tell(
            *observer, key,
            wait_ended_event<capture>{leader, clock::now() - since,
                                      with_value ? ending::value : ending::exception});
      }
    }

    const std::shared_ptr<Observer> observer;
    const Key& key;
    capture leader{};
    clock::time_point since;
    bool began = false;
  };

 public:
  static constexpr bool tells = true;
  using note = leave_note;
  template <class Base>
  using watched = watched_call<Base, Observer, Key>;

  explicit watch(const holder& o) noexcept : holder_(o), observer_(o.get()) {
    if constexpr (want::to_capture) begun_.leader = o.get().capture();
  }
  /// For one key of several: `captured` when their caller entered.
  watch(const holder& o, const capture& captured) noexcept : holder_(o), observer_(o.get()) {
    begun_.leader = captured;
  }
  watch(const watch&) = delete;
  watch& operator=(const watch&) = delete;

  /// To be called each time that the caller enters.
  void enters(const account& me) noexcept { again_ = me.counted; }

  // --- Under the lock of the shard ---------------------------------------------------------------

  template <class Call>
  void supersedes(const Call& old) noexcept {
    superseded_ = old.began;
  }

  /// Throws: what copying the key throws, and then the call must not begin.
  template <class Call>
  void begins(Call& own, const Call* running) {
    alone_ = running != nullptr;
    begun_.begin(own);
  }

  /// As above, for a call whose key nobody else gets when it has ended.
  template <class Call>
  void begins_and_keeps_key(Call& own, const Call* running) noexcept {
    alone_ = running != nullptr;
    if constexpr (want::to_capture) own.captured = &begun_.leader;
  }

  /// As above, for a call on the heap, which has been made as `watched`.
  template <class Base, class Call>
  void begins(Base& own, const Call* running) requires requires {
    own.get();
  }
  {
    alone_ = running != nullptr;
    begun_.begin(own.get());
    auto& begun = static_cast<watched<Base>&>(own).begun;
    begun.leader = begun_.leader;
    begun.begin(own.get());
  }

  /// Makes a call on the heap.
  template <class Base, class... Args>
  [[nodiscard]] std::shared_ptr<Base> make(Args&&... args) const {
    return std::make_shared<watched<Base>>(holder_.owner(), std::forward<Args>(args)...);
  }

  template <class Call>
  void joins(const Call& running) noexcept {
    followers_ = running.followers();
    if constexpr (want::to_capture) {
      joined_ =
          running.captured != nullptr ? *static_cast<const capture*>(running.captured) : capture{};
    }
  }

  /// Makes what tells of the end of an asynchronous wait, before the lock. Throws:
  /// `std::bad_alloc`.
  [[nodiscard]] std::unique_ptr<teller> make_teller(const Key& key) const {
    return std::make_unique<teller>(holder_.owner(), key);
  }

  /// Says what it is to tell of, when the caller has joined or begun a call.
  [[nodiscard]] std::unique_ptr<teller> arm(std::unique_ptr<teller> t, bool began) const noexcept {
    t->leader = began ? begun_.leader : joined_;
    t->began = began;
    if constexpr (want::wait_time) t->since = clock::now();
    return t;
  }

  // --- Outside all locks -------------------------------------------------------------------------

  template <class K>
  void tell_superseded(const K& key) noexcept {
    if constexpr (want::superseded) {
      if (!superseded_) return;
      superseded_hook::tell(observer_, key, superseded_event{clock::now() - *superseded_});
    }
    superseded_.reset();
  }

  /// To be made before the lock, for a caller that an exception ends after it has found a call too
  /// old.
  template <class K>
  [[nodiscard]] auto tells_superseded(const K& key) noexcept {
    struct telling {
      watch& self;
      const K& key;
      telling(watch& w, const K& k) noexcept : self(w), key(k) {}
      telling(const telling&) = delete;
      telling& operator=(const telling&) = delete;
      ~telling() { self.tell_superseded(key); }
    };
    return telling(*this, key);
  }

  template <class K>
  void tell_refused(const K& key, reason why) noexcept {
    if constexpr (want::rejected) {
      rejected_hook::tell(observer_, key, rejected_event{refusal_for(why), again_});
    }
  }

  template <class K>
  void tell_joined(const K& key, bool in_future = false) noexcept {
    if constexpr (want::joined) {
      joined_hook::tell(observer_, key,
                        joined_event<capture>{joined_, followers_, in_future, again_});
    }
    if constexpr (want::wait_time) since_ = clock::now();
  }

  /// To be called before the loader, or whatever else ends the call.
  void tell_began(const Key& key) noexcept {
    tell_superseded(key);
    if constexpr (want::call_began) {
      call_began_hook::tell(observer_, key,
                            call_began_event<capture>{begun_.leader, alone_, again_});
    }
    begun_.start();
  }

  template <class Base>
  void tell_began_elsewhere(Base& own) noexcept {
    tell_began(own.get().key);
    static_cast<watched<Base>&>(own).begun.began = begun_.began;
  }

  /// Runs `lead()`, which leads the call in this frame, and tells of its beginning and its end.
  template <class Call, class Lead>
  auto lead(Call& own, Lead&& lead) {
    tell_began(own.key);
    struct end {
      watch& self;
      Call& own;
      ending how = ending::exception;
      ~end() { self.tell_ended(own, how); }
    } at_end{*this, own};
    auto got = std::forward<Lead>(lead)();
    at_end.how = ending::value;
    return got;
  }

  /// To be called when a call in this frame has ended whose beginning was told.
  template <class Call>
  void tell_ended(const Call& own, ending how) const noexcept {
    begun_.tell_ended(observer_, own, how);
  }

  /// What a leader in this frame calls that withdraws its interest.
  [[nodiscard]] auto on_withdrawal(const Key* named = nullptr) const noexcept {
    return [this, named]() noexcept { begun_.tell_left(observer_, leaving::stop, named); };
  }

  /// Tells that the caller has joined a call, waits for it, and tells of the end of the wait.
  template <class K, class Waiter, class Home>
  auto follow(const K& key, Waiter& waiter, Home& home, entry& me) {
    if constexpr (want::joined) waiter.not_yet();
    tell_joined(key);
    return wait(key, waiter, home, me);
  }

  /// As above for a caller of which it was told that it has joined the call.
  template <class K, class Waiter, class Home>
  auto wait(const K& key, Waiter& waiter, Home& home, entry& me) {
    struct end {
      watch& self;
      const K& key;
      const Waiter& waiter;
      ending how = ending::exception;
      ~end() { self.tell_end_of_wait(key, waiter, how); }
    } at_end{*this, key, waiter};
    auto got = waiter.wait(home, me);
    if (got) at_end.how = ending::value;
    return got;
  }

  /// Waits for the call that the caller has begun elsewhere, and tells if it leaves.
  template <class Waiter, class Home>
  auto wait_for_own(Waiter& waiter, Home& home, entry& me, const Key* named = nullptr) {
    struct end {
      const watch& self;
      const Waiter& waiter;
      const Key* named;
      ~end() { self.tell_end_of_wait_for_own(waiter, named); }
    } const at_end{*this, waiter, named};
    return waiter.wait(home, me);
  }

  template <class Waiter>
  void tell_end_of_wait_for_own(const Waiter& waiter, const Key* named) const noexcept {
    const auto& left = waiter.note().left;
    if (left) begun_.tell_left(observer_, leaving_for(*left), named);
  }

  template <class K, class Waiter>
  void tell_end_of_wait(const K& key, const Waiter& waiter, ending how) noexcept {
    const leave_note& n = waiter.note();
    superseded_ = n.superseded;
    tell_superseded(key);
    if (n.left) {
      if constexpr (want::left) {
        left_hook::tell(
            observer_, key,
            left_event<capture>{joined_, clock::now() - since_, leaving_for(*n.left), false});
      }
    } else if constexpr (want::wait_ended) {
      wait_ended_hook::tell(observer_, key,
                            wait_ended_event<capture>{joined_, clock::now() - since_, how});
    }
  }

 private:
  const holder& holder_;             // of the group, which exit may destroy while the call runs
  Observer& observer_;               // which then stays
  begun_call<Observer, Key> begun_;  // of a call that this caller begins
  bool alone_ = false;
  bool again_ = false;
  std::optional<clock::time_point> superseded_;  // when the call began that it found too old

  // Of a call that it joins.
  capture joined_{};
  std::size_t followers_ = 0;
  clock::time_point since_;
};

/// The same for who observes nothing.
template <class Observer, class Key>
class watch<Observer, Key, false> {
 public:
  static constexpr bool tells = false;
  using note = no_note;
  template <class Base>
  using watched = Base;

  explicit watch(const observer_holder<Observer, false>&) noexcept {}

  static void enters(const account&) noexcept {}
  template <class Call>
  static void supersedes(const Call&) noexcept {}
  template <class K>
  [[nodiscard]] static no_note tells_superseded(const K&) noexcept {
    return {};
  }
  template <class Own, class Call>
  static void begins(Own&, const Call*) noexcept {}
  template <class Base, class... Args>
  [[nodiscard]] static std::shared_ptr<Base> make(Args&&... args) {
    return std::make_shared<Base>(std::forward<Args>(args)...);
  }
  template <class Call>
  static void joins(const Call&) noexcept {}
  template <class K>
  static void tell_refused(const K&, reason) noexcept {}
  template <class K>
  static void tell_joined(const K&, bool = false) noexcept {}
  template <class Base>
  static void tell_began_elsewhere(Base&) noexcept {}
  template <class K, class Waiter, class Home>
  static auto follow(const K&, Waiter& waiter, Home& home, entry& me) {
    return waiter.wait(home, me);
  }
  template <class Waiter, class Home>
  static auto wait_for_own(Waiter& waiter, Home& home, entry& me) {
    return waiter.wait(home, me);
  }
};

}  // namespace singleflight::inline SINGLEFLIGHT_ABI::detail

#endif  // SINGLEFLIGHT_DETAIL_WATCH_HPP
