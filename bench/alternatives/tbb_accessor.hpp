// SPDX-License-Identifier: MIT
#ifndef SINGLEFLIGHT_BENCH_ALTERNATIVES_TBB_ACCESSOR_HPP
#define SINGLEFLIGHT_BENCH_ALTERNATIVES_TBB_ACCESSOR_HPP

#include <tbb/concurrent_hash_map.h>

#include <utility>

#include "cached.hpp"

namespace bench {

/// oneTBB's map as a cache, the accessor held while loading. It is a spin lock: a caller
/// that waits for a load keeps a processor busy. Entries stay, as in a cache.
template <class Key, class Value>
class tbb_accessor {
 public:
  static constexpr const char* name = "tbb_accessor";

  template <class Fn>
  Value get(const Key& key, Fn&& fn) {
    const auto came = cached<Value>::clock::now();
    typename map::accessor at;
    cache_.insert(at, key);
    if (const Value* value = at->second.for_caller_of(came)) return *value;
    return at->second.put(std::forward<Fn>(fn)());
  }

 private:
  using map = tbb::concurrent_hash_map<Key, cached<Value>>;

  map cache_;
};

}  // namespace bench

#endif  // SINGLEFLIGHT_BENCH_ALTERNATIVES_TBB_ACCESSOR_HPP
