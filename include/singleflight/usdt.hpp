// SPDX-License-Identifier: MIT
#ifndef SINGLEFLIGHT_USDT_HPP
#define SINGLEFLIGHT_USDT_HPP

#include <chrono>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <string_view>
#include <type_traits>

#include "detail/config.hpp"
#include "observer.hpp"

// Static probes for bpftrace, perf, SystemTap and gdb, by <sys/sdt.h> of SystemTap (Debian:
// systemtap-sdt-dev). Where there is no such header, the observer does nothing.
//
//     singleflight::group<std::string, row, std::hash<std::string>, std::equal_to<std::string>,
//                         singleflight::usdt_observer> flights;
//
//     bpftrace -e 'usdt:./service:singleflight:joined { @[str(arg1, arg2)] = count(); }'
//
// A probe that nobody is attached to is one `nop`, and a note in the program. Its arguments are
// computed all the same: of `call_ended`, `wait_ended` and `left` by the clock.
//
// | probe                     | arguments                                                              |
// |---------------------------|------------------------------------------------------------------------|
// | `singleflight:call_began` | observer, key, size of the key, 1 if no other caller can join the call |
// | `singleflight:call_ended` | observer, nanoseconds, 1 if it has a value, followers                  |
// | `singleflight:joined`     | observer, key, size of the key, followers                              |
// | `singleflight:wait_ended` | observer, nanoseconds, 1 if it got a value                             |
// | `singleflight:left`       | observer, nanoseconds, `singleflight::leaving`, 1 if it began the call |
// | `singleflight:superseded` | observer, key, size of the key, nanoseconds                            |
// | `singleflight:rejected`   | observer, key, size of the key, `singleflight::refusal`                |
//
// The observer tells one group from another. Of a key that converts to a `std::string_view`, the
// characters are at `key`; of an integer or enumeration, `key` is the value and the size is 0; of
// others both are 0.
#if __has_include(<sys/sdt.h>)
#include <sys/sdt.h>
#define SINGLEFLIGHT_DETAIL_PROBE(name, n, ...) DTRACE_PROBE##n(singleflight, name, __VA_ARGS__)
#else
#define SINGLEFLIGHT_DETAIL_PROBE(name, n, ...) ::singleflight::detail::ignore(__VA_ARGS__)
#endif

namespace singleflight::inline SINGLEFLIGHT_ABI {

namespace detail {

template <class... Args>
constexpr void ignore(const Args&...) noexcept {}

struct shown_key {
  std::uint64_t data = 0;
  std::uint64_t size = 0;
};

template <class Key>
[[nodiscard]] shown_key show(const Key& key) noexcept {
  if constexpr (std::convertible_to<const Key&, std::string_view>) {
    const std::string_view text = key;
    return {reinterpret_cast<std::uintptr_t>(text.data()), text.size()};
  } else if constexpr (std::integral<Key> || std::is_enum_v<Key>) {
    return {static_cast<std::uint64_t>(key), 0};
  } else {
    return {};
  }
}

[[nodiscard]] inline std::int64_t in_ns(std::chrono::steady_clock::duration d) noexcept {
  return std::chrono::duration_cast<std::chrono::nanoseconds>(d).count();
}

}  // namespace detail

/// The observer of a group that has probes. An observer that wants more derives from it.
class usdt_observer {
 public:
  /// Fires `singleflight:call_began`.
  void call_began(const auto& key, const auto& e) const noexcept {
    const auto [data, size] = detail::show(key);
    SINGLEFLIGHT_DETAIL_PROBE(call_began, 4, this, data, size, int{e.alone});
  }
  /// Fires `singleflight:call_ended`.
  void call_ended(const auto& e) const noexcept {
    SINGLEFLIGHT_DETAIL_PROBE(call_ended, 4, this, detail::in_ns(e.took),
                              int{e.how == ending::value}, e.followers);
  }
  /// Fires `singleflight:joined`.
  void joined(const auto& key, const auto& e) const noexcept {
    const auto [data, size] = detail::show(key);
    SINGLEFLIGHT_DETAIL_PROBE(joined, 4, this, data, size, e.followers);
  }
  /// Fires `singleflight:wait_ended`.
  void wait_ended(const auto& e) const noexcept {
    SINGLEFLIGHT_DETAIL_PROBE(wait_ended, 3, this, detail::in_ns(e.waited),
                              int{e.how == ending::value});
  }
  /// Fires `singleflight:left`.
  void left(const auto& e) const noexcept {
    SINGLEFLIGHT_DETAIL_PROBE(left, 4, this, detail::in_ns(e.waited), static_cast<int>(e.why),
                              int{e.began});
  }
  /// Fires `singleflight:superseded`.
  void superseded(const auto& key, const auto& e) const noexcept {
    const auto [data, size] = detail::show(key);
    SINGLEFLIGHT_DETAIL_PROBE(superseded, 4, this, data, size, detail::in_ns(e.age));
  }
  /// Fires `singleflight:rejected`.
  void rejected(const auto& key, const auto& e) const noexcept {
    const auto [data, size] = detail::show(key);
    SINGLEFLIGHT_DETAIL_PROBE(rejected, 4, this, data, size, static_cast<int>(e.why));
  }
};

}  // namespace singleflight::inline SINGLEFLIGHT_ABI

#undef SINGLEFLIGHT_DETAIL_PROBE

#endif  // SINGLEFLIGHT_USDT_HPP
