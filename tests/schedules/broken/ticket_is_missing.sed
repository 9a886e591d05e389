# SPDX-License-Identifier: MIT
# Has the task that was posted resume a coroutine whose frame was destroyed.
# file: coroutine.hpp
# scenario: async_destroyed_frame
# oracle: the program crashed
s/if \(resumption_ != nullptr\) resumption_->waiting.store\(nullptr\);//
