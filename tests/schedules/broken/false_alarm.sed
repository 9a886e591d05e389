# SPDX-License-Identifier: MIT
# Takes a caller that leads a call to be in a circle with whoever leads.
# file: detail/wait_graph.hpp
# scenario: circle
# oracle: a caller was refused who is in no circle
s/leads_to\(\*edge.target, edge.thread, edge.inside\)/edge.target->leader != std::thread::id()/
