# SPDX-License-Identifier: MIT
# Leaves the wait of a caller that leaves in the wait graph while that runs stop callbacks.
# file: detail/follow.hpp
# scenario: stop_callback
# oracle: a caller was refused who is in no circle
s/(block_until\(home, [^;]*;\n) *edge_.disconnect\(\);\n/\1/
