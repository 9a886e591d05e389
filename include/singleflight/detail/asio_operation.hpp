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
#include "../async_options.hpp"
#include "../call_error.hpp"
#include "../group.hpp"
#include "../leader.hpp"
#include "../outcome.hpp"
#include "../result.hpp"
#include "asio_context.hpp"
#include "asio_load.hpp"
#include "asio_timer.hpp"
#include "async_wait.hpp"
#include "callback_wait.hpp"
#include "config.hpp"
#include "key.hpp"
#include "owned_call.hpp"
#include "waiter_list.hpp"

// The asynchronous operation of Asio. `Asio` names what is used of it: Boost.Asio in
// boost_asio.hpp, the standalone library in asio.hpp. The rules are those of Asio's documentation,
// "Requirements on asynchronous operations".
namespace singleflight::inline SINGLEFLIGHT_ABI::detail {

[[nodiscard]] inline async_options async_options_of(const asio_options& given) {
  async_options options;
#if defined(__cpp_lib_jthread)
  options.stop = given.stop;
#endif
  options.attempts = given.attempts;
  options.inside = given.inside;
  return options;
}

/// Returns: the context of an executor, or null.
template <class Asio, class Executor>
[[nodiscard]] typename Asio::execution_context* context_of_executor(const Executor& executor) {
  if constexpr (Asio::template has_context<Executor>) {
    return &Asio::context_of(executor);
  } else {
    return nullptr;
  }
}

/// One operation: a caller that waits, with its handler.
///
/// Life: it is owned by itself while it waits; then by who takes it out of the list of its call,
/// who posts a completion that owns it; the completion enters anew, or frees it and calls the
/// handler. If the completion is destroyed, or a context, the handler is destroyed without being
/// called.
///
/// What it holds of a context, it holds as that context's member: see `membership`.
template <class Asio, class Group, class IoExecutor, class Load, class Handler>
class asio_operation final
    : public async_wait<typename Group::key_type, typename Group::value_type>,
      public poster,
      public context_member,
      public std::enable_shared_from_this<asio_operation<Asio, Group, IoExecutor, Load, Handler>> {
  using key_type = typename Group::key_type;
  using value_type = typename Group::value_type;
  using base = async_wait<key_type, value_type>;
  using clock = std::chrono::steady_clock;
  using associated_executor = typename Asio::template associated_executor<Handler, IoExecutor>;
  using handler_executor = typename associated_executor::type;
  using associated_allocator = typename Asio::template associated_allocator<Handler>;

  /// The executor that completions are posted to: the handler's, if one can post to it. (One cannot
  /// to a type-erased handler's.)
  static constexpr bool posts_to_handler = Asio::template can_post<handler_executor>;
  using home_executor = std::conditional_t<posts_to_handler, handler_executor, IoExecutor>;
  using timer_executor =
      std::conditional_t<Asio::template has_context<home_executor>, home_executor, IoExecutor>;
  using timer = leaving_timer<typename Asio::template timer<timer_executor>, asio_operation>;

 public:
  asio_operation(Group& group, const IoExecutor& io, key_type&& key, const asio_options& options,
                 Load&& load, Handler&& handler)
      : base(type_of_operations, &options_),
        options_(async_options_of(options)),
        group_(group),
        key_(std::move(key)),
        deadline_(options.deadline),
        load_(std::move(load)),
        io_(std::in_place, io),
        home_(std::in_place, std::move(handler), io) {
    this->finishes = true;
  }
  ~asio_operation() { this->abandon(); }

  /// Never calls the handler.
  static void initiate(std::shared_ptr<asio_operation> self) {
    asio_operation& op = *self;
    try {
      if (!op.join_contexts()) return op.drop();
      op.connect(self);
    } catch (...) {
      op.failure_ = current_failure();
    }
    op.enter(std::move(self));
  }

  /// Returns: why it is to leave when its timer has expired.
  [[nodiscard]] reason due() const noexcept {
    return deadline_ <= this->expiry() ? reason::deadline : reason::newer_call;
  }

 private:
  /// What belongs to the context of the I/O executor.
  struct io_part {
    explicit io_part(const IoExecutor& e) : executor(e), work(e) {}
    IoExecutor executor;
    typename Asio::template work_guard<IoExecutor> work;
  };

  /// What belongs to the context of the home executor.
  struct home_part {
    home_part(Handler&& h, const IoExecutor& io)
        : handler(std::move(h)), executor(associated_executor::get(handler, io)), work(executor) {}

    Handler handler;
    handler_executor executor;
    typename Asio::template work_guard<handler_executor> work;
    std::shared_ptr<timer> leaving;
  };

  /// What the executor is given.
  class completion {
   public:
    using allocator_type = typename associated_allocator::type;

    explicit completion(std::shared_ptr<asio_operation> o) noexcept : done_(std::move(o)) {}
    completion(completion&&) noexcept = default;
    completion& operator=(completion&&) = delete;
    completion(const completion&) = delete;
    completion& operator=(const completion&) = delete;
    ~completion() {
      if (done_ != nullptr) done_->drop();
    }

    [[nodiscard]] allocator_type get_allocator() const noexcept {
      return associated_allocator::get(done_->home_->handler);
    }
    void operator()() { complete(std::move(done_)); }

   private:
    std::shared_ptr<asio_operation> done_;
  };

  /// What a request by the cancellation slot does. A slot belongs to one thread at a time, so it is
  /// connected and cleared where the handler runs, and never where the call ends.
  struct canceller {
    explicit canceller(std::shared_ptr<asio_operation> o) noexcept : waiting(std::move(o)) {}

    std::shared_ptr<asio_operation> waiting;

    void operator()(typename Asio::cancellation_type type) const noexcept {
      if (type == Asio::cancellation_type::none) return;
      waiting->cancelled_ = true;
      waiting->leave(reason::stop);
    }
  };

  void connect(const std::shared_ptr<asio_operation>& self) {
    auto slot = Asio::slot_of(home_->handler);
    if (slot.is_connected()) slot.template emplace<canceller>(self);
  }

  // --- Waiting -----------------------------------------------------------------------------------

  void enter(std::shared_ptr<asio_operation> self) noexcept {
    itself_ = std::move(self);
    if (try_to_wait() == entered::waits) return;
    post(std::move(itself_));
  }

  static std::shared_ptr<poster> poster_of(waiter_node& n) noexcept {
    return std::move(static_cast<asio_operation&>(n).itself_);
  }
  static constexpr waiter_node::type type_of_operations{base::resumed::bound, nullptr, &poster_of};

  /// Returns: `waits`, and then it may be gone, or `ready`.
  [[nodiscard]] entered try_to_wait() noexcept {
    if (failure_ != nullptr) return entered::ready;
    try {
      make_timer();
      this->heed_stops();
      if (cancelled_) this->leave(reason::stop);
      if (has_deadline() && clock::now() >= deadline_) this->leave(reason::deadline);
      const entered now = async_access::enter(group_, *this, std::as_const(key_));
      if (now == entered::ready) return now;
      if (now == entered::begun) {
        const std::shared_ptr<owned_call<key_type, value_type>> begun = this->begun();
        detail::start(*begun, [&] {
          detail::run_on<Asio>(io_->executor, begun, leader_maker::make<value_type>(begun),
                               std::move(*load_));
        });
      }
    } catch (...) {
      failure_ = current_failure();
      return entered::ready;
    }
    return wait();
  }

  [[nodiscard]] entered wait() noexcept {
    const auto until = (std::min)(deadline_, this->expiry());
    if (until == (clock::time_point::max)()) return this->finish_start();
    const std::shared_ptr<timer> leaving = home_->leaving;
    try {
      return leaving->start(until, [this] { return this->finish_start(); });
    } catch (...) {
      failure_ = current_failure();
      this->leave(reason::caller_gone);
      return this->finish_start();
    }
  }

  [[nodiscard]] bool has_deadline() const noexcept {
    return deadline_ != (clock::time_point::max)();
  }

  void make_timer() {
    if (!has_deadline() && !async_access::ages(group_)) return;
    if constexpr (std::is_same_v<timer_executor, handler_executor>) {
      home_->leaving = std::make_shared<timer>(home_->executor, *this);
    } else {
      home_->leaving = std::make_shared<timer>(io_->executor, *this);
    }
  }

  void end_timer() noexcept {
    if (home_->leaving != nullptr) home_->leaving->end();
    home_->leaving.reset();
  }

  // --- Completing --------------------------------------------------------------------------------

  /// Called by the thread that has taken it out of the list, or has never put it there.
  void post(std::shared_ptr<poster> self) noexcept override {
    if (!in_home_.leave_to_post()) return;
    const std::shared_ptr<context_members> all = in_home_.all();
    completion done(std::static_pointer_cast<asio_operation>(std::move(self)));
    try {
      if constexpr (posts_to_handler) {
        const handler_executor executor = home_->executor;
        Asio::post(executor, std::move(done));
      } else {
        const IoExecutor executor = io_->executor;
        Asio::post(executor, Asio::bind_executor(home_->executor, std::move(done)));
      }
    } catch (...) {  // the completion, wherever it is, drops the handler
    }
    if (all != nullptr) all->end_post();
  }

  /// Runs where the handler is to run.
  static void complete(std::shared_ptr<asio_operation> self) {
    asio_operation& op = *self;
    op.end_timer();
    if (op.settle() && op.failure_ == nullptr) {
      if (op.in_home_.join(op.in_home_.all())) return op.enter(std::move(self));
      op.drop();
      return;
    }
    std::exception_ptr failed = std::move(op.failure_);
    result<value_type> answer = op.take_answer(failed);
    op.leave_io();
    auto slot = Asio::slot_of(op.home_->handler);
    if (slot.is_connected()) slot.clear();
    Handler handler = std::move(op.home_->handler);
    op.home_.reset();
    self.reset();  // its memory is free before the handler runs
    std::move(handler)(std::move(failed), std::move(answer));
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

  // --- The contexts ------------------------------------------------------------------------------

  [[nodiscard]] bool join_contexts() {
    std::shared_ptr<context_members> home_members;
    if constexpr (posts_to_handler) {
      home_members = members_of(home_->executor);
    } else {
      home_members = members_of(io_->executor);
    }
    std::shared_ptr<context_members> io_members = members_of(io_->executor);
    if (io_members == home_members) io_members = nullptr;  // one membership does for both
    if (!in_home_.join(std::move(home_members))) return false;
    if (in_io_.join(std::move(io_members))) return true;
    static_cast<void>(in_home_.leave());
    return false;
  }

  template <class Executor>
  [[nodiscard]] static std::shared_ptr<context_members> members_of(const Executor& executor) {
    auto* const context = detail::context_of_executor<Asio>(executor);
    return context == nullptr ? nullptr
                              : Asio::template use_service<context_service<Asio>>(*context).all();
  }

  void leave_io() noexcept {
    if (in_io_.leave()) io_.reset();
  }

  /// Destroys the handler. To be called by who has ended the membership at home.
  void drop() noexcept {
    this->abandon();
    end_timer();
    home_.reset();
    load_.reset();
    leave_io();
  }

  void context_gone(const membership& of) noexcept override {
    const bool waited = this->abandon();
    const std::shared_ptr<asio_operation> itself = std::move(itself_);
    if (&of == &in_io_) {
      io_.reset();
      if (!waited || !in_home_.leave()) return;
    }
    drop();
  }

  [[nodiscard]] std::shared_ptr<context_member> keep() noexcept override {
    return this->shared_from_this();
  }

  typename base::chosen options_;
  Group& group_;
  const key_type key_;
  const clock::time_point deadline_;
  std::optional<Load> load_;
  std::exception_ptr failure_;  // of entering
  std::atomic<bool> cancelled_ = false;
  std::shared_ptr<asio_operation> itself_;  // while it waits

  membership in_io_{*this};
  membership in_home_{*this};
  std::optional<io_part> io_;      // of who ends in_io_
  std::optional<home_part> home_;  // of who ends in_home_
};

/// Starts the operation, perhaps later than `async_call`: it owns copies of its arguments.
template <class Asio, class Group, class IoExecutor>
class asio_initiation {
 public:
  using executor_type = IoExecutor;

  asio_initiation(Group& group, const IoExecutor& io) : group_(&group), io_(io) {}

  [[nodiscard]] executor_type get_executor() const noexcept { return io_; }

  template <class Handler, class Key, class Load>
  void operator()(Handler&& handler, Key&& key, const asio_options& options, Load&& load) const {
    using stored = std::decay_t<Handler>;
    using operation = asio_operation<Asio, Group, IoExecutor, std::decay_t<Load>, stored>;
    stored own(std::forward<Handler>(handler));
    const auto allocator = Asio::template associated_allocator<stored>::get(own);
    operation::initiate(std::allocate_shared<operation>(
        allocator, *group_, io_, typename Group::key_type(std::forward<Key>(key)), options,
        std::decay_t<Load>(std::forward<Load>(load)), std::move(own)));
  }

 private:
  Group* group_;
  IoExecutor io_;
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
      asio_initiation<Asio, flight_group, std::decay_t<decltype(executor)>>(flights, executor),
      token, Key(detail::lookup_key<Key, Hash, KeyEqual>(std::forward<K>(key))),
      asio_options(options), std::decay_t<Load>(std::forward<Load>(load)));
}

}  // namespace singleflight::inline SINGLEFLIGHT_ABI::detail

#endif  // SINGLEFLIGHT_DETAIL_ASIO_OPERATION_HPP
