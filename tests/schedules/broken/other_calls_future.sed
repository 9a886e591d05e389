# SPDX-License-Identifier: MIT
# Gives a follower the future of the first call of the bucket.
# file: detail/call_map.hpp
# scenario: bucket
# oracle: a caller has the result of a call that it neither led nor joined
s/return \{c.shared->channel->future, c.shared->handle\};/call_type\& any = *buckets_[c.hash >> shift_];\n    if (!any.shared) any.shared.emplace();\n    if (!any.shared->channel) any.shared->channel.emplace();\n    any.shared->handed_out = true;\n    return {any.shared->channel->future, c.shared->handle};/
