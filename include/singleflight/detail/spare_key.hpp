// SPDX-License-Identifier: MIT
#ifndef SINGLEFLIGHT_DETAIL_SPARE_KEY_HPP
#define SINGLEFLIGHT_DETAIL_SPARE_KEY_HPP

#include <concepts>
#include <cstddef>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>

namespace singleflight::inline v1::detail {

/// What a shard keeps of the keys of its ended calls, so that the next call need not allocate the
/// copy of its own: nothing. A key of a user's type may hold what must not outlive the call.
template <class Key>
class spare_key {
 public:
  /// Returns: what the call's key is made of.
  template <class K>
  [[nodiscard]] static K&& make(K&& key) noexcept {
    return std::forward<K>(key);
  }

  static void keep(Key&) noexcept {}
};

/// The buffer of one string; its characters are overwritten before it is a key again.
template <class Char, class Traits>
class spare_key<std::basic_string<Char, Traits>> {
 public:
  using string = std::basic_string<Char, Traits>;

  /// Throws: `std::bad_alloc` where the spare buffer is too small.
  template <class K>
  [[nodiscard]] string make(K&& key) {
    if constexpr (is_copied<K>) {
      if (key.size() <= spare_.capacity()) {
        string made = std::move(spare_);
        made.assign(key);
        return made;
      }
    }
    return string(std::forward<K>(key));
  }

  void keep(string& key) noexcept {
    if (key.capacity() > spare_.capacity() && key.capacity() <= most) spare_.swap(key);
  }

 private:
  /// Whether `K` is characters to copy, and no string that is given away, buffer and all.
  template <class K>
  static constexpr bool is_copied =
      !std::same_as<K, string> &&
      (std::same_as<std::remove_cvref_t<K>, string> ||
       std::same_as<std::remove_cvref_t<K>, std::basic_string_view<Char, Traits>>);

  static constexpr std::size_t most = 1024 / sizeof(Char);  // one huge key must not stay for ever

  string spare_;
};

}  // namespace singleflight::inline v1::detail

#endif  // SINGLEFLIGHT_DETAIL_SPARE_KEY_HPP
