# SPDX-License-Identifier: MIT
# Has a stop request resume an asynchronous caller that has been taken out of the list by the end.
# file: detail/async_wait.hpp
# scenario: async_stop
# oracle: the program crashed
s/if \(!handle_->waiters->remove\(\*this\)\) return false;\n      if \(is.how/handle_->waiters->remove(*this);\n      if (is.how/
