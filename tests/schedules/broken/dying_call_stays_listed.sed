# SPDX-License-Identifier: MIT
# Leaves a call in the map whose last interested caller has left.
# file: detail/call_map.hpp
# scenario: stop_newcomer
# oracle: a call is listed that nobody wants
s/if \(c.listed\(\)\) unlist\(c\);\n    return c.stop/return c.stop/
