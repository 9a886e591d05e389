// SPDX-License-Identifier: MIT
#include "rows.hpp"

namespace schedules {

/// Has the types that `rows` does not show.
struct rows_internals {
  using group = rows::group;
  using shards = singleflight::detail::shards<key, rows::entry>;
};

namespace {

rows_internals::shards& shards_of_rows(rows_internals::group& group);

/// As in world.cpp.
template <auto Shards>
struct reveal_rows {
  friend rows_internals::shards& shards_of_rows(rows_internals::group& group) {
    return group.*Shards;
  }
};
template struct reveal_rows<&rows_internals::group::shards_>;

}  // namespace

const void* rows::mutex_of(group& of) noexcept { return &shards_of_rows(of).all().front().mutex; }

}  // namespace schedules
