// SPDX-License-Identifier: MIT
#ifndef SINGLEFLIGHT_BENCH_ALTERNATIVES_MUTEX_PER_KEY_HPP
#define SINGLEFLIGHT_BENCH_ALTERNATIVES_MUTEX_PER_KEY_HPP

#include <memory>
#include <mutex>
#include <unordered_map>
#include <utility>

#include "cached.hpp"

namespace bench {

/// A mutex for each key, held while loading, and a second look at the cache once it is held.
/// Entries stay, as in a cache.
template <class Key, class Value>
class mutex_per_key {
 public:
  static constexpr const char* name = "mutex_per_key";

  template <class Fn>
  Value get(const Key& key, Fn&& fn) {
    const auto came = cached<Value>::clock::now();
    const std::shared_ptr<slot> mine = slot_of(key);
    const std::lock_guard lock(mine->mutex);
    if (const Value* value = mine->entry.for_caller_of(came)) return *value;
    return mine->entry.put(std::forward<Fn>(fn)());
  }

 private:
  struct slot {
    std::mutex mutex;
    cached<Value> entry;
  };

  std::shared_ptr<slot> slot_of(const Key& key) {
    const std::lock_guard lock(mutex_);
    std::shared_ptr<slot>& at = slots_[key];
    if (at == nullptr) at = std::make_shared<slot>();
    return at;
  }

  std::mutex mutex_;
  std::unordered_map<Key, std::shared_ptr<slot>> slots_;
};

}  // namespace bench

#endif  // SINGLEFLIGHT_BENCH_ALTERNATIVES_MUTEX_PER_KEY_HPP
