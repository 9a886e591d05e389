# SPDX-License-Identifier: MIT
# Has a thread resume a caller that another thread has stopped, and wait there for the end of that one's
# stop callback. We had this error.
# file: detail/waiter_list.hpp
# scenario: async_two_stops
# oracle: nobody can go on, and not all have come back
s/if \(n->only_by != here\) continue;//
