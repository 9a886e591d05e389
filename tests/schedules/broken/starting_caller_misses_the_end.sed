# SPDX-License-Identifier: MIT
# Puts the caller that has begun a call into the list after the call has ended.
# file: detail/async_wait.hpp
# scenario: async_end
# oracle: an asynchronous caller was not resumed
s/const bool waits = !handle->waiters->published\(\);/const bool waits = true;/
