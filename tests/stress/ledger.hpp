// SPDX-License-Identifier: MIT
// Checks each operation against the conditions that hold in every interleaving. The counters are
// relaxed: anything stronger would order the threads, and hide from ThreadSanitizer a missing order
// in the group itself.
#ifndef SINGLEFLIGHT_TESTS_STRESS_LEDGER_HPP
#define SINGLEFLIGHT_TESTS_STRESS_LEDGER_HPP

#include <algorithm>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <exception>
#include <limits>
#include <memory>
#include <mutex>
#include <singleflight/group.hpp>
#include <system_error>
#include <utility>
#include <vector>

#include "plan.hpp"

namespace stress {

inline constexpr auto relaxed = std::memory_order_relaxed;
inline constexpr std::uint64_t never = std::numeric_limits<std::uint64_t>::max();

/// One call, as its loader began it. Its answer and its exception refer to it.
struct call_record {
  int key = 0;
  std::uint64_t number = 0;  // calls are numbered as their loaders begin
  bool stopped = false;      // whether the loader saw its stop token triggered
  std::atomic<std::uint64_t> first_return = never;  // when the first caller returned with it
  std::atomic<const void*> exception_seen =
      nullptr;  // the address at which the first caller saw it
};

/// The result type of loaders. Counts its live objects.
class answer {
 public:
  explicit answer(std::shared_ptr<call_record> c) noexcept : call_(std::move(c)) {
    alive_.fetch_add(1, relaxed);
  }
  answer(const answer& other) noexcept : call_(other.call_) { alive_.fetch_add(1, relaxed); }
  answer(answer&& other) noexcept : call_(std::move(other.call_)) { alive_.fetch_add(1, relaxed); }
  answer& operator=(const answer&) = delete;
  answer& operator=(answer&&) = delete;
  ~answer() { alive_.fetch_sub(1, relaxed); }

  [[nodiscard]] const std::shared_ptr<call_record>& call() const noexcept { return call_; }
  [[nodiscard]] static std::int64_t alive() noexcept { return alive_.load(relaxed); }

 private:
  static inline std::atomic<std::int64_t> alive_{0};

  std::shared_ptr<call_record> call_;
};

/// The exception that loaders and executors throw.
struct load_failed {
  std::shared_ptr<call_record> call;
};

/// The way in which a caller enters, which decides the errors that it may get.
struct visit {
  int key = 0;
  bool in_a_loader = false;
  bool has_deadline = false;
  bool has_stop = false;
};

/// The records of one key.
struct alignas(64) key_book {
  std::atomic<std::uint64_t> highest_returned{0};
  std::atomic<std::uint64_t> excuses_begun{0};
  std::atomic<std::uint64_t> excuses_over{0};
  std::mutex mutex;
  std::vector<std::uint64_t> running;  // the excuses that were over when each of them entered
};

class ledger {
 public:
  explicit ledger(const plan& p) : plan_(p), books_(static_cast<std::size_t>(p.keys) + 1) {}

  /// An operation that may unlist one call of the key, or run one beside the listed one, lives
  /// from before it to after it.
  class excuse {
   public:
    excuse(ledger& l, int key) noexcept : book_(l.book(key)) {
      book_.excuses_begun.fetch_add(1, relaxed);
    }
    excuse(const excuse&) = delete;
    excuse& operator=(const excuse&) = delete;
    ~excuse() { book_.excuses_over.fetch_add(1, relaxed); }

   private:
    key_book& book_;
  };

  struct entry {
    visit how;
    std::uint64_t at;            // on the ledger's clock
    std::uint64_t highest;       // number that a caller had returned with
    std::uint64_t excuses_over;  // for its key
  };
  [[nodiscard]] entry enter(const visit& how) noexcept {
    entries_.fetch_add(1, relaxed);
    const key_book& b = book(how.key);
    return {how, tick(), b.highest_returned.load(relaxed), b.excuses_over.load(relaxed)};
  }

  /// A loader's run: of those that run for one key at once, all but one have an excuse.
  class running {
   public:
    running(ledger& l, const std::shared_ptr<call_record>& call, std::uint64_t excuses_over)
        : ledger_(l), book_(l.book(call->key)), excuses_over_(excuses_over) {
      call->number = l.numbers_.fetch_add(1, relaxed) + 1;
      if (!l.plan_.counts_loaders) return;
      const std::lock_guard lock(book_.mutex);
      auto& all = book_.running;
      all.push_back(excuses_over_);
      const std::uint64_t excuses =
          book_.excuses_begun.load(relaxed) - *std::min_element(all.begin(), all.end());
      if (all.size() - 1 > excuses) l.plan_.violated("two listed calls of one key ran at once");
    }
    running(const running&) = delete;
    running& operator=(const running&) = delete;
    ~running() {
      if (!ledger_.plan_.counts_loaders) return;
      const std::lock_guard lock(book_.mutex);
      book_.running.erase(std::find(book_.running.begin(), book_.running.end(), excuses_over_));
    }

   private:
    ledger& ledger_;
    key_book& book_;
    std::uint64_t excuses_over_;
  };

  void answered(const entry& e, const answer& a, bool led) noexcept { returned(e, *a.call(), led); }

  void failed(const entry& e, const load_failed& thrown) noexcept {
    const void* first = nullptr;
    if (!thrown.call->exception_seen.compare_exchange_strong(first, &thrown, relaxed) &&
        first != &thrown) {
      plan_.violated("a caller got a copy of the exception");
    }
    returned(e, *thrown.call, true);  // an exception does not say whether its caller led
  }

  /// To be called while the error is being handled.
  void refused(const entry& e, const std::error_code& why) {
    if (why == std::errc::timed_out) {
      timed_out_.fetch_add(1, relaxed);
      if (!e.how.has_deadline) plan_.violated("a caller without a deadline timed out");
    } else if (why == std::errc::operation_canceled) {
      cancelled_.fetch_add(1, relaxed);
      if (!e.how.has_stop) plan_.violated("a caller without a stop token was cancelled");
    } else if (why == std::errc::resource_deadlock_would_occur) {
      if (!e.how.in_a_loader)
        plan_.violated("a circle was seen through a thread that leads nothing");
    } else if (why == std::errc::resource_unavailable_try_again) {
      if (!plan_.fills_up()) plan_.violated("a call was full that cannot be");
    } else if (why == std::errc::owner_dead) {
      if (!plan_.executors && !plan_.asynchronous) plan_.violated("work ended without a result");
      keep(std::current_exception());  // other callers have it, too
    } else {
      plan_.violated("a call_error has an unknown code");
    }
  }

  /// Throws, and keeps what it throws until the threads are joined: ThreadSanitizer does not see
  /// what orders the last release of an exception.
  [[noreturn]] void throw_failure(std::shared_ptr<call_record> call) {
    const auto failure = std::make_exception_ptr(load_failed{std::move(call)});
    keep(failure);
    std::rethrow_exception(failure);
  }
  void keep(std::exception_ptr shared) {
    const std::lock_guard lock(mutex_);
    kept_.push_back(std::move(shared));
  }

  void thrown_by_a_loader() noexcept { thrown_.fetch_add(1, relaxed); }

  /// When all operations of the round are over.
  void settle(const singleflight::group_stats& s) const noexcept {
    const auto expect = [this](bool holds, const char* what) {
      if (!holds) plan_.violated(what);
    };
    expect(s.led + s.joined + s.rejected == entries_.load(), "led + joined + rejected != entries");
    expect(s.in_flight == 0 && s.waiting == 0, "a gauge is not 0 at the end");
    expect(s.timed_out == timed_out_.load(), "timed_out is not how many were told so");
    expect(s.cancelled >= cancelled_.load(), "cancelled is less than how many were told so");
    expect(plan_.leaves || s.cancelled == 0,
           "a caller was cancelled in a round without stop requests");
    expect(plan_.ages() || s.superseded == 0, "a call was superseded in a group without max_age");
    if (!plan_.executors && !plan_.asynchronous)
      expect(s.failed == thrown_.load(), "failed is not how many loaders threw");
  }

 private:
  friend class excuse;
  friend class running;

  [[nodiscard]] key_book& book(int key) noexcept { return books_[static_cast<std::size_t>(key)]; }
  [[nodiscard]] std::uint64_t tick() noexcept { return clock_.fetch_add(1, relaxed); }

  /// A caller has returned with a call's outcome.
  void returned(const entry& e, call_record& call, bool led) noexcept {
    if (call.key != e.how.key) plan_.violated("a caller got another key's answer");
    if (call.first_return.load(relaxed) < e.at) plan_.violated("a caller got an ended call");
    if (call.stopped && !led) plan_.violated("a caller waited for a call that was stopped");
    if (plan_.strict()) {
      if (call.number <= e.highest) plan_.violated("a caller got an older call than is known");
      raise(book(call.key).highest_returned, call.number);
    }
    lower(call.first_return, tick());
  }

  static void raise(std::atomic<std::uint64_t>& to, std::uint64_t value) noexcept {
    std::uint64_t now = to.load(relaxed);
    while (now < value && !to.compare_exchange_weak(now, value, relaxed)) {
    }
  }
  static void lower(std::atomic<std::uint64_t>& to, std::uint64_t value) noexcept {
    std::uint64_t now = to.load(relaxed);
    while (now > value && !to.compare_exchange_weak(now, value, relaxed)) {
    }
  }

  const plan& plan_;
  std::vector<key_book> books_;
  std::atomic<std::uint64_t> clock_{1};
  std::atomic<std::uint64_t> numbers_{0};
  std::atomic<std::uint64_t> entries_{0};
  std::atomic<std::uint64_t> timed_out_{0};
  std::atomic<std::uint64_t> cancelled_{0};
  std::atomic<std::uint64_t> thrown_{0};
  std::mutex mutex_;
  std::vector<std::exception_ptr> kept_;  // guarded by mutex_
};

}  // namespace stress

#endif  // SINGLEFLIGHT_TESTS_STRESS_LEDGER_HPP
