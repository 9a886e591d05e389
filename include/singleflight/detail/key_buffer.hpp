// SPDX-License-Identifier: MIT
#ifndef SINGLEFLIGHT_DETAIL_KEY_BUFFER_HPP
#define SINGLEFLIGHT_DETAIL_KEY_BUFFER_HPP

#include <concepts>
#include <cstddef>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>

#include "config.hpp"

namespace singleflight::inline SINGLEFLIGHT_ABI::detail {

/// Memory that a shard keeps of the key of an ended call, so that the next call need not allocate
/// the copy of its own key. In general none: a key of a user's type may hold what must not outlive
/// the call.
template <class Key>
class key_buffer {
 public:
  /// Returns: the argument that the call's key is made of.
  template <class K>
  [[nodiscard]] static K&& make(K&& key) noexcept {
    return std::forward<K>(key);
  }

  static void keep(Key&) noexcept {}
};

/// The buffer of one string; its characters are overwritten before it is a key again.
template <class Char, class Traits>
class key_buffer<std::basic_string<Char, Traits>> {
 public:
  using string = std::basic_string<Char, Traits>;

  /// Throws: `std::bad_alloc` where the kept buffer is too small.
  template <class K>
  [[nodiscard]] string make(K&& key) {
    if constexpr (is_copied<K>) {
      if (key.size() <= kept_.capacity()) {
        string made = std::move(kept_);
        made.assign(key);
        return made;
      }
    }
    return string(std::forward<K>(key));
  }

  void keep(string& key) noexcept {
    if (key.capacity() > kept_.capacity() && key.capacity() <= limit) kept_.swap(key);
  }

 private:
  /// Whether `K` is characters to copy, and no string that is given away together with its buffer.
  template <class K>
  static constexpr bool is_copied =
      !std::same_as<K, string> &&
      (std::same_as<std::remove_cvref_t<K>, string> ||
       std::same_as<std::remove_cvref_t<K>, std::basic_string_view<Char, Traits>>);

  static constexpr std::size_t limit = 1024 / sizeof(Char);  // one huge key must not stay

  string kept_;
};

}  // namespace singleflight::inline SINGLEFLIGHT_ABI::detail

#endif  // SINGLEFLIGHT_DETAIL_KEY_BUFFER_HPP
