# SPDX-License-Identifier: MIT
# file: detail/lead.hpp
# scenario: circle_over
# oracle: a caller was refused who is in no circle
s/if \(handle->watched\) the_wait_graph[^;]*;//
