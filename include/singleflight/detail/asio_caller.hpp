// SPDX-License-Identifier: MIT
#ifndef SINGLEFLIGHT_DETAIL_ASIO_CALLER_HPP
#define SINGLEFLIGHT_DETAIL_ASIO_CALLER_HPP

#include <exception>
#include <memory>
#include <optional>
#include <type_traits>
#include <utility>

#include "../asio_options.hpp"
#include "../async_options.hpp"
#include "../call_error.hpp"
#include "asio_context.hpp"
#include "asio_timer.hpp"
#include "config.hpp"

// What the operations of Asio have in common: a handler, and what they hold of the contexts. `Asio`
// names what is used of the library: Boost.Asio in boost_asio.hpp, the standalone one in asio.hpp.
// The rules are those of Asio's documentation, "Requirements on asynchronous operations".
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

/// Returns: the members of an executor's context, or null.
template <class Asio, class Executor>
[[nodiscard]] std::shared_ptr<context_members> members_of(const Executor& executor) {
  auto* const context = detail::context_of_executor<Asio>(executor);
  return context == nullptr ? nullptr
                            : Asio::template use_service<context_service<Asio>>(*context).all();
}

/// A caller with its handler. If its completion is destroyed, or a context, the handler is
/// destroyed without being called. What it holds of a context, it holds as that context's member:
/// see `membership`.
///
/// `Operation` derives from this and from `enable_shared_from_this`. It gives a handler what
/// `complete` finds, and leaves by `cancel` and `expire`. Who has it alone lets go of its loader by
/// `give_up`. Where a context ends, others may make it leave or end its call at the same time: so
/// it does that by `stop_waiting`, and they are told by `was_not_posted` that they cannot have it
/// complete. If it completes already, only `io_is_gone` is called.
template <class Asio, class IoExecutor, class Handler, class Operation>
class asio_caller : public context_member {
  using associated_executor = typename Asio::template associated_executor<Handler, IoExecutor>;
  using handler_executor = typename associated_executor::type;
  using associated_allocator = typename Asio::template associated_allocator<Handler>;

  /// The executor that completions are posted to: the handler's, if one can post to it. (One cannot
  /// to a type-erased handler's.)
  static constexpr bool posts_to_handler = Asio::template can_post<handler_executor>;
  using home_executor = std::conditional_t<posts_to_handler, handler_executor, IoExecutor>;
  using timer_executor =
      std::conditional_t<Asio::template has_context<home_executor>, home_executor, IoExecutor>;

 protected:
  using timer = leaving_timer<typename Asio::template timer<timer_executor>, Operation>;

  asio_caller(const IoExecutor& io, Handler&& handler)
      : io_(std::in_place, io), home_(std::in_place, std::move(handler), io) {}
  ~asio_caller() = default;

  /// Has it take part in what becomes of its contexts, and heed its slot. What that throws is its
  /// failure. Returns: false if a context is being destroyed; then nobody else has it.
  [[nodiscard]] bool attach(const std::shared_ptr<Operation>& self) noexcept {
    try {
      if (!join_contexts()) return false;
      auto slot = Asio::slot_of(home_->handler);
      if (slot.is_connected()) slot.template emplace<canceller>(self);
    } catch (...) {
      failure_ = current_failure();
    }
    return true;
  }

  /// Has it enter anew, unless one of its contexts is gone or is being destroyed: then its handler
  /// is. Until it has entered, it uses what it holds of the context of the I/O executor.
  static void enter_again(std::shared_ptr<Operation> self) noexcept {
    asio_caller& op = *self;
    const std::shared_ptr<context_members> io_members = op.in_io_.all();
    const bool io_lasts = io_members == nullptr || io_members->begin_post();
    if (io_lasts && op.in_home_.join(op.in_home_.all())) {
      op.operation().enter(std::move(self));
    } else {
      op.drop();
    }
    if (io_lasts && io_members != nullptr) io_members->end_post();
  }

  [[nodiscard]] const IoExecutor& io() const noexcept { return io_->executor; }

  /// Throws: what Asio throws, and `std::bad_alloc`.
  std::shared_ptr<timer> make_timer() {
    if constexpr (std::is_same_v<timer_executor, handler_executor>) {
      home_->leaving = std::make_shared<timer>(home_->executor, operation());
    } else {
      home_->leaving = std::make_shared<timer>(io_->executor, operation());
    }
    return home_->leaving;
  }
  [[nodiscard]] std::shared_ptr<timer> its_timer() const noexcept { return home_->leaving; }
  void end_timer() noexcept {
    if (home_->leaving != nullptr) home_->leaving->end();
  }

  /// Has it complete where its handler runs. Called by who has taken it, so that it waits no more.
  void post_completion(std::shared_ptr<Operation> self) noexcept {
    if (!in_home_.leave_to_post()) return operation().was_not_posted();
    const std::shared_ptr<context_members> all = in_home_.all();
    completion done(std::move(self));
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

  /// Frees the operation, then calls the handler. To be called where that is to run.
  template <class Answer>
  static void call_handler(std::shared_ptr<Operation> self, std::exception_ptr failed,
                           Answer answer) {
    asio_caller& op = *self;
    op.leave_io();
    Asio::slot_of(op.home_->handler).clear();
    Handler handler = std::move(op.home_->handler);
    op.home_.reset();
    self.reset();  // its memory is free before the handler runs
    std::move(handler)(std::move(failed), std::move(answer));
  }

  std::exception_ptr failure_;  // of entering

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

    explicit completion(std::shared_ptr<Operation> o) noexcept : done_(std::move(o)) {}
    completion(completion&&) noexcept = default;
    completion& operator=(completion&&) = delete;
    completion(const completion&) = delete;
    completion& operator=(const completion&) = delete;
    ~completion() {
      if (done_ != nullptr) caller().drop();
    }

    [[nodiscard]] allocator_type get_allocator() const noexcept {
      return associated_allocator::get(caller().home_->handler);
    }
    void operator()() { Operation::complete(std::move(done_)); }

   private:
    [[nodiscard]] asio_caller& caller() const noexcept { return *done_; }

    std::shared_ptr<Operation> done_;
  };

  /// What a request by the cancellation slot does. A slot belongs to one thread at a time, so it is
  /// connected and cleared where the handler runs, and never where the call ends.
  struct canceller {
    explicit canceller(std::shared_ptr<Operation> o) noexcept : waiting(std::move(o)) {}

    std::shared_ptr<Operation> waiting;

    void operator()(typename Asio::cancellation_type type) const noexcept {
      if (type != Asio::cancellation_type::none) waiting->cancel();
    }
  };

  [[nodiscard]] Operation& operation() noexcept { return static_cast<Operation&>(*this); }

  // --- The contexts ------------------------------------------------------------------------------

  [[nodiscard]] bool join_contexts() {
    std::shared_ptr<context_members> io_members = detail::members_of<Asio>(io_->executor);
    std::shared_ptr<context_members> home_members;
    if constexpr (posts_to_handler) home_members = detail::members_of<Asio>(home_->executor);
    if (home_members == nullptr) {  // it goes with the other
      home_members = io_members;
    } else if (io_members == home_members) {  // one membership does for both
      io_members = nullptr;
    }
    if (!in_home_.join(std::move(home_members))) return false;
    if (in_io_.join(std::move(io_members))) return true;
    static_cast<void>(in_home_.leave());
    return false;
  }

  void leave_io() noexcept {
    if (!in_io_.leave_to_post()) return;
    io_.reset();  // uses the context
    in_io_.end_post();
  }

  /// Destroys the handler. To be called by who has it alone.
  void drop() noexcept {
    operation().give_up();
    end_timer();
    home_.reset();
    leave_io();
  }

  void context_gone(const membership& of) noexcept override {
    const bool is_io = &of == &in_io_;
    if (is_io && !in_home_.leave_to_post()) {
      operation().io_is_gone();
      io_.reset();
      return;
    }
    operation().stop_waiting();
    end_timer();
    home_.reset();
    if (is_io) {
      in_home_.end_post();
      io_.reset();
    } else {
      leave_io();
    }
  }

  [[nodiscard]] std::shared_ptr<context_member> keep() noexcept override {
    return operation().shared_from_this();
  }

  membership in_io_{*this};
  membership in_home_{*this};
  std::optional<io_part> io_;      // of who ends in_io_
  std::optional<home_part> home_;  // of who ends in_home_
};

/// Starts an operation, perhaps later than the function that was called for it: it owns copies of
/// that one's arguments.
template <class Asio, template <class...> class Operation, class Group, class IoExecutor>
class asio_initiation {
 public:
  using executor_type = IoExecutor;

  asio_initiation(Group& group, const IoExecutor& io) : group_(&group), io_(io) {}

  [[nodiscard]] executor_type get_executor() const noexcept { return io_; }

  /// `asked`: the key, or the keys.
  template <class Handler, class Asked, class Options, class Load>
  void operator()(Handler&& handler, Asked&& asked, const Options& options, Load&& load) const {
    using stored = std::decay_t<Handler>;
    using operation = Operation<Asio, Group, IoExecutor, std::decay_t<Load>, stored>;
    stored own(std::forward<Handler>(handler));
    const auto allocator = Asio::template associated_allocator<stored>::get(own);
    operation::initiate(std::allocate_shared<operation>(
        allocator, *group_, io_, std::decay_t<Asked>(std::forward<Asked>(asked)), options,
        std::decay_t<Load>(std::forward<Load>(load)), std::move(own)));
  }

 private:
  Group* group_;
  IoExecutor io_;
};

}  // namespace singleflight::inline SINGLEFLIGHT_ABI::detail

#endif  // SINGLEFLIGHT_DETAIL_ASIO_CALLER_HPP
