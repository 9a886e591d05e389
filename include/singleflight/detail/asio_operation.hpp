// SPDX-License-Identifier: MIT
#ifndef SINGLEFLIGHT_DETAIL_ASIO_OPERATION_HPP
#define SINGLEFLIGHT_DETAIL_ASIO_OPERATION_HPP

#include <algorithm>
#include <atomic>
#include <chrono>
#include <exception>
#include <memory>
#include <optional>
#include <stdexcept>
#include <type_traits>
#include <utility>

#include "../asio_options.hpp"
#include "../call_error.hpp"
#include "../group.hpp"
#include "../leader.hpp"
#include "../result.hpp"
#include "asio_caller.hpp"
#include "asio_load.hpp"
#include "async_wait.hpp"
#include "callback_wait.hpp"
#include "config.hpp"
#include "key.hpp"
#include "owned_call.hpp"
#include "waiter_list.hpp"

// `async_call` of Asio.
namespace singleflight::inline SINGLEFLIGHT_ABI::detail {

/// One operation: a caller that waits for one call.
///
/// Life: it is owned by itself while it waits; then by who takes it out of the list of its call,
/// who posts a completion that owns it; the completion enters anew, or frees it and calls the
/// handler.
template <class Asio, class Group, class IoExecutor, class Load, class Handler>
class asio_operation final
    : public async_wait<typename Group::key_type, typename Group::value_type>,
      public poster,
      public asio_caller<Asio, IoExecutor, Handler,
                         asio_operation<Asio, Group, IoExecutor, Load, Handler>>,
      public std::enable_shared_from_this<asio_operation<Asio, Group, IoExecutor, Load, Handler>> {
  using key_type = typename Group::key_type;
  using value_type = typename Group::value_type;
  using base = async_wait<key_type, value_type>;
  using caller = asio_caller<Asio, IoExecutor, Handler, asio_operation>;
  using clock = std::chrono::steady_clock;

 public:
  asio_operation(Group& group, const IoExecutor& io, key_type&& key, const asio_options& options,
                 Load&& load, Handler&& handler)
      : base(type_of_operations, &options_),
        caller(io, std::move(handler)),
        options_(async_options_of(options)),
        group_(group),
        key_(std::move(key)),
        deadline_(options.deadline),
        load_(std::move(load)) {
    this->finishes = true;
  }

  /// Never calls the handler.
  static void initiate(std::shared_ptr<asio_operation> self) {
    asio_operation& op = *self;
    if (op.attach(self)) op.enter(std::move(self));
  }

  // --- What asio_caller and its timer call -------------------------------------------------------

  /// Runs where the handler is to run.
  static void complete(std::shared_ptr<asio_operation> self) {
    asio_operation& op = *self;
    op.end_timer();
    if (op.settle() && op.failure_ == nullptr) return caller::enter_again(std::move(self));
    std::exception_ptr failed = std::move(op.failure_);
    result<value_type> answer = op.take_answer(failed);
    caller::call_handler(std::move(self), std::move(failed), std::move(answer));
  }

  void cancel() noexcept {
    cancelled_ = true;
    this->leave(reason::stop);
  }

  struct expiration {
    asio_operation* late = nullptr;
    typename base::departure how;
    void leave() && noexcept { late->depart(std::move(how)); }
  };

  [[nodiscard]] bool expire(expiration& out) noexcept {
    const reason why = deadline_ <= this->expiry() ? reason::deadline : reason::newer_call;
    out.late = this;
    return this->take_out(why, out.how);
  }

  void stop_waiting() noexcept {
    this->leave(reason::caller_gone);
    load_.reset();
  }
  void io_is_gone() noexcept {}
  void was_not_posted() noexcept { this->abandon(); }

  void give_up() noexcept {
    this->abandon();
    load_.reset();
  }

  // --- Waiting -----------------------------------------------------------------------------------

  void enter(std::shared_ptr<asio_operation> self) noexcept {
    itself_ = std::move(self);
    if (try_to_wait() == entered::waits) return;
    this->post_completion(std::move(itself_));
  }

 private:
  static std::shared_ptr<poster> poster_of(waiter_node& n) noexcept {
    return std::move(static_cast<asio_operation&>(n).itself_);
  }
  static constexpr waiter_node::type type_of_operations{base::resumed::bound, nullptr, &poster_of};

  /// Called by the thread that has taken it out of the list.
  void post(std::shared_ptr<poster> self) noexcept override {
    this->post_completion(std::static_pointer_cast<asio_operation>(std::move(self)));
  }

  /// Returns: `waits`, and then it may be gone, or `ready`.
  [[nodiscard]] entered try_to_wait() noexcept {
    if (this->failure_ != nullptr) return entered::ready;
    try {
      if (has_deadline() || async_access::ages(group_)) this->make_timer();
      this->heed_stops();
      if (cancelled_) this->leave(reason::stop);
      if (has_deadline() && clock::now() >= deadline_) this->leave(reason::deadline);
      const entered now = async_access::enter(group_, *this, std::as_const(key_));
      if (now == entered::ready) return now;
      if (now == entered::begun) {
        const std::shared_ptr<owned_call<key_type, value_type>> begun = this->begun();
        detail::start(*begun, [&] {
          detail::run_on<Asio>(this->io(), begun, leader_maker::make<value_type>(begun),
                               std::move(*load_));
        });
      }
    } catch (...) {
      this->failure_ = current_failure();
      return entered::ready;
    }
    return wait();
  }

  [[nodiscard]] entered wait() noexcept {
    const auto until = (std::min)(deadline_, this->expiry());
    if (until == (clock::time_point::max)()) return this->finish_start();
    const std::shared_ptr<typename caller::timer> leaving = this->its_timer();
    try {
      return leaving->start(until, [this] { return this->finish_start(); });
    } catch (...) {
      this->failure_ = current_failure();
      this->leave(reason::stop);
      return this->finish_start();
    }
  }

  [[nodiscard]] bool has_deadline() const noexcept {
    return deadline_ != (clock::time_point::max)();
  }

  /// Throws: nothing; `failed` is why there is no answer.
  [[nodiscard]] result<value_type> take_answer(std::exception_ptr& failed) noexcept {
    if (failed == nullptr) {
      try {
        return this->take();
      } catch (...) {
        failed = current_failure();
      }
    }
    return result_maker::empty<value_type>();
  }

  typename base::chosen options_;
  Group& group_;
  const key_type key_;
  const clock::time_point deadline_;
  std::optional<Load> load_;
  std::atomic<bool> cancelled_ = false;
  std::shared_ptr<asio_operation> itself_;  // while it waits
};

template <class Asio, class Key, class Value, class Load>
constexpr void check_asio_load() {
  constexpr asio_load kind = find_asio_load<Asio, Key, Value, Load>();
  static_assert(kind != asio_load::none,
                "singleflight: the loader must take a leader<Value>, or be callable with nothing, "
                "the key, a std::stop_token, a const call_context&, or the key and one of the last "
                "two, and return what converts to the group's Value, or an asio::awaitable of it");
  if constexpr (kind == asio_load::awaitable) {
    using gives = typename returned<Load, Key>::value_type;
    static_assert(
        std::is_convertible_v<gives, Value>,
        "singleflight: what the asio::awaitable gives must convert to the group's Value, and "
        "be nothing where that is void");
  }
}

template <class Asio, class Key, class Value, class Hash, class KeyEqual, class Observer, class Io,
          class K, class Load, class Token>
decltype(auto) async_call_by(group<Key, Value, Hash, KeyEqual, Observer>& flights, Io& io, K&& key,
                             const asio_options& options, Load&& load, Token& token) {
  using flight_group = group<Key, Value, Hash, KeyEqual, Observer>;
  detail::check_asio_load<Asio, Key, Value, std::decay_t<Load>>();
  if (options.attempts == 0) {
    throw std::invalid_argument("singleflight: asio_options::attempts must be at least 1");
  }
  const auto executor = Asio::executor_from(io);
  return Asio::template async_initiate<Token, void(std::exception_ptr, result<Value>)>(
      asio_initiation<Asio, asio_operation, flight_group, std::decay_t<decltype(executor)>>(
          flights, executor),
      token, Key(detail::lookup_key<Key, Hash, KeyEqual>(std::forward<K>(key))),
      asio_options(options), std::decay_t<Load>(std::forward<Load>(load)));
}

}  // namespace singleflight::inline SINGLEFLIGHT_ABI::detail

#endif  // SINGLEFLIGHT_DETAIL_ASIO_OPERATION_HPP
