# SPDX-License-Identifier: MIT
# The same, where the callback runs no task.
# file: detail/follow.hpp
# scenario: stop_callback
# oracle: a caller was refused who is in no circle
s/(block_until\(home, [^;]*;\n) *edge_.disconnect\(\);\n/\1/
