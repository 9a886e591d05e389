# SPDX-License-Identifier: MIT
# The same for a call whose callers are not threads.
# file: detail/call_map.hpp
# scenario: async_newcomer
# oracle: a call is listed that nobody wants
s/if \(c.listed\(\)\) unlist\(c\);\n    return c.stop/return c.stop/
