// SPDX-License-Identifier: MIT
#ifndef SINGLEFLIGHT_BENCH_ALTERNATIVES_ENDING_HPP
#define SINGLEFLIGHT_BENCH_ALTERNATIVES_ENDING_HPP

#include <exception>
#include <future>
#include <utility>

namespace bench {

/// The order of the two steps that end a call: publish its result, erase its future from the map.
enum class ending {
  publish_first,  // the usual code: a caller in between gets the ended call again
  erase_first,    // mended
};

/// Runs the loader, then publishes its result and erases the call from its map, in the given order.
template <ending Order, class Value, class Fn, class Erase>
void lead(std::promise<Value>& promise, Fn&& fn, const Erase& erase) {
  try {
    Value value = std::forward<Fn>(fn)();
    if constexpr (Order == ending::erase_first) erase();
    promise.set_value(std::move(value));
  } catch (...) {
    if constexpr (Order == ending::erase_first) erase();
    promise.set_exception(std::current_exception());
  }
  if constexpr (Order == ending::publish_first) erase();
}

}  // namespace bench

#endif  // SINGLEFLIGHT_BENCH_ALTERNATIVES_ENDING_HPP
