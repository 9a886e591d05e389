# SPDX-License-Identifier: MIT
# Takes a caller that leads a call to be in a circle with whoever leads.
# file: detail/wait_graph.hpp
# scenario: circle
# oracle: a caller was refused who is in no circle
s/(const lock guard\(mutex_\);)\n    for/\1\n    if (*edge.leader != std::thread::id()) return false;\n    for/
