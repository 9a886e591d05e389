# SPDX-License-Identifier: MIT
# file: detail/wait_graph.hpp
# scenario: circle
# oracle: nobody can go on, and not all have come back
s/if \(from == to\) return true;/if (from == to) return false;/
