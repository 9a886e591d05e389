// SPDX-License-Identifier: MIT
// A group, the caller whose uses fail, the callers beside it, and what must hold when all are back.
#ifndef SINGLEFLIGHT_TESTS_FAULTS_WORLD_HPP
#define SINGLEFLIGHT_TESTS_FAULTS_WORLD_HPP

#include <gtest/gtest.h>

#include <atomic>
#include <chrono>
#include <cstddef>
#include <deque>
#include <exception>
#include <future>
#include <optional>
#include <singleflight/coroutine.hpp>
#include <singleflight/group.hpp>
#include <system_error>
#include <utility>
#include <vector>

#include "../executors.hpp"
#include "../support.hpp"
#include "subjects.hpp"

namespace faults {

using clock = std::chrono::steady_clock;

/// What one caller got: a value, an exception, or neither if its thread ended.
struct answer {
  std::optional<int> number;
  std::exception_ptr thrown;
};

/// How the loader of another caller fails where an operation wants that.
struct let_down : std::exception {};

class world {
 public:
  using group = singleflight::group<key, value, key_hash, key_equal>;

  static constexpr int ours = 42;    // what the loaders of the caller under test return
  static constexpr int theirs = 43;  // and those of the others

  world(const singleflight::group_options& options, clock::duration how_long)
      : g(options), patience(how_long) {}
  world(const world&) = delete;
  world& operator=(const world&) = delete;
  ~world() { all_return(); }

  group g;
  const clock::duration patience;  // how quick this machine is, at the least
  const key k0{0}, k1{1};
  key given_away{0};
#if defined(__cpp_lib_jthread)
  std::stop_source stop;
  std::stop_token loaders_token;
#endif

  // For every caller. They count the entries.

  template <class... Args>
  singleflight::result<value> do_call(Args&&... args) {
    ++entries_;
    return g.do_call(std::forward<Args>(args)...);
  }
  template <class Executor, class Fn>
  singleflight::result<value> do_call_on(const key& k, const Executor& executor,
                                         const singleflight::call_options& options, const Fn& fn) {
    ++entries_;
    return g.do_call_on(k, executor, options, fn);
  }
  template <class Executor, class Fn>
  std::shared_future<value> do_async(const key& k, const Executor& executor, const Fn& fn) {
    ++entries_;
    return g.do_async(k, executor, fn);
  }
  template <class Start, class Done>
  void async_call(const key& k, const singleflight::async_options& options, const Start& start,
                  const Done& done) {
    ++entries_;
    g.async_call(k, singleflight::resume_inline, options, start, done);
  }
  [[nodiscard]] auto lead_or_follow(const key& k) {
    ++entries_;
    return g.lead_or_follow(k);
  }
  template <class Fn>
  [[nodiscard]] auto do_many(const singleflight::bulk_options& options, const Fn& fn) {
    const std::vector<key> keys = both_keys();
    return g.do_many(keys, options, fn);
  }
  template <class Executor, class Fn>
  [[nodiscard]] auto do_many_on(const Executor& executor, const Fn& fn) {
    const std::vector<key> keys = both_keys();
    return g.do_many_on(keys, executor, {}, fn);
  }
  template <class Fn>
  [[nodiscard]] auto co_call_many(const Fn& fn) {
    const std::vector<key> keys = both_keys();
    return g.co_call_many(keys, singleflight::resume_inline, fn);
  }
  template <class Fn>
  [[nodiscard]] auto co_call(const key& k, const Fn& fn) {
    ++entries_;
    return g.co_call(k, singleflight::resume_inline, fn);
  }

  template <class On, class Start, class Done>
  void async_call(const key& k, const On& on, const singleflight::async_options& options,
                  const Start& start, Done done) {
    ++entries_;
    g.async_call(k, on, options, start, std::move(done));
  }
  template <class On, class Load>
  auto co_call(const key& k, const On& on, const singleflight::async_options& options,
               const Load& load) {
    ++entries_;
    return g.co_call(k, on, options, load);
  }

  // For the caller under test.

  static auto load() {
    return faulty_loader([] { return value(ours); });
  }
  /// A loader that first has two others join, and can then fail once more.
  auto load_for_others() {
    return faulty_loader([this] {
      others_join_us();
      use(point::loader);
      return value(ours);
    });
  }
  /// The same for many keys.
  auto load_many_for_others() {
    return faulty_bulk_loader([this](auto& missing) {
      if (missing[0].id() == k0.id()) others_join_us();  // else the call of key 0 could not begin
      use(point::loader);
      for (std::size_t i = 0; i < missing.size(); ++i) missing.set_at(i, value(ours));
    });
  }
  static auto load_many() {
    return faulty_bulk_loader([](auto& missing) {
      for (std::size_t i = 0; i < missing.size(); ++i) {
        use(point::loader);
        missing.set_at(i, value(ours));
      }
    });
  }
  void others_join_us() {
    const carrying nothing(nullptr);
    const std::size_t waiting = g.stats().waiting;
    for (int i = 0; i < 2; ++i) start(with_us_, [this] { return follow(); });
    support::await_followers(g, waiting + 2);
  }

  /// Takes the value out of a result.
  static void take(singleflight::result<value> result, int expected) {
    EXPECT_EQ(result->number, expected);
    const value taken = std::move(result);
    EXPECT_EQ(taken.number, expected);
  }

  static constexpr auto inline_executor = [](auto task) {
    use(point::executor);
    task();
  };
  static constexpr auto dropping_executor = [](const auto&) { use(point::executor); };
  /// Has threads of its own, which carry what the caller carries.
  auto thread_executor() {
    return [this](auto task) {
      use(point::executor);
      executor_threads_([task = std::move(task), plan = carried] {
        const carrying the_same(plan);
        task();
      });
    };
  }

  // For the callers beside it.

  /// Begins a call for key 0 that ends when `enough()`, or when the caller under test is over.
  template <class Enough>
  void another_leads_until(const Enough& enough) {
    const auto led = g.stats().led;
    start(with_others_, [this, enough] {
      return do_call(k0, [this, enough] {
        support::await([&] { return over_ || enough(); }, "the caller under test");
        return value(theirs);
      });
    });
    support::await([&] { return g.stats().led > led; }, "the other call to run");
  }
  void another_leads_until_we_join() {
    another_leads_until([this] { return we_have_joined(); });
  }
  void another_leads_until_we_are_over() {
    another_leads_until([] { return false; });
  }
#if defined(__cpp_lib_jthread)
  /// Withdraws at `stop`; its loader has `loaders_token`.
  void another_leads_that_can_be_told_to_stop() {
    std::atomic<bool> loading{false};
    start(with_others_, [this, &loading] {
      singleflight::call_options options;
      options.stop = stop.get_token();
      return do_call(k0, options, [this, &loading](std::stop_token token) {
        loaders_token = std::move(token);
        loading = true;
        support::await([&] { return over_.load(); }, "the caller under test");
        return value(theirs);
      });
    });
    support::await([&] { return loading.load(); }, "the other call to run");
  }
#endif
  void another_follows() {
    const std::size_t followers = ++others_joined_;  // before it joins, which must not end the call
    start(with_others_, [this] { return follow(); });
    support::await_followers(g, followers);
  }
  [[nodiscard]] bool we_have_joined() const { return g.stats().joined > others_joined_; }

  // Afterwards.

  void all_return() {
    over_ = true;
    executor_threads_.join();
    callers_.join();
  }

  /// Expects that this is a world in which some uses failed, as the plan says, and no harm was done.
  void expect_unharmed(const plan& done, const answer& our_answer) {
    for (const answer& a : with_others_) expect_answer(a, theirs);
    for (const answer& a : with_us_) {
      EXPECT_EQ(a.thrown, with_us_.front().thrown);
      if (a.thrown == nullptr) {
        EXPECT_EQ(a.number, ours);
      } else if (our_answer.thrown != nullptr) {
        EXPECT_EQ(a.thrown, our_answer.thrown);
      } else {
        EXPECT_EQ(support::call_error_of(a.thrown), std::errc::owner_dead);
      }
    }
    expect_balanced(done);
    for (const key* k : {&k0, &k1}) {
      EXPECT_FALSE(g.forget(*k));
      auto next = g.do_call(*k, [] { return value(1); });
      EXPECT_TRUE(next.led());
      EXPECT_FALSE(next.shared());
      EXPECT_EQ(next->number, 1);
    }
  }

 private:
  template <class Call>
  void start(std::deque<answer>& told, const Call& call) {
    answer& mine = told.emplace_back();
    callers_.start([&mine, call] {
      try {
        mine.number = (*call()).number;
      } catch (const std::exception&) {
        mine.thrown = std::current_exception();
      }
    });
  }

  singleflight::result<value> follow() {
    return do_call(k0, [] {
      ADD_FAILURE() << "a follower's loader ran";
      return value(0);
    });
  }

  static void expect_answer(const answer& a, int expected) {
    if (a.thrown != nullptr) {
      EXPECT_THROW(std::rethrow_exception(a.thrown), let_down);
    } else {
      EXPECT_EQ(a.number, expected);
    }
  }

  /// Each entry is counted once; only one that failed before it led, joined or was rejected is not.
  void expect_balanced(const plan& done) const {
    const auto stats = g.stats();
    EXPECT_EQ(stats.in_flight, 0U);
    EXPECT_EQ(stats.waiting, 0U);
    EXPECT_TRUE(g.in_flight().empty());
    const auto counted = stats.led + stats.joined + stats.rejected;
    EXPECT_LE(counted, entries_);
    EXPECT_GE(counted + (may_precede_counting(done.where()) ? done.failures() * most_at_once_ : 0),
              entries_);
    const bool failed = !with_us_.empty() && with_us_.front().thrown != nullptr;
    const bool loader_failed = done.failures() > 0 && is_the_work_itself(done.where());
    if (failed || loader_failed) {
      EXPECT_GE(stats.failed, 1U);
    }
  }
  static bool may_precede_counting(point p) {
    return p == point::allocation || p == point::hash || p == point::equality ||
           p == point::key_copy || p == point::key_move;
  }
  static bool is_the_work_itself(point p) {
    return p == point::loader || p == point::loader_copy || p == point::executor;
  }

  /// For a caller that asks for both keys at once.
  [[nodiscard]] std::vector<key> both_keys() {
    const carrying nothing(nullptr);
    entries_ += 2;
    most_at_once_ = 2;
    return {k0, k1};
  }

  std::atomic<std::size_t> entries_{0};
  std::size_t most_at_once_ = 1;  // keys of one caller
  std::atomic<std::size_t> others_joined_{0};
  std::atomic<bool> over_{false};
  std::deque<answer> with_us_, with_others_;
  support::thread_executor executor_threads_;
  support::threads callers_;
};

}  // namespace faults

#endif  // SINGLEFLIGHT_TESTS_FAULTS_WORLD_HPP
