# SPDX-License-Identifier: MIT
# Asks a waiter for what posts it when it has been taken out of the list, and its frame may be gone.
# file: detail/waiter_list.hpp
# scenario: async_destroyed_frame
# oracle: the program crashed
s/const lock guard\(mutex\);\n    waiter_node\* const n = bound_.pop\(\);/waiter_node* n = nullptr;\n    { const lock guard(mutex); n = bound_.pop(); }/
