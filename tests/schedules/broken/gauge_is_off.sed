# SPDX-License-Identifier: MIT
# Counts the followers of a call that has ended as waiting.
# file: detail/call_map.hpp
# scenario: three_callers
# oracle: a gauge is not 0 at the end
s/stats_.waiting -= c.shared->waiters;//
