// SPDX-License-Identifier: MIT
#ifndef SINGLEFLIGHT_DETAIL_ASIO_BULK_HPP
#define SINGLEFLIGHT_DETAIL_ASIO_BULK_HPP

#include <chrono>
#include <cstddef>
#include <exception>
#include <iterator>
#include <memory>
#include <stdexcept>
#include <type_traits>
#include <utility>
#include <vector>

#include "../asio_options.hpp"
#include "../async_options.hpp"
#include "../batch.hpp"
#include "../call_context.hpp"
#include "../call_error.hpp"
#include "../coroutine.hpp"
#include "../group.hpp"
#include "../outcome.hpp"
#include "asio_caller.hpp"
#include "asio_context.hpp"
#include "asio_load.hpp"
#include "async_bulk.hpp"
#include "bulk.hpp"
#include "bulk_loader.hpp"
#include "co_bulk.hpp"
#include "config.hpp"
#include "fixed_block.hpp"
#include "key.hpp"
#include "mutex.hpp"

#if defined(__cpp_lib_jthread)
#include <stop_token>
#endif

// `async_call_many` of Asio.
namespace singleflight::inline SINGLEFLIGHT_ABI::detail {

// --- The loader ----------------------------------------------------------------------------------

/// Whether nobody waits for any key of a batch any more, so that its loader need not begin.
template <class Key, class Value>
[[nodiscard]] bool is_unwanted(const batch<Key, Value>& shown) noexcept {
  for (std::size_t i = 0; i < shown.size(); ++i) {
    if (shown.wanted(i)) return false;
  }
  return true;
}

/// The loader of a caller of many keys, and the executor that it runs on. Batches begin on whatever
/// thread has ended the calls before, as long as this is open.
template <class Asio, class IoExecutor, class Load>
class asio_bulk_loader {
 public:
  struct parts {
    IoExecutor io;
    std::shared_ptr<context_members> members;  // of its context
    Load load;
  };

  explicit asio_bulk_loader(std::shared_ptr<const parts> all) noexcept : parts_(std::move(all)) {}

  /// What it holds of the context is gone when this returns, or when a batch has been posted.
  void close() const noexcept {
    std::shared_ptr<const parts> gone;
    const lock guard(mutex_);
    gone.swap(parts_);
  }

  /// Runs the loader on the executor, or here if that is where this thread runs. If this is closed,
  /// the batch is given up.
  template <class Key, class Value, class Batch>
  void run(const std::shared_ptr<Batch>& all) const noexcept {
    std::shared_ptr<context_members> members;
    {  // lets go of the parts while the context lasts
      const std::shared_ptr<const parts> own = begin_post();
      if (own == nullptr) return;
      members = own->members;
      try {
        run_on<Key, Value>(own->io, all, own->load);
      } catch (...) {
        all->finish(current_failure());
      }
    }
    if (members != nullptr) members->end_post();
  }

 private:
  /// Returns: the parts, and then the context stays until `end_post`; null if this is closed, or the
  ///   context is being destroyed.
  [[nodiscard]] std::shared_ptr<const parts> begin_post() const noexcept {
    const lock guard(mutex_);
    if (parts_ == nullptr) return nullptr;
    if (parts_->members != nullptr && !parts_->members->begin_post()) return nullptr;
    return parts_;
  }

  template <class Key, class Value, class Batch>
  static void run_on(const IoExecutor& io, const std::shared_ptr<Batch>& all, const Load& load) {
    using gives = returned_by_bulk<Load, Key, Value>;
    if constexpr (Asio::template is_awaitable<gives>) {
      using inner = typename gives::executor_type;
      using awaitable = typename Asio::template awaitable<void, inner>;
      detail::spawn_load<Asio, inner>(io, [&](auto cancel) {
        return detail::drive_many<awaitable, Key, Value>(
            all, Load(load), [cancel = std::move(cancel)](Batch& own) {
              if (detail::is_unwanted(own.shown())) throw_call_error(reason::nobody_waits);
              own.begin();
#if defined(__cpp_lib_jthread)
              const call_context& context = own;
              return std::stop_callback(context.stop_token(), cancel);
#else
              return std::true_type();
#endif
            });
      });
    } else {
      Asio::dispatch(io, [all, load]() mutable {
        if (detail::is_unwanted(all->shown())) return;  // the batch is given up
        start_bulk_loader<Key, Value>::start(all, std::move(load));
      });
    }
  }

  mutable detail::mutex mutex_;
  mutable std::shared_ptr<const parts> parts_ SINGLEFLIGHT_GUARDED_BY(mutex_);  // null: closed
};

template <class Key, class Value>
struct start_asio_bulk_loader {
  template <class Batch, class Loader>
  static void start(const std::shared_ptr<Batch>& all, const Loader& loader) noexcept {
    loader.template run<Key, Value>(all);
  }
};

// --- The operation -------------------------------------------------------------------------------

/// An operation, while its keys are not all answered.
template <class Operation>
class waiting_operation {
 public:
  void begin(std::shared_ptr<Operation> o) noexcept {
    const lock guard(mutex_);
    operation_ = std::move(o);
  }
  /// Returns: the operation, to one thread; null to others.
  [[nodiscard]] std::shared_ptr<Operation> end() noexcept {
    const lock guard(mutex_);
    return std::move(operation_);
  }

  /// All keys are answered.
  template <class Bulk>
  void operator()(const std::shared_ptr<Bulk>&) noexcept {
    if (std::shared_ptr<Operation> o = end()) Operation::all_answered(std::move(o));
  }

 private:
  detail::mutex mutex_;
  std::shared_ptr<Operation> operation_ SINGLEFLIGHT_GUARDED_BY(mutex_);
};

/// Copies of a caller's keys, which have been neither hashed nor compared. May be moved from.
template <class Key>
class copied_keys {
 public:
  explicit copied_keys(std::size_t most) : keys_(std::make_unique<fixed_block<Key>>(most)) {}

  template <class Hash, class KeyEqual, class K>
  void add(K&& given) {
    keys_->emplace_back(detail::lookup_key<Key, Hash, KeyEqual>(std::forward<K>(given)));
  }

  [[nodiscard]] std::size_t size() const noexcept { return keys_->size(); }
  [[nodiscard]] auto begin() const noexcept { return std::make_move_iterator(keys_->begin()); }
  [[nodiscard]] auto end() const noexcept { return std::make_move_iterator(keys_->end()); }

 private:
  std::unique_ptr<fixed_block<Key>> keys_;
};

/// One operation: a caller that waits for the calls of many keys.
///
/// Life: it is owned by the one that asks for its keys, `async_bulk`, while that waits; then by who
/// answers the last key, who posts a completion that owns it. The calls may go on without it, and
/// `async_bulk` with them.
template <class Asio, class Group, class IoExecutor, class Load, class Handler>
class asio_bulk_operation final
    : public asio_caller<Asio, IoExecutor, Handler,
                         asio_bulk_operation<Asio, Group, IoExecutor, Load, Handler>>,
      public std::enable_shared_from_this<
          asio_bulk_operation<Asio, Group, IoExecutor, Load, Handler>> {
  using key_type = typename Group::key_type;
  using value_type = typename Group::value_type;
  using caller = asio_caller<Asio, IoExecutor, Handler, asio_bulk_operation>;
  using clock = std::chrono::steady_clock;
  using loader = asio_bulk_loader<Asio, IoExecutor, Load>;
  using bulk = async_bulk<Group, loader, start_asio_bulk_loader<key_type, value_type>,
                          waiting_operation<asio_bulk_operation>>;

 public:
  asio_bulk_operation(Group& group, const IoExecutor& io, copied_keys<key_type>&& keys,
                      const asio_bulk_options& options, Load&& load, Handler&& handler)
      : caller(io, std::move(handler)), deadline_(options.call.deadline) {
    try {
      bulk_ = std::make_shared<bulk>(
          group, keys, async_bulk_options{async_options_of(options.call), options.max_batch},
          std::make_shared<const typename loader::parts>(
              typename loader::parts{io, detail::members_of<Asio>(io), std::move(load)}));
    } catch (...) {
      this->failure_ = current_failure();
    }
  }

  /// Never calls the handler.
  static void initiate(std::shared_ptr<asio_bulk_operation> self) {
    asio_bulk_operation& op = *self;
    if (!op.attach(self)) return;
    op.keep_deadline();
    if (op.failure_ != nullptr) return op.post_completion(std::move(self));
    const std::shared_ptr<bulk> asks = op.bulk_;
    asks->done().begin(std::move(self));
    if (!asks->begin()) return;
    if (std::shared_ptr<asio_bulk_operation> o = asks->done().end()) all_answered(std::move(o));
  }

  static void all_answered(std::shared_ptr<asio_bulk_operation> self) noexcept {
    asio_bulk_operation& op = *self;
    op.post_completion(std::move(self));
  }

  // --- What asio_caller and its timer call -------------------------------------------------------

  /// Runs where the handler is to run.
  static void complete(std::shared_ptr<asio_bulk_operation> self) {
    asio_bulk_operation& op = *self;
    op.end_timer();
    if (op.bulk_ != nullptr) op.bulk_->load().close();
    std::exception_ptr failed = std::move(op.failure_);
    std::vector<outcome<value_type>> answers;
    if (failed == nullptr) answers = op.bulk_->take_answers();
    caller::call_handler(std::move(self), std::move(failed), std::move(answers));
  }

  void cancel() noexcept {
    if (bulk_ != nullptr) bulk_->leave(reason::stop);
  }

  struct expiration {
    std::shared_ptr<bulk> late;
    void leave() && noexcept { late->leave(reason::deadline); }
  };

  [[nodiscard]] bool expire(expiration& out) const noexcept {
    out.late = bulk_;
    return true;
  }

  void stop_waiting() noexcept { give_up(); }
  void io_is_gone() noexcept { give_up(); }
  void was_not_posted() noexcept {}

  void give_up() noexcept {
    if (bulk_ == nullptr) return;
    static_cast<void>(bulk_->done().end());
    bulk_->load().close();
    bulk_->abandon();
  }

 private:
  /// Before it asks for keys, so that it asks for none if its deadline has passed.
  void keep_deadline() noexcept {
    if (this->failure_ != nullptr || deadline_ == (clock::time_point::max)()) return;
    if (clock::now() >= deadline_) return bulk_->leave(reason::deadline);
    try {
      this->make_timer()->start(deadline_, [] {});
    } catch (...) {
      this->failure_ = current_failure();
    }
  }

  const clock::time_point deadline_;
  std::shared_ptr<bulk> bulk_;  // fixed once it is made; null: it could not be
};

// --- Initiating it -------------------------------------------------------------------------------

template <class Asio, class Key, class Value, class Load>
constexpr void check_asio_bulk_load() {
  detail::check_copied_bulk_loader<Load, Key, Value>();
  if constexpr (takes_batch<Load, Key, Value> || takes_batch_and_context<Load, Key, Value>) {
    using gives = returned_by_bulk<Load, Key, Value>;
    if constexpr (Asio::template is_awaitable<gives>) {
      static_assert(is_found_by_bulk<typename gives::value_type>,
                    "singleflight: what the asio::awaitable of a bulk loader gives must be a range "
                    "of pairs of a key and its value, or nothing");
    } else {
      static_assert(is_found_by_bulk<gives>,
                    "singleflight: a bulk loader must return a range of pairs of a key and its "
                    "value, or nothing, or an asio::awaitable of one of the two");
    }
  }
}

template <class Key, class Hash, class KeyEqual, class Keys>
[[nodiscard]] copied_keys<Key> copy_keys(Keys& keys) {
  copied_keys<Key> copies(detail::count_of(keys));
  for (auto&& given : keys) {
    copies.template add<Hash, KeyEqual>(std::forward<decltype(given)>(given));
  }
  return copies;
}

template <class Asio, class Key, class Value, class Hash, class KeyEqual, class Observer, class Io,
          class Keys, class Load, class Token>
decltype(auto) async_call_many_by(group<Key, Value, Hash, KeyEqual, Observer>& flights, Io& io,
                                  Keys& keys, const asio_bulk_options& options, Load&& load,
                                  Token& token) {
  using flight_group = group<Key, Value, Hash, KeyEqual, Observer>;
  detail::check_asio_bulk_load<Asio, Key, Value, std::decay_t<Load>>();
  if (options.call.attempts == 0 || options.max_batch == 0) {
    throw std::invalid_argument(
        "singleflight: asio_options::attempts and max_batch must be at least 1");
  }
  const auto executor = Asio::executor_from(io);
  return Asio::template async_initiate<Token,
                                       void(std::exception_ptr, std::vector<outcome<Value>>)>(
      asio_initiation<Asio, asio_bulk_operation, flight_group, std::decay_t<decltype(executor)>>(
          flights, executor),
      token, detail::copy_keys<Key, Hash, KeyEqual>(keys), asio_bulk_options(options),
      std::decay_t<Load>(std::forward<Load>(load)));
}

}  // namespace singleflight::inline SINGLEFLIGHT_ABI::detail

#endif  // SINGLEFLIGHT_DETAIL_ASIO_BULK_HPP
