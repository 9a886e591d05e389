// SPDX-License-Identifier: MIT
#ifndef SINGLEFLIGHT_DETAIL_ASYNC_BULK_HPP
#define SINGLEFLIGHT_DETAIL_ASYNC_BULK_HPP

#include <algorithm>
#include <atomic>
#include <bit>
#include <cstddef>
#include <exception>
#include <memory>
#include <optional>
#include <thread>
#include <type_traits>
#include <utility>
#include <vector>

#include "../async_options.hpp"
#include "../call_error.hpp"
#include "../leader.hpp"
#include "../outcome.hpp"
#include "async_batch.hpp"
#include "bulk.hpp"
#include "bulk_keys.hpp"
#include "callback_wait.hpp"
#include "config.hpp"

#if defined(__cpp_lib_jthread)
#include <stop_token>
#endif

// What an asynchronous caller does that asks for many keys at once.
namespace singleflight::inline SINGLEFLIGHT_ABI::detail {

/// Gives `async_bulk` what it needs of a group.
struct bulk_access {
  template <class Group>
  [[nodiscard]] static int shard_bits(Group& group) noexcept {
    return std::countr_zero(group.shards_.all().size());
  }
  template <class Group, class Bulk, class Given>
  static void add_to(Bulk& bulk, Group& group, Given&& given) {
    auto&& key = Group::lookup_key(std::forward<Given>(given));
    const auto [home, hash] = group.shards_.locate(group.hash_(key));
    bulk.add(home, hash, std::forward<decltype(key)>(key), group.equal_);
  }
  /// Whether hooks run, which may wait, while a caller asks for its keys.
  template <class Group>
  static constexpr bool tells = Group::watch::tells;
  template <class Group>
  [[nodiscard]] static auto functions_of(const Group& group) {
    using hash = std::remove_const_t<decltype(group.hash_)>;
    using equal = std::remove_const_t<decltype(group.equal_)>;
    return key_functions<hash, equal>{group.hash_, group.equal_};
  }
};

/// One caller of many keys, which is no thread. Owned by its front and by the waits for its keys.
///
/// For each key it waits as a caller of `group::async_call`. Those that it begins while it enters
/// are loaded by one invocation of the loader, which does not wait for those that it joins; so
/// callers whose keys overlap cannot wait for each other. `Start` starts a loader for a batch;
/// `Done` is called once, with this, when the last key is answered, unless that is in `begin`.
template <class Group, class Load, class Start, class Done>
class async_bulk : public std::enable_shared_from_this<async_bulk<Group, Load, Start, Done>> {
  using key_type = typename Group::key_type;
  using value_type = typename Group::value_type;
  using bulk_key_type = bulk_key<key_type, value_type>;
  using functions = decltype(bulk_access::functions_of(std::declval<const Group&>()));
  using batch = async_batch<key_type, value_type, functions>;

 public:
  using answers = std::vector<outcome<value_type>>;

  /// Reads the keys. Throws: what hash, equality, copies and allocations throw.
  template <class Keys, class L, class... D>
  async_bulk(Group& group, Keys& keys, const async_bulk_options& options, L&& load, D&&... done)
      : group_(group),
        options_(options.call),
        max_batch_(options.max_batch),
        functions_(bulk_access::functions_of(group)),
        load_(std::forward<L>(load)),
        done_{std::forward<D>(done)...} {
    const std::size_t most = count_of(keys);
    keys_ = std::make_shared<bulk_keys<key_type, value_type>>(most, bulk_access::shard_bits(group));
    answers_.reserve(most);
    for (auto&& given : keys) {
      bulk_access::add_to(*this, group, std::forward<decltype(given)>(given));
    }
    next_ = keys_->in_order().begin();
  }

  [[nodiscard]] Done& done() noexcept { return done_; }
  [[nodiscard]] const Load& load() const noexcept { return load_; }

  /// Asks for the keys. Returns: whether all are answered; if not, `done` is called later, or has
  /// been on another thread.
  [[nodiscard]] bool begin() {
#if defined(__cpp_lib_jthread)
    if (options_.stop.stop_possible()) on_stop_.emplace(options_.stop, stopper{&leave_});
    options_.stop = leave_.get_token();
#endif
    return ask();
  }

  /// The caller is gone: leaves all calls, and asks for no more keys.
  void abandon() noexcept {
    gone_.store(true);
    leave(reason::stop);
  }

  /// Makes the caller leave, for a stop request or at its deadline: each of its keys that is not
  /// answered is, with the reason.
  void leave([[maybe_unused]] reason why) noexcept {
#if defined(__cpp_lib_jthread)
    if (why == reason::deadline && !leave_.stop_requested()) late_.store(true);
    stopper{&leave_}();
#endif
  }

  /// To be called once, when all keys are answered. Returns: an outcome for each position.
  [[nodiscard]] answers take_answers() {
    for (const repetition& r : repetitions_) {
      outcome_maker::renew_as(answers_[r.position], answers_[r.key->first]);
    }
    return std::move(answers_);
  }

 private:
  friend struct bulk_access;

  struct repetition {
    std::size_t position;
    bulk_key_type* key;
  };

  template <class Shard, class K, class KeyEqual>
  void add(Shard& home, std::uint64_t hash, K&& key, const KeyEqual& equal) {
    const std::size_t position = answers_.size();
    bulk_key_type& k = keys_->add(home, hash, std::forward<K>(key), position, {}, equal);
    answers_.emplace_back(no_outcome_yet());
    if (k.first == position) return;
    k.again = true;
    repetitions_.push_back({position, &k});
  }

  /// Asks for one batch of keys after the other, as long as all before are answered at once.
  /// Returns: whether all are answered.
  [[nodiscard]] bool ask() noexcept {
    while (next_ != keys_->in_order().end() && !gone_.load()) {
      open_.store(1);  // this function
      ask_for_a_batch();
      if (open_.fetch_sub(1) > 1) return false;
    }
    return true;
  }

  void ask_for_a_batch() noexcept {
    const auto end = keys_->in_order().end();
    std::shared_ptr<batch> all;
    try {
      all = std::make_shared<batch>(keys_, functions_,
                                    (std::min)(static_cast<std::size_t>(end - next_), max_batch_));
    } catch (...) {
      for (; next_ != end; ++next_) outcome_maker::renew(answers_[next_->first], current_failure());
      return;
    }
    gathering_ = all.get();
    gatherer_.store(std::this_thread::get_id());
    while (next_ != end && all->size() < max_batch_) ask_for(*(asked_ = next_++));
    gatherer_.store({});
    if constexpr (bulk_access::tells<Group>) all->hand_over();
    if (all->size() > 0) Start::start(all, load_);
  }

  void ask_for(bulk_key_type& k) noexcept {
    open_.fetch_add(1);
    const auto self = this->shared_from_this();
    const auto start = [self, &k](leader<value_type> lead) { self->begun(k, std::move(lead)); };
    const auto done = [self, &k](outcome<value_type> got) noexcept {
      self->answered(k, std::move(got));
    };
    using wait = callback_wait<Group, resume_inline_t, std::remove_const_t<decltype(start)>,
                               std::remove_const_t<decltype(done)>>;
    try {
      wait::enter(std::make_shared<wait>(group_, key_type(k.own.key), resume_inline, options_,
                                         start, done, &late_));
    } catch (...) {  // what the equality or an allocation throws is the answer for this key
      outcome_maker::renew(answers_[k.first], current_failure());
      open_.fetch_sub(1);
    }
  }

  /// A call of a key has begun: while that key is asked for, or because another call has failed,
  /// which may also happen while other keys are asked for.
  void begun(bulk_key_type& k, leader<value_type>&& lead) {
    if (gatherer_.load() == std::this_thread::get_id() && &k == asked_) {
      gathering_->add(k, std::move(lead));
      if constexpr (bulk_access::tells<Group>) gathering_->lead_last_here();
      return;
    }
    const auto alone = std::make_shared<batch>(keys_, functions_, 1);
    alone->add(k, std::move(lead));
    Start::start(alone, load_);
  }

  void answered(bulk_key_type& k, outcome<value_type>&& got) noexcept {
    if (k.again) outcome_maker::share(got);
    outcome_maker::renew_from(answers_[k.first], std::move(got));
    if (open_.fetch_sub(1) > 1 || !ask()) return;
    if (!gone_.load()) done_(this->shared_from_this());
  }

  Group& group_;
  async_options options_;
  const std::size_t max_batch_;
  const functions functions_;
  const Load load_;  // each batch has a copy
  Done done_;
  std::shared_ptr<bulk_keys<key_type, value_type>> keys_;
  answers answers_;
  std::vector<repetition> repetitions_;
  bulk_key_type* next_ = nullptr;          // to be asked for; of who counts `open_` down to none
  std::atomic<std::size_t> open_ = 0;      // keys that are not answered, and a function that asks
  std::atomic<bool> gone_ = false;         // whether the caller is
  std::atomic<bool> late_ = false;         // whether it has left at its deadline
  std::atomic<std::thread::id> gatherer_;  // the thread that asks for keys, if any does
  batch* gathering_ = nullptr;             // what that thread adds the calls to that it begins
  bulk_key_type* asked_ = nullptr;         // the key that it asks for

#if defined(__cpp_lib_jthread)
  struct stopper {
    std::stop_source* leave;
    void operator()() const noexcept {
      std::stop_source(*leave).request_stop();  // a copy, which outlives the caller that it ends
    }
  };

  std::stop_source leave_;
  std::optional<std::stop_callback<stopper>> on_stop_;
#endif
};

}  // namespace singleflight::inline SINGLEFLIGHT_ABI::detail

#endif  // SINGLEFLIGHT_DETAIL_ASYNC_BULK_HPP
