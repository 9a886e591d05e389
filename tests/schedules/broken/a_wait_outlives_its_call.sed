# SPDX-License-Identifier: MIT
# file: detail/lead.hpp
# scenario: circle_over
# oracle: a caller was refused who is in no circle
s/if \(handle->leader != std::thread::id\(\)\) the_wait_graph[^;]*;//
