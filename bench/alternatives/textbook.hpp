// SPDX-License-Identifier: MIT
#ifndef SINGLEFLIGHT_BENCH_ALTERNATIVES_TEXTBOOK_HPP
#define SINGLEFLIGHT_BENCH_ALTERNATIVES_TEXTBOOK_HPP

#include <future>
#include <mutex>
#include <unordered_map>
#include <utility>

#include "ending.hpp"

namespace bench {

/// One mutex, one map of shared futures, one promise per call.
template <class Key, class Value, ending Order>
class future_map {
 public:
  static constexpr const char* name =
      Order == ending::publish_first ? "textbook" : "textbook_mended";

  template <class Fn>
  Value get(const Key& key, Fn&& fn) {
    std::promise<Value> promise;
    std::shared_future<Value> future;
    {
      std::unique_lock lock(mutex_);
      auto [at, inserted] = calls_.try_emplace(key);
      if (!inserted) {
        future = at->second;
        lock.unlock();
        return future.get();
      }
      at->second = future = promise.get_future().share();
    }
    lead<Order>(promise, std::forward<Fn>(fn), [&] {
      const std::lock_guard lock(mutex_);
      calls_.erase(key);
    });
    return future.get();
  }

 private:
  std::mutex mutex_;
  std::unordered_map<Key, std::shared_future<Value>> calls_;
};

template <class Key, class Value>
using textbook = future_map<Key, Value, ending::publish_first>;
template <class Key, class Value>
using textbook_mended = future_map<Key, Value, ending::erase_first>;

}  // namespace bench

#endif  // SINGLEFLIGHT_BENCH_ALTERNATIVES_TEXTBOOK_HPP
