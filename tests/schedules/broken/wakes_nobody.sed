# SPDX-License-Identifier: MIT
# Publishes to the followers that can be stopped without waking them.
# file: detail/stoppable_wait.hpp
# scenario: stop_one
# oracle: nobody can go on, and not all have come back
s/for \(waiter\* w = first_[^\n]*//
