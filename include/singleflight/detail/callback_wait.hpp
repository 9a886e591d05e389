// SPDX-License-Identifier: MIT
#ifndef SINGLEFLIGHT_DETAIL_CALLBACK_WAIT_HPP
#define SINGLEFLIGHT_DETAIL_CALLBACK_WAIT_HPP

#include <atomic>
#include <cstdint>
#include <exception>
#include <memory>
#include <type_traits>
#include <utility>

#include "../async_options.hpp"
#include "../call_error.hpp"
#include "../leader.hpp"
#include "async_wait.hpp"
#include "config.hpp"
#include "owned_call.hpp"
#include "wait_graph.hpp"

namespace singleflight::inline SINGLEFLIGHT_ABI::detail {

/// Starts the loader of a call that has begun, on this thread, which leads the call until it has
/// been started. If `load()` throws, so fails the call.
template <class Key, class Value, class Load>
void start(owned_call<Key, Value>& begun, Load&& load) {
  {
    const leading here;
    try {
      std::forward<Load>(load)();
    } catch (...) {
      begun.fail(current_failure());
      if (std::current_exception() == nullptr) throw;  // forced unwinding must go on
    }
  }
  begun.started();
}

/// A caller that is called back. Owned by itself while it waits, then by who calls it back.
template <class Group, class On, class Start, class Done>
class callback_wait final : public async_wait<typename Group::key_type, typename Group::value_type>,
                            public poster {
  using key_type = typename Group::key_type;
  using value_type = typename Group::value_type;
  using base = async_wait<key_type, value_type>;
  static constexpr bool inlined = std::is_same_v<On, resume_inline_t>;

 public:
  template <class O, class S, class D>
  callback_wait(Group& group, key_type&& key, O&& on, const async_options& options, S&& start,
                D&& done, const std::atomic<bool>* late = nullptr)
      : base(type_of_callbacks, &options_),
        options_(options, late),
        group_(group),
        key_(std::move(key)),
        on_(std::forward<O>(on)),
        start_(std::forward<S>(start)),
        done_(std::forward<D>(done)) {}
  ~callback_wait() { this->abandon(); }

  /// Throws: what entering throws, and then `done` is not called.
  static void enter(const std::shared_ptr<callback_wait>& me) {
    entered now;
    me->itself_ = me;
    try {
      me->heed_stops();
      now = async_access::enter(me->group_, *me, std::as_const(me->key_));
    } catch (...) {
      me->itself_.reset();
      throw;
    }
    if (now == entered::begun) {
      std::shared_ptr<owned_call<key_type, value_type>> begun = me->begun();
      try {
        detail::start(*begun, [&] {
          std::move(me->start_)(leader_maker::make<value_type>(std::move(begun)));
        });
      } catch (...) {  // this thread ends
        if (me->finish_start() == entered::ready) me->be_ready();
        throw;
      }
      now = me->finish_start();
    }
    if (now == entered::ready) me->be_ready();
  }

 private:
  /// Has it called back, here or elsewhere.
  void be_ready() noexcept {
    if constexpr (inlined) {
      trampoline::run(*this);
    } else {
      this->post(std::move(itself_));
    }
  }

  /// Given to the executor. The first to be run calls back; if all are dropped, the caller is gone.
  /// Others may be run late, when the caller waits for its next attempt.
  struct task {
    std::shared_ptr<callback_wait> waiting;
    std::uint32_t turn;
    void operator()() const {
      std::uint32_t now = turn;
      if (waiting->turn_.compare_exchange_strong(now, turn + 1)) call_back(waiting);
    }
  };

  static void wake(waiter_node& n) noexcept {
    auto& woken = static_cast<callback_wait&>(n);
    const std::shared_ptr<callback_wait> keep = std::move(woken.itself_);
    call_back(keep);
  }
  static std::shared_ptr<poster> poster_of(waiter_node& n) noexcept {
    return std::move(static_cast<callback_wait&>(n).itself_);
  }
  static constexpr waiter_node::type type_of_callbacks{
      inlined ? base::resumed::inlined : base::resumed::bound, &wake, &poster_of};

  void post(std::shared_ptr<poster> self) noexcept override {
    const task resume{std::static_pointer_cast<callback_wait>(std::move(self)), turn_.load()};
    if constexpr (!inlined) {
      try {
        on_(task(resume));
      } catch (...) {
        resume();
      }
    }
  }

  static void call_back(const std::shared_ptr<callback_wait>& me) noexcept {
    if (me->settle()) {
      try {
        return enter(me);
      } catch (...) {
        std::move(me->done_)(outcome_maker::failed<value_type>(current_failure()));
        return;
      }
    }
    std::move(me->done_)(me->take_outcome());
  }

  typename base::chosen options_;
  Group& group_;
  const key_type key_;
  On on_;
  Start start_;
  Done done_;
  std::atomic<std::uint32_t> turn_ = 0;    // grows when a task calls back
  std::shared_ptr<callback_wait> itself_;  // while it waits
};

}  // namespace singleflight::inline SINGLEFLIGHT_ABI::detail

#endif  // SINGLEFLIGHT_DETAIL_CALLBACK_WAIT_HPP
