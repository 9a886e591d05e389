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

/// One string's buffer, which holds no more than characters that are overwritten.
template <class Char, class Traits>
class spare_key<std::basic_string<Char, Traits>> {
 public:
  using string = std::basic_string<Char, Traits>;

  /// Throws: `std::bad_alloc` where the spare buffer is too small.
  template <class K>
  [[nodiscard]] string make(K&& key) {
    if constexpr (std::same_as<std::remove_cv_t<K>, string>) {
      return string(std::forward<K>(key));  // it is given away, buffer and all
    } else if constexpr (is_characters<std::remove_cvref_t<K>>) {
      if (key.size() > spare_.capacity()) return string(key);
      string made = std::move(spare_);
      made.assign(key);
      return made;
    } else {
      return string(std::forward<K>(key));
    }
  }

  void keep(string& key) noexcept {
    if (key.capacity() > spare_.capacity() && key.capacity() <= most) spare_.swap(key);
  }

 private:
  template <class K>
  static constexpr bool is_characters =
      std::same_as<K, string> || std::same_as<K, std::basic_string_view<Char, Traits>>;

  static constexpr std::size_t most = 1024 / sizeof(Char);  // one huge key must not stay for ever

  string spare_;
};

}  // namespace singleflight::inline v1::detail

#endif  // SINGLEFLIGHT_DETAIL_SPARE_KEY_HPP
