# SPDX-License-Identifier: MIT
# Unlists whatever call its key has, as `map.erase(key)` does.
# file: detail/call_map.hpp
# scenario: forget
# oracle: a call was unlisted that nobody may unlist
s/take_out\(c\);\n    key_buffer_/if (call_type* any = buckets_[c.hash >> shift_]) take_out(*any);\n    key_buffer_/
