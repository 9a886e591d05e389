# SPDX-License-Identifier: MIT
# file: detail/wait_graph.hpp
# scenario: circle
# oracle: nobody can go on, and not all have come back
s/if \(at->leader == thread\) return true;/if (at->leader == thread) return false;/
