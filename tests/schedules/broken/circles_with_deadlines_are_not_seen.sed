# SPDX-License-Identifier: MIT
# Leaves a circle to the deadline of the one who would close it.
# file: detail/follow.hpp
# scenario: circle_deadline
# oracle: nobody can go on, and not all have come back
s/!is_nested\(\)/!is_nested() || limits_.has_deadline()/
