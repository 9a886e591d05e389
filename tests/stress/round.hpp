// SPDX-License-Identifier: MIT
// One round: a group, its callers and what they do.
#ifndef SINGLEFLIGHT_TESTS_STRESS_ROUND_HPP
#define SINGLEFLIGHT_TESTS_STRESS_ROUND_HPP

#include <algorithm>
#include <atomic>
#include <chrono>
#include <coroutine>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <exception>
#include <future>
#include <memory>
#include <mutex>
#include <optional>
#include <singleflight/coroutine.hpp>
#include <singleflight/group.hpp>
#include <stop_token>
#include <string>
#include <thread>
#include <type_traits>
#include <utility>
#include <variant>
#include <vector>

#include "../tasks.hpp"
#include "../thread_pool.hpp"
#include "ledger.hpp"
#include "plan.hpp"

namespace stress {

using clock = std::chrono::steady_clock;

/// The number of operations that have ended; main watches that it grows.
inline std::atomic<std::uint64_t> operations_done{0};

/// A caller's stop token, which other threads can trigger.
class stop_slot {
 public:
  [[nodiscard]] std::stop_token renew() {
    std::stop_source fresh;
    const std::lock_guard lock(mutex_);
    std::swap(source_, fresh);
    return source_.get_token();
  }
  void request_stop() {
    std::unique_lock lock(mutex_);
    std::stop_source source = source_;
    lock.unlock();
    source.request_stop();
  }

 private:
  std::mutex mutex_;
  std::stop_source source_;  // guarded by mutex_
};

template <class Key>
class round {
 public:
  explicit round(const plan& p)
      : plan_(p),
        ledger_(p),
        slots_(static_cast<std::size_t>(p.threads)),
        pool_(std::in_place, p.executors || p.asynchronous ? 3 : 0),
        group_(std::in_place, p.options) {
    for (int i = 0; i <= p.keys; ++i) keys_.push_back(make_key(i));
  }

  void run() {
    std::vector<std::thread> callers;
    for (int i = 0; i < plan_.threads; ++i) callers.emplace_back([this, i] { work(i); });
    for (std::thread& t : callers) t.join();
    wait_for_those_who_are_left();
    ledger_.settle(group_->stats());
    if (!group_->in_flight().empty()) plan_.violated("a call is listed at the end");
    group_.reset();
    pool_.reset();  // its threads may be about to destroy the last copies of values
    if (answer::alive() != 0) plan_.violated("values constructed and not destroyed");
  }

 private:
  using group = singleflight::group<Key, answer>;
  using entry = ledger::entry;

  /// The behaviour of a loader, drawn when its caller enters.
  struct load {
    round& all;
    int key;
    std::uint64_t seed;
    std::uint64_t excuses_over;
    int depth;       // the number of loaders around it
    bool on_a_pool;  // whose threads must not wait for each other

    answer operator()() const { return all.execute(*this, nullptr); }
  };
  struct stoppable_load : load {
    answer operator()(const std::stop_token& stop) const { return this->all.execute(*this, &stop); }
  };
  struct pending {
    entry at;
    std::shared_future<answer> future;
  };

  static Key make_key(int i) {
    if constexpr (std::is_same_v<Key, std::string>) {
      return "a key that fits in no small buffer, " + std::to_string(i);
    } else {
      return i;
    }
  }
  [[nodiscard]] const Key& key(int i) const { return keys_[static_cast<std::size_t>(i)]; }
  [[nodiscard]] int any_key(dice& random) const {
    return static_cast<int>(random.below(static_cast<std::uint32_t>(plan_.keys)));
  }

  void work(int who) {
    dice random(plan_.seed, plan_.round, static_cast<std::uint64_t>(who) + 1);
    std::deque<pending> futures;
    for (int i = 0; i < plan_.operations; ++i) {
      operate(random, who, futures);
      operations_done.fetch_add(1, relaxed);
      if (random.one_in(16)) std::this_thread::yield();
      if (futures.size() > 4) settle_oldest(futures);
    }
    while (!futures.empty()) settle_oldest(futures);
  }

  void operate(dice& random, int who, std::deque<pending>& futures) {
    const int k = any_key(random);
    switch (random.below(32)) {
      case 0:
        if (plan_.forgets) forget(k, true);
        break;
      case 1:
        if (plan_.forgets) forget(k, false);
        break;
      case 2: {
        const singleflight::group_stats s = group_->stats();
        if (s.waiting > 0 && s.led + s.rejected == 0)
          plan_.violated("a caller waits, and no call was ever begun");
        break;
      }
      case 3:
        look_at_all();
        break;
      case 4:
      case 5:
        if (plan_.leaves)
          slots_[random.below(static_cast<std::uint32_t>(slots_.size()))].request_stop();
        break;
      case 6:
      case 7:
        if (plan_.executors) return enter_async(random, k, futures);
        [[fallthrough]];
      case 8:
      case 9:
        if (plan_.executors) return enter(random, k, who, 0, true);
        [[fallthrough]];
      case 10:
      case 11:
      case 12:
        if (plan_.asynchronous) return enter_coroutine(random, k, who);
        [[fallthrough]];
      case 13:
      case 14:
      case 15:
        if (plan_.asynchronous) return enter_callback(random, k, who);
        [[fallthrough]];
      case 16:
        if (plan_.asynchronous) return lead_or_follow(random, k);
        [[fallthrough]];
      default:
        enter(random, k, who, 0, false);
    }
  }

  void forget(int k, bool shared_too) {
    const ledger::excuse excuse(ledger_, k);
    if (shared_too) {
      group_->forget(key(k));
    } else {
      group_->forget_unshared(key(k));
    }
  }

  void look_at_all() {
    const auto all = group_->in_flight();
    std::vector<Key> listed;
    for (const auto& call : all) {
      if (call.waited < call.waited.zero()) plan_.violated("a wait began in the future");
      listed.push_back(call.key);
    }
    std::sort(listed.begin(), listed.end());
    if (std::adjacent_find(listed.begin(), listed.end()) != listed.end()) {
      plan_.violated("a key is listed twice");
    }
  }

  [[nodiscard]] load draw_load(dice& random, const entry& at, int depth, bool on_a_pool) {
    return {*this, at.how.key, random.below(1U << 31), at.excuses_over, depth, on_a_pool};
  }

  /// One caller's entry, by do_call or do_call_on. `depth`: how many loaders it is made in.
  void enter(dice& random, int k, int who, int depth, bool on_executor, bool hurry = false) {
    visit how{.key = k, .in_a_loader = depth > 0};
    singleflight::call_options options;
    options.attempts = random.one_in(4) ? 1 + random.below(3) : 1;
    how.has_deadline = hurry || (plan_.leaves && random.one_in(4));
    if (how.has_deadline) {
      const auto time =
          std::chrono::microseconds(random.below(400)) - std::chrono::microseconds(20);
      if (random.one_in(2)) {
        options.timeout = time;
      } else {
        options.deadline = clock::now() + time;
      }
    }
    how.has_stop = plan_.leaves && depth == 0 && random.one_in(3);
    if (how.has_stop) options.stop = slots_[static_cast<std::size_t>(who)].renew();
    // A caller that can leave may be the last one, and then unlists the call. A caller that finds
    // the call full may run alone beside it.
    std::optional<ledger::excuse> excuse;
    if (how.has_deadline || how.has_stop || plan_.fills_up()) excuse.emplace(ledger_, k);
    const bool plain = !how.has_deadline && !how.has_stop && options.attempts == 1;
    const entry at = ledger_.enter(how);
    const load fn = draw_load(random, at, depth, on_executor || hurry);
    const bool takes_token = random.one_in(4);
    const int executor = on_executor ? static_cast<int>(random.below(16)) : 0;
    observe(
        at,
        [&](const auto& loader) {
          if (on_executor) {
            return group_->do_call_on(
                key(k), [&](auto t) { execute_on(executor, k, std::move(t)); }, options, loader);
          }
          return plain ? group_->do_call(key(k), loader) : group_->do_call(key(k), options, loader);
        },
        fn, takes_token);
  }

  template <class Enter>
  void observe(const entry& at, const Enter& enter, const load& fn, bool takes_token) {
    try {
      const auto result = takes_token ? enter(stoppable_load{fn}) : enter(fn);
      ledger_.answered(at, *result, result.led());
    } catch (const load_failed& thrown) {
      ledger_.failed(at, thrown);
    } catch (const singleflight::call_error& refused) {
      ledger_.refused(at, refused.code());
    }
  }

  void enter_async(dice& random, int k, std::deque<pending>& futures) {
    std::optional<ledger::excuse> excuse;
    if (plan_.fills_up()) excuse.emplace(ledger_, k);
    const entry at = ledger_.enter({.key = k});
    const load fn = draw_load(random, at, 0, true);
    const int executor = static_cast<int>(random.below(16));
    try {
      futures.push_back(
          {at, group_->do_async(
                   key(k), [&](auto t) { execute_on(executor, k, std::move(t)); }, fn)});
    } catch (const singleflight::call_error& refused) {
      ledger_.refused(at, refused.code());
    }
  }

  // --- Asynchronous callers ------------------------------------------------------------------------

  /// One of them, until it has been answered.
  struct visitor {
    visitor(round& r, dice& random, int k, int who) : all(r) {
      visit how{.key = k, .has_stop = r.plan_.leaves && random.one_in(3)};
      if (how.has_stop) options.stop = r.slots_[static_cast<std::size_t>(who)].renew();
      options.attempts = random.one_in(4) ? 1 + random.below(3) : 1;
      if (how.has_stop || r.plan_.fills_up()) excuse.emplace(r.ledger_, k);
      at = r.ledger_.enter(how);
      fn.emplace(r.draw_load(random, at, 0, true));
      r.visitors_.fetch_add(1);
    }
    visitor(const visitor&) = delete;
    visitor& operator=(const visitor&) = delete;
    ~visitor() {
      excuse.reset();
      all.visitors_.fetch_sub(1);
    }

    /// Calls what gives its answer.
    template <class Answer>
    void be_answered(const Answer& answer) {
      if (answered.exchange(true)) all.plan_.violated("an asynchronous caller was answered twice");
      try {
        const auto result = answer();
        all.ledger_.answered(at, *result, result.led());
      } catch (const load_failed& thrown) {
        all.ledger_.failed(at, thrown);
      } catch (const singleflight::call_error& refused) {
        all.ledger_.refused(at, refused.code());
      }
    }

    round& all;
    singleflight::async_options options;
    std::optional<ledger::excuse> excuse;
    entry at{};
    std::optional<load> fn;
    std::atomic<bool> answered = false;
  };
  using visitor_ptr = std::shared_ptr<visitor>;

  struct on_the_pool {
    round* all;
    template <class Task>
    void operator()(Task task) const {
      all->pool_->post(task);
      all->pool_->post(std::move(task));  // the second time it does nothing
    }
  };

  /// Goes on on the pool.
  struct hop {
    round& all;
    [[nodiscard]] static bool await_ready() noexcept { return false; }
    void await_suspend(std::coroutine_handle<> me) const {
      all.pool_->post([me] { me.resume(); });
    }
    static void await_resume() noexcept {}
  };

  template <class On, class Load>
  static support::detached ask(visitor_ptr v, On on, Load fn) {
    std::exception_ptr failed;
    std::optional<singleflight::result<answer>> got;
    try {
      got.emplace(co_await v->all.group_->co_call(v->all.key(v->at.how.key), on, v->options, fn));
    } catch (...) {
      failed = std::current_exception();
    }
    v->be_answered([&]() -> singleflight::result<answer> {
      if (failed != nullptr) std::rethrow_exception(std::exchange(failed, nullptr));
      return std::move(*got);
    });
  }

  template <class Load>
  void ask(dice& random, visitor_ptr v, const Load& fn) {
    if (random.one_in(2)) {
      ask(std::move(v), singleflight::resume_inline, fn);
    } else {
      ask(std::move(v), on_the_pool{this}, fn);
    }
  }

  void enter_coroutine(dice& random, int k, int who) {
    const auto v = std::make_shared<visitor>(*this, random, k, who);
    const load fn = *v->fn;
    if (random.one_in(4)) return ask(random, v, fn);
    if (random.one_in(4)) return ask(random, v, stoppable_load{fn});
    ask(random, v, [fn, hops = random.below(3)]() -> support::lazy_task<answer> {
      for (auto i = hops; i > 0; --i) co_await hop{fn.all};
      co_return fn();
    });
  }

  /// What becomes of the leader of a call.
  void end_somewhere(std::uint32_t kind, singleflight::leader<answer> mine, const load& fn) {
    if (kind == 0) return;               // drops it
    if (kind == 1 && !plan_.strict()) {  // what is thrown here has no number
      auto call = std::make_shared<call_record>();
      call->key = fn.key;
      ledger_.throw_failure(std::move(call));
    }
    if (kind < 6) return std::move(mine).set_from(fn);
    const auto shared = std::make_shared<singleflight::leader<answer>>(std::move(mine));
    pool_->post([shared, fn] { std::move(*shared).set_from(fn); });
  }

  void enter_callback(dice& random, int k, int who) {
    const auto v = std::make_shared<visitor>(*this, random, k, who);
    const auto start = [this, fn = *v->fn,
                        kind = random.below(12)](singleflight::leader<answer> mine) {
      end_somewhere(kind, std::move(mine), fn);
    };
    const auto done = [v](singleflight::outcome<answer> o) {
      v->be_answered([&]() -> singleflight::result<answer> {
        if (!o.has_value()) std::rethrow_exception(o.error());
        return std::move(o).result();
      });
    };
    if (random.one_in(2)) {
      group_->async_call(key(k), singleflight::resume_inline, v->options, start, done);
    } else {
      group_->async_call(key(k), on_the_pool{this}, v->options, start, done);
    }
  }

  void lead_or_follow(dice& random, int k) {
    std::optional<ledger::excuse> excuse;
    if (plan_.fills_up()) excuse.emplace(ledger_, k);
    const entry at = ledger_.enter({.key = k});
    const load fn = draw_load(random, at, 0, true);
    const std::uint32_t kind = random.below(12);
    try {
      auto either = group_->lead_or_follow(key(k));
      if (auto* const mine = std::get_if<singleflight::leader<answer>>(&either)) {
        return end_somewhere(kind == 1 ? 0 : kind, std::move(*mine), fn);
      }
      const auto& result = std::get<singleflight::result<answer>>(either);
      ledger_.answered(at, *result, result.led());
    } catch (const load_failed& thrown) {
      ledger_.failed(at, thrown);
    } catch (const singleflight::call_error& refused) {
      ledger_.refused(at, refused.code());
    }
  }

  void settle_oldest(std::deque<pending>& futures) {
    const pending p = std::move(futures.front());
    futures.pop_front();
    try {
      ledger_.answered(p.at, p.future.get(), false);
    } catch (const load_failed& thrown) {
      ledger_.failed(p.at, thrown);
    } catch (const singleflight::call_error& refused) {
      ledger_.refused(p.at, refused.code());
    }
  }

  template <class Task>
  void execute_on(int kind, int k, Task task) {
    if (kind == 0) return;  // drops it
    if (kind == 1) return task();
    if (kind == 2) {
      auto call = std::make_shared<call_record>();
      call->key = k;
      ledger_.throw_failure(std::move(call));
    }
    if (kind == 3) pool_->post(task);  // and a second time
    pool_->post(std::move(task));
  }

  answer execute(const load& l, const std::stop_token* stop) {
    dice random(l.seed, 0, 0);
    auto call = std::make_shared<call_record>();
    call->key = l.key;
    const ledger::running here(ledger_, call, l.excuses_over);
    const auto callback = [this, seed = random.below(1U << 31)] { be_stopped(seed); };
    std::optional<std::stop_callback<decltype(callback)>> told;
    if (stop != nullptr) told.emplace(*stop, callback);
    for (auto pauses = random.below(4); pauses > 0; --pauses) std::this_thread::yield();
    if (l.key == plan_.keys) return answer(std::move(call));
    if (plan_.forgets && random.one_in(16)) forget(l.key, random.one_in(2));
    // Not with the number of the caller: a loader on a pool has none.
    if (l.depth < 2 && random.one_in(8)) {
      enter(random, any_key(random), 0, l.depth + 1, false, l.on_a_pool);
    }
    if (plan_.leaves && random.one_in(16))
      slots_[random.below(static_cast<std::uint32_t>(slots_.size()))].request_stop();
    call->stopped = stop != nullptr && stop->stop_requested();
    if (random.one_in(8)) {
      ledger_.thrown_by_a_loader();
      ledger_.throw_failure(std::move(call));
    }
    return answer(std::move(call));
  }

  /// The stop callback of a loader, on whatever thread. It may ask only for the last key, whose loaders
  /// wait for nothing, so that it is never refused; and the pool's loaders wait with deadlines.
  void be_stopped(std::uint64_t seed) {
    dice random(seed, 0, 0);
    if (random.one_in(2)) {
      std::optional<ledger::excuse> excuse;
      if (plan_.fills_up()) excuse.emplace(ledger_, plan_.keys);
      const entry at = ledger_.enter({.key = plan_.keys});
      const auto ask = [&](const auto& loader) { return group_->do_call(key(plan_.keys), loader); };
      observe(at, ask, draw_load(random, at, 0, false), false);
    }
    if ((plan_.executors || plan_.asynchronous) && random.one_in(2)) pool_->help();
  }

  /// Calls that all their callers have left, and asynchronous callers.
  void wait_for_those_who_are_left() {
    while (group_->stats().in_flight > 0 || visitors_.load() > 0) std::this_thread::yield();
    group_->wait_drained();
  }

  const plan& plan_;
  ledger ledger_;
  std::vector<Key> keys_;
  std::vector<stop_slot> slots_;
  std::atomic<int> visitors_ = 0;  // asynchronous callers that have not been answered
  std::optional<support::thread_pool> pool_;
  std::optional<group> group_;
};

}  // namespace stress

#endif  // SINGLEFLIGHT_TESTS_STRESS_ROUND_HPP
