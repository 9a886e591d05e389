// SPDX-License-Identifier: MIT
#ifndef SINGLEFLIGHT_TESTS_FLEET_MEMORY_LEASES_HPP
#define SINGLEFLIGHT_TESTS_FLEET_MEMORY_LEASES_HPP

#include <chrono>
#include <condition_variable>
#include <cstddef>
#include <functional>
#include <map>
#include <mutex>
#include <singleflight/fleet.hpp>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace fleet_tests {

/// A lease store of one process, whose clock stands still unless a test moves it. All fleets that
/// use it are processes of one fleet.
class memory_leases {
 public:
  using answer = singleflight::lease_answer;
  using entry = singleflight::lease_entry;
  using end = singleflight::lease_end;
  using ms = std::chrono::milliseconds;
  using time_point = std::chrono::steady_clock::time_point;

  enum class operation { enter, fill, release, wait, invalidate };
  enum class fault { none, refused, unreachable, reply_lost, throws };

  /// Asked before each operation, without a lock.
  std::function<fault(operation, std::string_view key)> faults = [](operation, std::string_view) {
    return fault::none;
  };
  /// Called in each wait, without a lock. With it set, a wait moves the clock in place of waiting
  /// for somebody else to do so: for tests with one thread.
  std::function<void()> meanwhile;

  [[nodiscard]] time_point now() const {
    const std::lock_guard lock(mutex_);
    return now_;
  }

  /// Moves the clock.
  void advance(ms by) {
    {
      const std::lock_guard lock(mutex_);
      now_ += by;
    }
    changed_.notify_all();
  }

  entry enter(std::string_view key, std::string_view token, ms lease) {
    const fault now = begin(operation::enter, key);
    if (now == fault::refused) return {.what = entry::kind::refused};
    if (now == fault::unreachable) return {.what = entry::kind::unreachable};
    entry said = entered(key, token, lease);
    if (now == fault::reply_lost) return {.what = entry::kind::unreachable};
    return said;
  }

  answer fill(std::string_view key, std::string_view token, std::string_view bytes, ms lifetime,
              ms handover) {
    const fault now = begin(operation::fill, key);
    if (now == fault::refused) return answer::refused;
    if (now == fault::unreachable) return answer::unreachable;
    answer said = answer::lost;
    {
      const std::lock_guard lock(mutex_);
      const bool mine = holds(key, token);
      if (mine) leases_.erase(std::string(key));
      const bool kept = mine && lifetime > ms(0) && value_of(key) == nullptr;
      if (kept) values_[std::string(key)] = {std::string(bytes), now_ + lifetime};
      const end told = kept ? end{.what = end::kind::kept}
                            : end{.what = end::kind::value, .value = std::string(bytes)};
      results_[std::string(token)] = {told, now_ + handover};
      if (mine) said = answer::held;
    }
    changed_.notify_all();
    return now == fault::reply_lost ? answer::unreachable : said;
  }

  answer release(std::string_view key, std::string_view token, ms handover) {
    const fault now = begin(operation::release, key);
    if (now == fault::refused) return answer::refused;
    if (now == fault::unreachable) return answer::unreachable;
    answer said = answer::lost;
    {
      const std::lock_guard lock(mutex_);
      if (holds(key, token)) {
        leases_.erase(std::string(key));
        results_[std::string(token)] = {{.what = end::kind::failed}, now_ + handover};
        said = answer::held;
      }
    }
    changed_.notify_all();
    return now == fault::reply_lost ? answer::unreachable : said;
  }

  end wait(std::string_view key, std::string_view leader, ms at_most, std::size_t) {
    const fault now = begin(operation::wait, key);
    if (now == fault::refused) return {.what = end::kind::refused};
    if (now == fault::unreachable || now == fault::reply_lost) {
      return {.what = end::kind::unreachable};
    }
    if (meanwhile) meanwhile();
    std::unique_lock lock(mutex_);
    longest_wait_ = std::max(longest_wait_, at_most);
    const time_point until = now_ + at_most;
    if (meanwhile && result_of(leader) == nullptr) now_ = until;
    ++waiting_;
    changed_.wait(lock, [&] { return result_of(leader) != nullptr || now_ >= until; });
    --waiting_;
    const end* const told = result_of(leader);
    return told != nullptr ? *told : end{.what = end::kind::pending};
  }

  answer invalidate(std::string_view key) {
    const fault now = begin(operation::invalidate, key);
    if (now == fault::refused) return answer::refused;
    if (now == fault::unreachable) return answer::unreachable;
    const std::lock_guard lock(mutex_);
    values_.erase(std::string(key));
    leases_.erase(std::string(key));
    return now == fault::reply_lost ? answer::unreachable : answer::held;
  }

  // What happens to a server, and what other programs do.

  void put(std::string_view key, std::string_view bytes, ms lifetime = ms(60'000)) {
    const std::lock_guard lock(mutex_);
    values_[std::string(key)] = {std::string(bytes), now_ + lifetime};
  }
  void evict_lease(std::string_view key) {
    const std::lock_guard lock(mutex_);
    leases_.erase(std::string(key));
  }
  void flush() {
    const std::lock_guard lock(mutex_);
    values_.clear();
    leases_.clear();
    results_.clear();
  }

  // What tests look at.

  [[nodiscard]] std::string value(std::string_view key) const {
    const std::lock_guard lock(mutex_);
    const std::string* const found = value_of(key);
    return found != nullptr ? *found : "(none)";
  }
  [[nodiscard]] ms lifetime(std::string_view key) const {
    const std::lock_guard lock(mutex_);
    const auto found = values_.find(key);
    return found == values_.end() ? ms(0) : std::chrono::ceil<ms>(found->second.expires - now_);
  }
  [[nodiscard]] std::string leader(std::string_view key) const {
    const std::lock_guard lock(mutex_);
    const auto found = leases_.find(key);
    return found != leases_.end() && found->second.expires > now_ ? found->second.what : "(none)";
  }
  [[nodiscard]] std::size_t waiting() const {
    const std::lock_guard lock(mutex_);
    return waiting_;
  }
  [[nodiscard]] ms longest_wait() const {
    const std::lock_guard lock(mutex_);
    return longest_wait_;
  }
  [[nodiscard]] std::vector<operation> operations() const {
    const std::lock_guard lock(mutex_);
    return operations_;
  }

 private:
  template <class What>
  struct expiring {
    What what;
    time_point expires;
  };
  template <class What>
  using table = std::map<std::string, expiring<What>, std::less<>>;

  fault begin(operation what, std::string_view key) {
    const fault now = faults(what, key);
    if (now == fault::throws) throw std::bad_alloc();
    const std::lock_guard lock(mutex_);
    operations_.push_back(what);
    return now;
  }

  entry entered(std::string_view key, std::string_view token, ms lease) {
    const std::lock_guard lock(mutex_);
    if (const std::string* const found = value_of(key)) {
      return {.what = entry::kind::hit, .value = *found};
    }
    expiring<std::string>& held = leases_[std::string(key)];
    if (held.expires <= now_) held = {std::string(token), now_ + lease};
    if (held.what == token) return {.what = entry::kind::lead};
    return {.what = entry::kind::wait,
            .leader = held.what,
            .left = std::chrono::ceil<ms>(held.expires - now_)};
  }

  [[nodiscard]] const std::string* value_of(std::string_view key) const {
    const auto found = values_.find(key);
    return found != values_.end() && found->second.expires > now_ ? &found->second.what : nullptr;
  }
  [[nodiscard]] bool holds(std::string_view key, std::string_view token) const {
    const auto found = leases_.find(key);
    return found != leases_.end() && found->second.expires > now_ && found->second.what == token;
  }
  [[nodiscard]] const end* result_of(std::string_view token) const {
    const auto found = results_.find(token);
    return found != results_.end() && found->second.expires > now_ ? &found->second.what : nullptr;
  }

  mutable std::mutex mutex_;
  std::condition_variable changed_;
  time_point now_{std::chrono::hours(1)};  // all below guarded by mutex_
  table<std::string> values_;
  table<std::string> leases_;  // the token of the leader
  table<end> results_;         // by token
  std::vector<operation> operations_;
  std::size_t waiting_ = 0;
  ms longest_wait_{0};
};

}  // namespace fleet_tests

#endif  // SINGLEFLIGHT_TESTS_FLEET_MEMORY_LEASES_HPP
