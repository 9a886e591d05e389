// SPDX-License-Identifier: MIT
#ifndef SINGLEFLIGHT_OBSERVER_HPP
#define SINGLEFLIGHT_OBSERVER_HPP

#include <chrono>
#include <concepts>
#include <cstddef>
#include <type_traits>

#include "detail/config.hpp"
#include "detail/wait_graph.hpp"

// What an observer of a group is told. An observer is an object with some of these members, which
// the group calls; what it lacks costs nothing, not even a look at the clock:
//
//     struct slow_loads {
//       void call_ended(const std::string& key, const auto& e) const noexcept {
//         if (e.took > 1s) log("slow", key, e.took, e.followers);
//       }
//     };
//     singleflight::group<std::string, row, std::hash<std::string>, std::equal_to<std::string>,
//                         slow_loads> flights;
//
// | member        | when, and on which thread                                                          |
// |---------------|------------------------------------------------------------------------------------|
// | `call_began`  | a caller has begun a call: on its thread, before the loader                        |
// | `call_ended`  | after all who wait were told: on the thread that ended the call                    |
// | `joined`      | a caller has joined a call: on its thread, before it waits                         |
// | `wait_ended`  | a caller that joined got a value or an exception: where it is resumed, before that |
// | `left`        | a caller left without a result: on the thread that makes it leave                  |
// | `superseded`  | a call was unlisted because of its age: on the thread of who finds it too old      |
// | `rejected`    | a caller could neither begin nor join a call: on its thread, before it is told     |
// | `capture`     | a caller enters, before it is known whether it leads: on its thread                |
//
// Each takes the event, or the key and the event. Write `const auto&` for the event: it is a
// template on what `capture` returns, and may get more members. The key of `joined`, `wait_ended`,
// `left`, `superseded` and `rejected` is what the caller looked up by, which transparent lookup
// need not make a `Key`. An observer whose `call_ended` or `left` takes the key costs each call a
// copy of it.
//
// **Lock**: none is held. All members of the group may be called, by `call_ended` of an
// asynchronous call only if the group still lives. A hook that blocks, blocks the thread that it is
// called on, and nobody else: those who wait have been told before `call_ended`. One that would
// wait for a call that waits for its own thread is refused, as a loader is. It must not destroy the
// asynchronous caller that it is told of. **Threads**: many may call the same hook at
// once. **Order**: `call_began` before the `call_ended` of that call, `joined` before the
// `wait_ended` or `left` of that caller. Nothing else: a `wait_ended` may come before the
// `call_ended`. **How often**: for each `call_began` one `call_ended`. For each `joined` one
// `wait_ended` or `left`, unless the caller has a future (`do_async`). A caller that began a call
// may leave it, too. In a forked child nothing more is told of calls and callers of other threads.
// **Sums**: of events whose `again` is false, `joined` and `rejected` are those of `group_stats`;
// so is `led` of the `call_began` that are not `alone`, which count as rejected. Gauges are in
// `stats()`: do not add and subtract events for them. **Many keys**: a caller of `do_many` tells of
// each key once what a caller of that key alone tells. It captures once. **Lifetime**: what is
// passed lives until the hook returns. The observer itself is destroyed with the group, or with the
// last asynchronous call that outlives it. **Exceptions**: none. A hook that is not `noexcept` does
// not compile.
//
// What `capture` returns is handed to the hooks of all callers of the call that its caller leads: a
// span context, to which the spans of followers link. It must be trivially copyable, since it is
// copied under a lock.
namespace singleflight::inline SINGLEFLIGHT_ABI {

/// Observes nothing, at no cost.
struct no_observer {};

/// In the place of what `capture` returns, for observers without it.
struct no_capture {};

/// How a call ended, or the wait of a caller that got its result.
enum class ending : unsigned char { value, exception };

/// Why a caller left a call without its result.
enum class leaving : unsigned char {
  deadline,
  stop,        ///< Its stop request. A leader of a `do_call` only withdraws its interest.
  newer_call,  ///< The group's `max_age`: it goes on to the next call.
  circle,      ///< It would have waited for itself.
  gone         ///< It was destroyed, or its thread was cancelled, or its executor dropped it.
};

/// Why a caller could neither begin nor join a call.
enum class refusal : unsigned char { deadline, stop, circle, full };

/// Returns: the name of the enumerator.
[[nodiscard]] constexpr const char* to_string(ending how) noexcept {
  return how == ending::value ? "value" : "exception";
}
/// Returns: the name of the enumerator.
[[nodiscard]] constexpr const char* to_string(leaving why) noexcept {
  switch (why) {
    case leaving::deadline:
      return "deadline";
    case leaving::stop:
      return "stop";
    case leaving::newer_call:
      return "newer_call";
    case leaving::circle:
      return "circle";
    default:
      return "gone";
  }
}
/// Returns: the name of the enumerator.
[[nodiscard]] constexpr const char* to_string(refusal why) noexcept {
  switch (why) {
    case refusal::deadline:
      return "deadline";
    case refusal::stop:
      return "stop";
    case refusal::circle:
      return "circle";
    default:
      return "full";
  }
}

/// A caller has begun a call.
template <class Capture>
struct call_began_event {
  const Capture& leader;  ///< What `capture` gave this caller.
  bool alone;             ///< No other caller can join it: the listed call is full.
  bool again;             ///< The same entry of this caller has been counted before.
};

/// A call has ended, and those who wait for it have been told.
template <class Capture>
struct call_ended_event {
  const Capture& leader;                     ///< What `capture` gave who began it.
  std::chrono::steady_clock::duration took;  ///< Since `call_began`.
  ending how;                                ///< With which result.
  std::size_t followers;                     ///< Who waited for it in the end.
};

/// A caller has joined a call.
template <class Capture>
struct joined_event {
  const Capture& leader;  ///< What `capture` gave who began the call.
  std::size_t followers;  ///< How many have joined and wait, this one included.
  bool in_future;         ///< It has a future, and no end of its wait will be told.
  bool again;             ///< The same entry of this caller has been counted before.
};

/// A caller that joined a call has got its value or its exception.
template <class Capture>
struct wait_ended_event {
  const Capture& leader;                       ///< What `capture` gave who began the call.
  std::chrono::steady_clock::duration waited;  ///< Since it joined.
  ending how;                                  ///< With which result.
};

/// A caller has left a call without its result.
template <class Capture>
struct left_event {
  const Capture& leader;                       ///< What `capture` gave who began the call.
  std::chrono::steady_clock::duration waited;  ///< Since it joined or began the call.
  leaving why;                                 ///< The reason.
  bool began;                                  ///< It had begun the call, rather than joined it.
};

/// A call has left the map because of its age.
struct superseded_event {
  std::chrono::steady_clock::duration age;  ///< Since it was begun.
};

/// A caller could neither begin nor join a call.
struct rejected_event {
  refusal why;  ///< The reason.
  bool again;   ///< The same entry of this caller has been counted before.
};

namespace detail {

template <class Observer>
struct captured_by {
  using type = no_capture;
};
template <class Observer>
requires requires(Observer& o) { o.capture(); }
struct captured_by<Observer> {
  using type = std::remove_cvref_t<decltype(std::declval<Observer&>().capture())>;
};

// One such type for each hook: whether an observer has it, and how it is called. While a hook runs,
// its thread may lead calls that are listed, and the hook may wait. `is_named` tells a hook that
// takes something else from one that is absent: where both bases have a member of that name, the
// name is ambiguous.
#define SINGLEFLIGHT_DETAIL_HOOK(name)                                                             \
  struct name##_hook {                                                                             \
    template <class O, class Key, class Event>                                                     \
    static constexpr bool takes_key = requires(O & o, const Key& k, const Event& e) {              \
      o.name(k, e);                                                                                \
    };                                                                                             \
    template <class O, class Event>                                                                \
    static constexpr bool takes_event = requires(O & o, const Event& e) {                          \
      o.name(e);                                                                                   \
    };                                                                                             \
    template <class O, class Key, class Event>                                                     \
    static constexpr bool is_in = takes_key<O, Key, Event> || takes_event<O, Event>;               \
                                                                                                   \
    struct the_name {                                                                              \
      void name();                                                                                 \
    };                                                                                             \
    template <class O>                                                                             \
    struct both : O, the_name {};                                                                  \
    template <class O>                                                                             \
    [[nodiscard]] static consteval bool is_named() {                                               \
      if constexpr (std::is_class_v<O> && !std::is_final_v<O>) {                                   \
        return !requires { &both<O>::name; };                                                      \
      } else {                                                                                     \
        return false;                                                                              \
      }                                                                                            \
    }                                                                                              \
                                                                                                   \
    template <class O, class Key, class Event>                                                     \
    static constexpr void expect_callable() {                                                      \
      static_assert(is_in<O, Key, Event> || !is_named<O>(),                                        \
                    "singleflight: the observer's " #name                                          \
                    " must be callable with the event, or with the key and the event");            \
    }                                                                                              \
                                                                                                   \
    template <class O, class Key, class Event>                                                     \
    static void tell(O& o, [[maybe_unused]] const Key& key, const Event& e) noexcept {             \
      const leading_from_here here;                                                                \
      if constexpr (takes_event<O, Event> && !takes_key<O, Key, Event>) {                          \
        static_assert(noexcept(o.name(e)), "singleflight: the observer's " #name                   \
                                           " must be noexcept, since nobody could catch what it "  \
                                           "throws");                                              \
        o.name(e);                                                                                 \
      } else {                                                                                     \
        static_assert(takes_key<O, Key, Event>,                                                    \
                      "singleflight: the observer's " #name                                        \
                      " must take the key as const auto&, since callers look up by another type"); \
        static_assert(noexcept(o.name(key, e)),                                                    \
                      "singleflight: the observer's " #name                                        \
                      " must be noexcept, since nobody could catch what it throws");               \
        o.name(key, e);                                                                            \
      }                                                                                            \
    }                                                                                              \
  }

SINGLEFLIGHT_DETAIL_HOOK(call_began);
SINGLEFLIGHT_DETAIL_HOOK(call_ended);
SINGLEFLIGHT_DETAIL_HOOK(joined);
SINGLEFLIGHT_DETAIL_HOOK(wait_ended);
SINGLEFLIGHT_DETAIL_HOOK(left);
SINGLEFLIGHT_DETAIL_HOOK(superseded);
SINGLEFLIGHT_DETAIL_HOOK(rejected);

#undef SINGLEFLIGHT_DETAIL_HOOK

/// What an observer wants to know of a group with this key.
template <class Observer, class Key>
struct wants {
  using capture = typename captured_by<Observer>::type;

  static constexpr bool to_capture = !std::is_same_v<capture, no_capture>;
  static constexpr bool call_began =
      call_began_hook::is_in<Observer, Key, call_began_event<capture>>;
  static constexpr bool call_ended =
      call_ended_hook::is_in<Observer, Key, call_ended_event<capture>>;
  static constexpr bool joined = joined_hook::is_in<Observer, Key, joined_event<capture>>;
  static constexpr bool wait_ended =
      wait_ended_hook::is_in<Observer, Key, wait_ended_event<capture>>;
  static constexpr bool left = left_hook::is_in<Observer, Key, left_event<capture>>;
  static constexpr bool superseded = superseded_hook::is_in<Observer, Key, superseded_event>;
  static constexpr bool rejected = rejected_hook::is_in<Observer, Key, rejected_event>;

  static constexpr bool anything =
      call_began || call_ended || joined || wait_ended || left || superseded || rejected;
  static constexpr bool wait_time = wait_ended || left;

  /// Whether who begins a call keeps a copy of its key: the call's own may be gone by then.
  static constexpr bool key_later =
      call_ended_hook::takes_key<Observer, Key, call_ended_event<capture>> ||
      left_hook::takes_key<Observer, Key, left_event<capture>>;

  static consteval bool expect_well_formed() {
    static_assert(
        std::is_trivially_copyable_v<capture> && std::is_default_constructible_v<capture>,
        "singleflight: what the observer's capture returns must be trivially copyable and "
        "have a default, since it is copied under a lock");
    if constexpr (to_capture) {
      static_assert(noexcept(std::declval<Observer&>().capture()),
                    "singleflight: the observer's capture must be noexcept");
    }
    static_assert(
        !key_later || std::copy_constructible<Key>,
        "singleflight: call_ended and left must take the event alone here, since this Key "
        "cannot be copied");
    call_began_hook::expect_callable<Observer, Key, call_began_event<capture>>();
    call_ended_hook::expect_callable<Observer, Key, call_ended_event<capture>>();
    joined_hook::expect_callable<Observer, Key, joined_event<capture>>();
    wait_ended_hook::expect_callable<Observer, Key, wait_ended_event<capture>>();
    left_hook::expect_callable<Observer, Key, left_event<capture>>();
    superseded_hook::expect_callable<Observer, Key, superseded_event>();
    rejected_hook::expect_callable<Observer, Key, rejected_event>();
    return true;
  }
};

}  // namespace detail

/// What a group takes as an observer: an object that can be moved into it and has any of the
/// members above.
template <class Observer, class Key>
concept observer_of = std::is_object_v<Observer> && std::move_constructible<Observer> &&
    detail::wants<Observer, Key>::expect_well_formed();

}  // namespace singleflight::inline SINGLEFLIGHT_ABI

#endif  // SINGLEFLIGHT_OBSERVER_HPP
