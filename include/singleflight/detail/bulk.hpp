// SPDX-License-Identifier: MIT
#ifndef SINGLEFLIGHT_DETAIL_BULK_HPP
#define SINGLEFLIGHT_DETAIL_BULK_HPP

#include <algorithm>
#include <bit>
#include <chrono>
#include <cstddef>
#include <exception>
#include <memory>
#include <optional>
#include <thread>
#include <utility>
#include <vector>

#include "../call_error.hpp"
#include "../outcome.hpp"
#include "../stats.hpp"
#include "bulk_keys.hpp"
#include "bulk_watch.hpp"
#include "call_map.hpp"
#include "config.hpp"
#include "executor_batch.hpp"
#include "fixed_block.hpp"
#include "follow.hpp"
#include "led_batch.hpp"
#include "mutex.hpp"

// What a caller does that asks for many keys at once.
namespace singleflight::inline SINGLEFLIGHT_ABI::detail {

/// Returns: how many elements a range has.
template <class Range>
[[nodiscard]] std::size_t count_of(Range& range) {
  if constexpr (requires { range.size(); }) {
    return static_cast<std::size_t>(range.size());
  } else {
    std::size_t n = 0;
    for ([[maybe_unused]] auto&& element : range) ++n;
    return n;
  }
}

/// One call of `do_many`, in its caller's frame.
///
/// It works in rounds: list the keys that nobody loads and join the calls of the others; run the
/// loader and end all calls of one's own; only then wait for the calls of others. A caller so never
/// waits while somebody may wait for it, and callers whose keys overlap cannot wait for each other,
/// in whatever order they come; no two shards are ever locked together. The keys whose calls failed
/// or grew too old, and may be tried again, are those of the next round.
template <class Group, class Key, class Value>
class bulk {
  using key_type = bulk_key<Key, Value>;
  using shard = call_map<Key, Value>;
  using watch = typename Group::bulk_watch;

 public:
  /// Reads all keys, which runs the user's code for them, before any call is listed.
  /// Throws: what hash, equality, the copy of a key and the allocations throw.
  template <class Keys>
  bulk(Group& group, Keys& keys, const wait_limits& limits, std::size_t max_batch)
      : group_(group),
        limits_(limits),
        max_batch_(max_batch),
        count_(count_of(keys)),
        keys_(std::make_shared<bulk_keys<Key, Value>>(
            count_, std::countr_zero(group.shards_.all().size()))),
        seen_(group.observer_, *keys_, count_),
        batch_(*keys_, answers_, (std::min)(count_, max_batch), seen_.to_tell_ends()),
        joined_(count_) {
    answers_.reserve(count_);
    const std::thread::id caller = std::this_thread::get_id();
    for (auto&& given : keys) {
      add(Group::lookup_key(std::forward<decltype(given)>(given)), caller);
    }
    seen_.enter();
  }
  bulk(const bulk&) = delete;
  bulk& operator=(const bulk&) = delete;

  /// Ends what it has begun, and leaves what it has not waited for, if its thread is ended.
  ~bulk() {
    batch_.give_up();
    for (joined_key& j : joined_) {
      if (j.over) continue;
      j.wait.abandon(j.key.home);
      seen_.abandons(j.key, j.wait);
    }
  }

  /// Runs the loader on this thread. Returns: an outcome for each position of the range.
  template <class Fn>
  [[nodiscard]] std::vector<outcome<Value>> run(Fn& fn) {
    const auto find = [this](const Key& key) { return group_.find_in(*keys_, key); };
    enter_all();
    for (;;) {
      batch_.lead(limits_.options(), find, fn);
      if (pending_.size() == 0) wait();
      if (pending_.size() == 0) return take_answers();
      batch_.clear();
      enter_pending();
    }
  }

  /// Runs the loader on an executor. Returns: as above.
  template <class Executor, class Fn>
  [[nodiscard]] std::vector<outcome<Value>> run_on(Executor& executor, const Fn& fn) {
    using batch = executor_batch<Group, Key, Value, Fn>;
    for (bool first = true;; first = false) {
      const auto own = std::make_shared<batch>(group_, group_.shards_.owned(), keys_,
                                               (std::min)(count_, max_batch_));
      begin_elsewhere_ = {own.get(), [](void* to, key_type& k) { static_cast<batch*>(to)->add(k); },
                          0};
      try {
        first ? enter_all() : enter_pending();
      } catch (...) {  // its thread is ended
        own->give_up();
        throw;
      }
      if (own->size() > 0) own->launch(executor, fn);
      for_own([](joined_key& j) { j.key.elsewhere->handed_over(); });
      for_own([this](joined_key& j) { wait_for(j); });
      if (pending_.size() == 0) wait();
      if (pending_.size() == 0) return take_answers();
    }
  }

 private:
  /// A key that was mentioned before.
  struct repetition {
    std::size_t position;
    key_type* key;
  };

  struct joined_key {
    joined_key(const wait_limits& limits, key_type& k) noexcept : wait(limits), key(k) {}
    waiter<Key, Value, typename watch::note> wait;
    key_type& key;
    bool over = false;  // whether it has been waited for
  };

  [[nodiscard]] std::vector<outcome<Value>> take_answers() {
    for (const repetition& r : repetitions_) {
      outcome_maker::renew_as(answers_[r.position], answers_[r.key->first]);
    }
    return std::move(answers_);
  }

  template <class K>
  void add(K&& key, std::thread::id caller) {
    const auto [home, hash] = group_.shards_.locate(group_.hash_(key));
    const std::size_t position = answers_.size();
    key_type& k = keys_->add(home, hash, std::forward<K>(key), position, caller, group_.equal_);
    answers_.emplace_back(no_outcome_yet());
    if (k.first == position) return;
    k.again = true;
    repetitions_.push_back({position, &k});
  }

  // --- Entering ----------------------------------------------------------------------------------

  enum class entered { yes, refused, no_room };

  void enter_all() {
    enter(keys_->next_by_shard(nullptr), [this](key_type* k) { return keys_->next_by_shard(k); });
  }
  void enter_pending() {
    enter(pending_.take(), [](key_type* k) { return k->next; });
  }

  /// Joins, or begins a call for, each of these keys. Those for which the batch has no room become
  /// pending. `next` gives the key after another.
  template <class Next>
  void enter(key_type* k, const Next& next) {
    const std::optional<reason> late = why_too_late();
    while (k != nullptr) {
      shard& home = k->home;
      key_list<Key, Value> refused;
      [[maybe_unused]] const auto telling = seen_.tells_at_exit();
      {
        const lock guard(home.mutex);
        do {
          key_type& one = *std::exchange(k, next(k));
          const entered did = late ? refuse_late(home, one, *late) : enter_one(home, one);
          if (did != entered::yes) (did == entered::no_room ? pending_ : refused).push_back(one);
        } while (k != nullptr && &k->home == &home);
      }
      for (key_type* r = refused.first(); r != nullptr; r = r->next) {
        answer(*r, make_call_error(r->why));
      }
    }
  }

  [[nodiscard]] std::optional<reason> why_too_late() const noexcept {
    if (limits_.was_stopped()) return reason::stop;
    if (limits_.has_deadline() && std::chrono::steady_clock::now() >= limits_.deadline()) {
      return reason::deadline;
    }
    return std::nullopt;
  }

  SINGLEFLIGHT_DETAIL_NOINLINE entered refuse_late(shard& home, key_type& k, reason late)
      SINGLEFLIGHT_REQUIRES(home.mutex) {
    seen_.enters(k);
    k.me.count(home, &group_stats::rejected);
    home.count(late == reason::stop ? &group_stats::cancelled : &group_stats::timed_out);
    k.why = late;
    seen_.is_refused(k);
    return entered::refused;
  }

  /// What the equality or an allocation throws is the answer for this key.
  [[nodiscard]] entered enter_one(shard& home, key_type& k) SINGLEFLIGHT_REQUIRES(home.mutex) {
    auto&& seen = seen_.enters(k);
    try {
      auto* const running = group_.joinable(home, k.own.hash, k.own.key, seen);
      if (running != nullptr && !group_.must_run_alone(*running)) {
        return join(home, k, *running, seen);
      }
      if (batch_.size() + begin_elsewhere_.count == max_batch_) return entered::no_room;
      if (begin_elsewhere_.batch != nullptr) {
        begin_elsewhere(home, k, running);
      } else {
        begin(home, k, running);
      }
    } catch (...) {
      if (std::current_exception() == nullptr) throw;  // forced unwinding must go on
      answer(k, std::current_exception());
    }
    return entered::yes;
  }

  void begin(shard& home, key_type& k, call<Key, Value>* running)
      SINGLEFLIGHT_REQUIRES(home.mutex) {
    if (k.again) share_own(home, k);
    k.own.forgets_before = home.forgets();
    seen_.begins(k, running);
    if (batch_.size() == 0) home.count(&group_stats::batches);
    batch_.add(k);
    group_.begin(home, k.own, running, k.me);
  }

  SINGLEFLIGHT_DETAIL_NOINLINE void begin_elsewhere(shard& home, key_type& k,
                                                    call<Key, Value>* running)
      SINGLEFLIGHT_REQUIRES(home.mutex) {
    k.elsewhere = seen_.template make<batch_call<Key, Value>>(
        k, running, home, group_.shards_.owned(), k.own.hash, k.own.key);
    call<Key, Value>& begun = k.elsewhere->get();
    joined_key& mine = joined_.emplace_back(limits_, k);
    try {
      mine.wait.attend(home, k.elsewhere);
    } catch (...) {
      joined_.pop_back();
      throw;
    }
    k.own.stop = begun.stop;
    k.own.forgets_before = home.forgets();
    if (begin_elsewhere_.count++ == 0) home.count(&group_stats::batches);
    k.elsewhere->begin(home, k.elsewhere);
    k.handle = begun.shared->handle;
    begin_elsewhere_.add(begin_elsewhere_.batch, k);
    seen_.has_begun_elsewhere(k);
    group_.begin(home, begun, running, k.me);
  }

  /// Several results will show the value.
  SINGLEFLIGHT_DETAIL_NOINLINE void share_own(shard& home, key_type& k)
      SINGLEFLIGHT_REQUIRES(home.mutex) {
    home.make_ticket(k.own, {});
    k.own.shared->handed_out = true;
  }

  template <class Seen>
  SINGLEFLIGHT_DETAIL_NOINLINE entered join(shard& home, key_type& k, call<Key, Value>& running,
                                            Seen& seen) SINGLEFLIGHT_REQUIRES(home.mutex) {
    joined_key& joined = joined_.emplace_back(limits_, k);
    try {
      const std::optional<reason> refusal = group_.join(home, running, joined.wait, k.me, seen);
      if (!refusal) {
        joined.wait.not_yet();
        seen_.has_joined(k);
        return entered::yes;
      }
      k.why = *refusal;
      seen_.is_refused(k);
    } catch (...) {
      joined_.pop_back();
      throw;
    }
    joined_.pop_back();
    return entered::refused;
  }

  // --- Waiting -----------------------------------------------------------------------------------

  /// Waits for the calls that were joined, one after the other, while no call of this caller is
  /// open.
  void wait() {
    for (joined_key& j : joined_) {
      if (!j.over) wait_for(j);
    }
    joined_.clear();
    for (key_type* k = once_more_.take(); k != nullptr;) {
      pending_.push_back(*std::exchange(k, k->next));
    }
  }

  /// Calls `visit` for each call that this caller has begun on an executor and not waited for.
  template <class Visit>
  void for_own(const Visit& visit) {
    for (joined_key& j : joined_) {
      if (!j.over && j.key.elsewhere != nullptr) visit(j);
    }
  }

  void wait_for(joined_key& j) {
    j.over = true;
    key_type& k = j.key;
    try {
      if (auto got = seen_.wait(k, j.wait)) {
        outcome_maker::renew(answers_[k.first], *std::move(got));
      } else {
        once_more_.push_back(k);
      }
    } catch (...) {
      if (std::current_exception() == nullptr) throw;
      answer(k, std::current_exception());
    }
  }

  SINGLEFLIGHT_DETAIL_NOINLINE void answer(key_type& k, std::exception_ptr why) {
    outcome_maker::renew(answers_[k.first], std::move(why));
  }

  Group& group_;
  const wait_limits& limits_;
  const std::size_t max_batch_;
  const std::size_t count_;
  std::vector<outcome<Value>> answers_;
  std::shared_ptr<bulk_keys<Key, Value>> keys_;
  std::vector<repetition> repetitions_;
  key_list<Key, Value> pending_;    // to be entered for in the next round
  key_list<Key, Value> once_more_;  // likewise, once all that were joined have been waited for
  SINGLEFLIGHT_DETAIL_NO_UNIQUE_ADDRESS watch seen_;
  led_batch<Key, Value, typename watch::ends> batch_;
  fixed_block<joined_key> joined_;

  /// The batch on an executor that keys are added to; null: they are loaded here.
  struct {
    void* batch = nullptr;
    void (*add)(void* batch, key_type& k) = nullptr;
    std::size_t count = 0;
  } begin_elsewhere_;
};

}  // namespace singleflight::inline SINGLEFLIGHT_ABI::detail

#endif  // SINGLEFLIGHT_DETAIL_BULK_HPP
