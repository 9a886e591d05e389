// SPDX-License-Identifier: MIT
#ifndef SINGLEFLIGHT_BENCH_ALTERNATIVES_TBB_FUTURE_HPP
#define SINGLEFLIGHT_BENCH_ALTERNATIVES_TBB_FUTURE_HPP

#include <tbb/concurrent_hash_map.h>

#include <future>
#include <utility>

#include "ending.hpp"

namespace bench {

/// As the textbook version, with oneTBB's map, which locks parts of itself.
template <class Key, class Value, ending Order>
class tbb_future_map {
 public:
  static constexpr const char* name =
      Order == ending::publish_first ? "tbb_future" : "tbb_future_mended";

  template <class Fn>
  Value get(const Key& key, Fn&& fn) {
    std::promise<Value> promise;
    std::shared_future<Value> future;
    {
      typename map::accessor at;
      if (!calls_.insert(at, key)) {
        future = at->second;
        at.release();
        return future.get();
      }
      at->second = future = promise.get_future().share();
    }
    lead<Order>(promise, std::forward<Fn>(fn), [&] { calls_.erase(key); });
    return future.get();
  }

 private:
  using map = tbb::concurrent_hash_map<Key, std::shared_future<Value>>;

  map calls_;
};

template <class Key, class Value>
using tbb_future = tbb_future_map<Key, Value, ending::publish_first>;
template <class Key, class Value>
using tbb_future_mended = tbb_future_map<Key, Value, ending::erase_first>;

}  // namespace bench

#endif  // SINGLEFLIGHT_BENCH_ALTERNATIVES_TBB_FUTURE_HPP
