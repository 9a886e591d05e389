# SPDX-License-Identifier: MIT
# Tells of a caller that has left also that its wait has ended.
# file: detail/watch.hpp
# scenario: observed
# oracle: a wait has ended whose caller was not told of
s/\} else if constexpr \(want::wait_ended\) \{/}\n    if constexpr (want::wait_ended) {/
