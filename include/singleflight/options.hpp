// SPDX-License-Identifier: MIT
#ifndef SINGLEFLIGHT_OPTIONS_HPP
#define SINGLEFLIGHT_OPTIONS_HPP

#include <cstddef>

namespace singleflight::inline v1 {

/// How a group works, fixed when it is made: `group<K, V> flights({.shards = 4});`
struct group_options {
  /// Into how many separately locked parts the map of calls is split, rounded up to a power of two.
  /// 0: eight for each hardware thread. At most 65,536.
  std::size_t shards = 0;
};

}  // namespace singleflight::inline v1

#endif  // SINGLEFLIGHT_OPTIONS_HPP
