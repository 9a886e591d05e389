# SPDX-License-Identifier: MIT
# Takes a caller that leads a call to be in a circle with whoever leads.
# file: detail/wait_graph.hpp
# scenario: circle
# oracle: a caller was refused who is in no circle
s/(std::size_t steps = 0;)/\1\n    if (*edge.leader != std::thread::id()) return false;/
