// SPDX-License-Identifier: MIT
// What C++ programmers write today, as they write it, to measure the library against.
#ifndef SINGLEFLIGHT_BENCH_ALTERNATIVES_HPP
#define SINGLEFLIGHT_BENCH_ALTERNATIVES_HPP

#include <exception>
#include <future>
#include <mutex>
#include <unordered_map>
#include <utility>

namespace bench {

/// The order in which a textbook call ends.
enum class ending {
  publish_first,  // as it is found everywhere: callers in between get the ended call again
  erase_first,    // mended
};

/// One mutex, one map of shared futures, one promise per call.
template <class Key, class Value, ending Order>
class textbook {
 public:
  template <class Fn>
  Value do_call(const Key& key, Fn&& fn) {
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
    try {
      Value value = std::forward<Fn>(fn)();
      if constexpr (Order == ending::erase_first) erase(key);
      promise.set_value(std::move(value));
    } catch (...) {
      if constexpr (Order == ending::erase_first) erase(key);
      promise.set_exception(std::current_exception());
    }
    if constexpr (Order == ending::publish_first) erase(key);
    return future.get();
  }

 private:
  void erase(const Key& key) {
    const std::lock_guard lock(mutex_);
    calls_.erase(key);
  }

  std::mutex mutex_;
  std::unordered_map<Key, std::shared_future<Value>> calls_;
};

}  // namespace bench

#endif  // SINGLEFLIGHT_BENCH_ALTERNATIVES_HPP
