# SPDX-License-Identifier: MIT
# Gives the followers of a call that failed an exception of the library's.
# file: detail/lead.hpp
# scenario: throw
# oracle: a caller has no answer, and no loader was lost
s/(detail::fail\(home, own, )current_failure\(\)/\1make_call_error(reason::task_dropped)/
