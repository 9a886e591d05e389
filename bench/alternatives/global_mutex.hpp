// SPDX-License-Identifier: MIT
#ifndef SINGLEFLIGHT_BENCH_ALTERNATIVES_GLOBAL_MUTEX_HPP
#define SINGLEFLIGHT_BENCH_ALTERNATIVES_GLOBAL_MUTEX_HPP

#include <mutex>
#include <unordered_map>
#include <utility>

#include "cached.hpp"

namespace bench {

/// One mutex around the cache, held while loading.
template <class Key, class Value>
class global_mutex {
 public:
  static constexpr const char* name = "global_mutex";

  template <class Fn>
  Value get(const Key& key, Fn&& fn) {
    const auto came = cached<Value>::clock::now();
    const std::lock_guard lock(mutex_);
    cached<Value>& entry = cache_[key];
    if (const Value* value = entry.for_caller_of(came)) return *value;
    return entry.put(std::forward<Fn>(fn)());
  }

 private:
  std::mutex mutex_;
  std::unordered_map<Key, cached<Value>> cache_;
};

}  // namespace bench

#endif  // SINGLEFLIGHT_BENCH_ALTERNATIVES_GLOBAL_MUTEX_HPP
