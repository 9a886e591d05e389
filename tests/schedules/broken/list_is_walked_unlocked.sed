# SPDX-License-Identifier: MIT
# Takes all waiters out of the list at once, and resumes them without the mutex.
# file: detail/waiter_list.hpp
# scenario: async_follower_stop
# oracle: the program crashed
s/if \(waiter_node\* const n = inlined_.pop\(\)\) return n;//
s/void resume_all_of\(waiter_list& list\) const noexcept \{/void resume_all_of(waiter_list\& list) const noexcept SINGLEFLIGHT_NOT_ANALYSED {\n    waiter_node* all = nullptr;\n    { const lock guard(list.mutex); if (list.published_) { all = list.inlined_.first; list.inlined_ = {}; } }\n    while (all != nullptr) { waiter_node* const n = all; all = n->next; n->is.wake(*n); }/
