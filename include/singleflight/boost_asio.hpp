// SPDX-License-Identifier: MIT
#ifndef SINGLEFLIGHT_BOOST_ASIO_HPP
#define SINGLEFLIGHT_BOOST_ASIO_HPP

#include <boost/version.hpp>

#if BOOST_VERSION < 108000
#error "singleflight needs Boost 1.80 or newer for Boost.Asio (Debian 12: libboost1.81-dev)"
#endif

#include <boost/asio/associated_allocator.hpp>
#include <boost/asio/associated_cancellation_slot.hpp>
#include <boost/asio/associated_executor.hpp>
#include <boost/asio/async_result.hpp>
#include <boost/asio/awaitable.hpp>
#include <boost/asio/basic_waitable_timer.hpp>
#include <boost/asio/bind_cancellation_slot.hpp>
#include <boost/asio/bind_executor.hpp>
#include <boost/asio/cancellation_signal.hpp>
#include <boost/asio/co_spawn.hpp>
#include <boost/asio/dispatch.hpp>
#include <boost/asio/execution.hpp>
#include <boost/asio/execution_context.hpp>
#include <boost/asio/executor_work_guard.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/query.hpp>
#include <boost/asio/require.hpp>
#include <boost/asio/strand.hpp>
#include <chrono>
#include <concepts>
#include <exception>
#include <initializer_list>
#include <memory>
#include <type_traits>
#include <utility>

#include "asio_options.hpp"
#include "detail/asio_bulk.hpp"
#include "detail/asio_operation.hpp"
#include "detail/config.hpp"
#include "group.hpp"

namespace singleflight::inline SINGLEFLIGHT_ABI {

namespace detail {

/// What is used of Boost.Asio.
struct boost_asio {
  using execution_context = boost::asio::execution_context;
  using cancellation_signal = boost::asio::cancellation_signal;
  using cancellation_type = boost::asio::cancellation_type;

  template <class Handler, class Executor>
  using associated_executor = boost::asio::associated_executor<Handler, Executor>;
  template <class Handler>
  using associated_allocator = boost::asio::associated_allocator<Handler>;
  template <class Executor>
  using work_guard = boost::asio::executor_work_guard<Executor>;
  template <class Executor>
  using strand = boost::asio::strand<Executor>;
  template <class Executor>
  using timer = boost::asio::basic_waitable_timer<
      std::chrono::steady_clock, boost::asio::wait_traits<std::chrono::steady_clock>, Executor>;

#if defined(BOOST_ASIO_HAS_CO_AWAIT)
  template <class T, class Executor>
  using awaitable = boost::asio::awaitable<T, Executor>;
  template <class T>
  static constexpr bool is_awaitable = requires {
    requires std::same_as<T, awaitable<typename T::value_type, typename T::executor_type>>;
  };

  /// The signal lives until the coroutine has ended.
  template <class Executor, class Awaitable>
  static void co_spawn(const Executor& executor, Awaitable&& body,
                       const std::shared_ptr<cancellation_signal>& signal) {
    boost::asio::co_spawn(executor, std::forward<Awaitable>(body),
                          boost::asio::bind_cancellation_slot(
                              signal->slot(), [signal](const std::exception_ptr&) {}));
  }
#else
  template <class T>
  static constexpr bool is_awaitable = false;
#endif

  template <class Executor>
  static constexpr bool can_post =
      boost::asio::can_require<Executor, boost::asio::execution::blocking_t::never_t>::value;
  template <class Executor>
  static constexpr bool has_context =
      boost::asio::can_query<Executor, boost::asio::execution::context_t>::value;
  template <class T>
  static constexpr bool is_context = std::derived_from<T, execution_context>;

  template <class Io>
  [[nodiscard]] static auto executor_from(Io& io) {
    if constexpr (is_context<Io>) {
      return io.get_executor();
    } else {
      return io;
    }
  }
  template <class Executor>
  [[nodiscard]] static execution_context& context_of(const Executor& executor) {
    return boost::asio::query(executor, boost::asio::execution::context);
  }
  template <class Handler>
  [[nodiscard]] static auto slot_of(const Handler& handler) noexcept {
    return boost::asio::get_associated_cancellation_slot(handler);
  }
  template <class Executor>
  [[nodiscard]] static auto make_strand(const Executor& executor) {
    return boost::asio::make_strand(executor);
  }
  template <class Executor, class Fn>
  [[nodiscard]] static auto bind_executor(const Executor& executor, Fn&& fn) {
    return boost::asio::bind_executor(executor, std::forward<Fn>(fn));
  }
  template <class Service>
  [[nodiscard]] static Service& use_service(execution_context& context) {
    return boost::asio::use_service<Service>(context);
  }

  template <class Executor, class Fn>
  static void post(const Executor& executor, Fn&& fn) {
    boost::asio::post(executor, std::forward<Fn>(fn));
  }
  template <class Executor, class Fn>
  static void dispatch(const Executor& executor, Fn&& fn) {
    boost::asio::dispatch(executor, std::forward<Fn>(fn));
  }
  template <class Token, class Signature, class Initiation, class... Args>
  static decltype(auto) async_initiate(Initiation&& initiation, Token& token, Args&&... args) {
    return boost::asio::async_initiate<Token, Signature>(std::forward<Initiation>(initiation),
                                                         token, std::forward<Args>(args)...);
  }
};

/// What may be given as the I/O executor.
template <class T>
concept boost_asio_io =
    boost_asio::can_post<std::remove_cvref_t<T>> || boost_asio::is_context<std::remove_cvref_t<T>>;

}  // namespace detail

/// As `group::do_call`, for whatever completes an operation of Boost.Asio: a coroutine, a callback,
/// a future.
///
///     auto row = co_await singleflight::async_call(
///         flights, executor, id,
///         [&](const auto& key) -> boost::asio::awaitable<row> { co_return co_await db.load(key); },
///         boost::asio::use_awaitable);
///
/// Completes with `void(std::exception_ptr, result<Value>)`: null and the result, or what `do_call`
/// would throw and an empty result, which may be assigned to and destroyed, nothing else.
///
/// Effects: if no call for `key` is listed, begins one and runs `load` on the I/O executor `io` (or
///   in here, if this thread runs that executor). The handler is posted to its associated executor,
///   by default `io`, and never runs in here, nor on the thread that ends the call.
/// `io` is an executor or an execution context. `load` is callable as the loader of a `do_call`,
/// and
///   returns what converts to `Value`, or an `boost::asio::awaitable` of that; or it takes a
///   `leader<Value>`, with which the call is ended anywhere. When no caller is left, the awaitable
///   is cancelled (`terminal`) beside the stop token, if it runs on a strand or a single thread:
///   where its executor type can be a strand of `io`, as `any_io_executor` can, it is spawned on
///   one.
/// Leaving: the caller leaves at the deadline, for its stop request, or for a cancellation of any
/// type by
///   its slot, and completes with a `call_error`; if it is the last, the call is stopped. A
///   follower leaves for a newer call at the group's `max_age`. If a context is destroyed, its
///   handlers are, without being called, and their callers leave; so does the caller whose executor
///   throws.
/// Throws: what converting the key throws; `std::invalid_argument` for `attempts == 0`. What hash,
///   equality, and allocations throw once there is an operation, completes it.
/// Complexity: one allocation, by the associated allocator, free again before the handler runs, and
///   one for a call that it begins; two more for a timer, if there is a deadline or a `max_age`.
/// Lifetime: the group must live until the operation is initiated, and while the caller may try
///   again. The operation keeps work on both executors.
template <class Key, class Value, class Hash, class KeyEqual, class Observer,
          detail::boost_asio_io Io, class K = Key, class Load, class Token>
auto async_call(group<Key, Value, Hash, KeyEqual, Observer>& flights, Io&& io, K&& key,
                const asio_options& options, Load&& load, Token&& token) {
  return detail::async_call_by<detail::boost_asio>(flights, io, std::forward<K>(key), options,
                                                   std::forward<Load>(load), token);
}

/// As above, with no options.
template <class Key, class Value, class Hash, class KeyEqual, class Observer,
          detail::boost_asio_io Io, class K = Key, class Load, class Token>
auto async_call(group<Key, Value, Hash, KeyEqual, Observer>& flights, Io&& io, K&& key, Load&& load,
                Token&& token) {
  return detail::async_call_by<detail::boost_asio>(flights, io, std::forward<K>(key),
                                                   asio_options{}, std::forward<Load>(load), token);
}

/// As `group::do_many`, for whatever completes an operation of Boost.Asio.
///
///     std::vector<singleflight::outcome<row>> rows = co_await singleflight::async_call_many(
///         flights, executor, ids,
///         [&](auto& missing) -> boost::asio::awaitable<void> {
///           for (row& r : co_await db.load(missing)) missing.set(r.id, r);
///         },
///         boost::asio::use_awaitable);
///
/// Completes with `void(std::exception_ptr, std::vector<outcome<Value>>)`: null and an outcome for
/// each position of `keys`, or what `do_many` would throw once there is an operation, and no
/// outcomes. What becomes of a single key is its outcome.
///
/// Effects: each key is that of a call as `async_call` begins or joins it, and the options hold for
///   each. Of equal keys only one is looked up, and they share one outcome. `load` runs on the I/O
///   executor `io` (or in here, if this thread runs that executor), once for the keys of which this
///   caller has begun the calls, at most `max_batch` at a time. Keys that it has not settled when
///   it is done fail with `no_such_file_or_directory`; if it throws, with what it threw. The handler
///   is posted when all keys are answered, as that of `async_call`.
/// `keys` is as in `do_many`. `io` is an executor or an execution context. `load` is a loader of
///   `do_many`, or returns a `boost::asio::awaitable` of a range of pairs of a key and its value, or
///   of nothing. Its batch lives until that is done. When nobody waits for any key of the batch that
///   is not settled, the awaitable is cancelled as that of `async_call`; a load that has not begun
///   by then does not begin.
/// Leaving: as `async_call`; the keys that are not answered by then have a `call_error` as their
///   outcome, and the others keep theirs. No caller leaves at the group's `max_age`. With a
///   standard library that has no stop tokens, a caller leaves only when a context is destroyed.
/// Throws: what converting and copying the keys throws; `std::invalid_argument` for
///   `attempts == 0` and for `max_batch == 0`. What hash, equality, and allocations throw once there
///   is an operation, and before it has asked for a key, completes it.
/// Complexity: as `group::async_call` for each key, and one allocation by the associated allocator,
///   free again before the handler runs.
/// Lifetime: each batch has a copy of `load`. The group must live until all keys have been asked
///   for, and while one of them may be tried again. The operation keeps work on both executors.
template <class Key, class Value, class Hash, class KeyEqual, class Observer,
          detail::boost_asio_io Io, class Keys = std::initializer_list<Key>, class Load,
          class Token>
auto async_call_many(group<Key, Value, Hash, KeyEqual, Observer>& flights, Io&& io, Keys&& keys,
                     const asio_bulk_options& options, Load&& load, Token&& token) {
  return detail::async_call_many_by<detail::boost_asio>(flights, io, keys, options,
                                                        std::forward<Load>(load), token);
}

/// As above, with no options.
template <class Key, class Value, class Hash, class KeyEqual, class Observer,
          detail::boost_asio_io Io, class Keys = std::initializer_list<Key>, class Load,
          class Token>
auto async_call_many(group<Key, Value, Hash, KeyEqual, Observer>& flights, Io&& io, Keys&& keys,
                     Load&& load, Token&& token) {
  return detail::async_call_many_by<detail::boost_asio>(flights, io, keys, asio_bulk_options{},
                                                        std::forward<Load>(load), token);
}

}  // namespace singleflight::inline SINGLEFLIGHT_ABI

#endif  // SINGLEFLIGHT_BOOST_ASIO_HPP
