# SPDX-License-Identifier: MIT
# Claims a call on an executor in one step, and becomes its leader in another.
# file: detail/executor_call.hpp
# scenario: async_then_call
# oracle: a caller was refused who is in no circle
s/wanted_ = set_leader\(std::this_thread::get_id\(\)\);//
s/if \(!wanted_\)/if (!set_leader(std::this_thread::get_id()))/
