// SPDX-License-Identifier: MIT
#ifndef SINGLEFLIGHT_BENCH_ALTERNATIVES_CALL_ONCE_HPP
#define SINGLEFLIGHT_BENCH_ALTERNATIVES_CALL_ONCE_HPP

#include <memory>
#include <mutex>
#include <optional>
#include <unordered_map>
#include <utility>

namespace bench {

/// A `std::once_flag` for each key that is being loaded.
template <class Key, class Value>
class call_once {
 public:
  static constexpr const char* name = "call_once";

  template <class Fn>
  Value get(const Key& key, Fn&& fn) {
    const std::shared_ptr<slot> mine = slot_of(key);
    std::call_once(mine->once, [&] {
      mine->value = std::forward<Fn>(fn)();
      const std::lock_guard lock(mutex_);
      slots_.erase(key);
    });
    return *mine->value;
  }

 private:
  struct slot {
    std::once_flag once;
    std::optional<Value> value;
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

#endif  // SINGLEFLIGHT_BENCH_ALTERNATIVES_CALL_ONCE_HPP
