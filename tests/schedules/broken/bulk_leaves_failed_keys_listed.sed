# SPDX-License-Identifier: MIT
# A bulk does not unlist the keys that its loader has not settled.
# file: detail/led_batch.hpp
# scenario: bulk_throws
# oracle: a call is listed that has ended
s/if \(failed\) home.count\(&group_stats::failed\);/if (failed) {\n      k.own.ended = true;\n      return;\n    }/
