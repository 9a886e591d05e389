# SPDX-License-Identifier: MIT
# Gives a follower the first future that it finds.
# file: detail/call_map.hpp
# scenario: bucket
# oracle: a caller has the result of a call that it neither led nor joined
s/return \{c.shared->future, handle\};/for (call_type* any = buckets_[c.hash >> shift_]; any != nullptr; any = any->next) {\n      if (any->shared) return {any->shared->future, handle};\n    }\n    return {c.shared->future, handle};/
