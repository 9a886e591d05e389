// SPDX-License-Identifier: MIT
#include "observed.hpp"

namespace schedules {

/// Has the types that `observed_calls` does not show.
struct observed_internals {
  using group = observed_calls::group;
  using shards = singleflight::detail::shards<key, int>;
};

namespace {

observed_internals::shards& shards_of_observed(observed_internals::group& group);

/// As in world.cpp.
template <auto Shards>
struct reveal_observed {
  friend observed_internals::shards& shards_of_observed(observed_internals::group& group) {
    return group.*Shards;
  }
};
template struct reveal_observed<&observed_internals::group::shards_>;

}  // namespace

const void* observed_calls::mutex_of(group& of) noexcept {
  return &shards_of_observed(of).all().front().mutex;
}

}  // namespace schedules
