# SPDX-License-Identifier: MIT
# Publishes to the followers that can be stopped without waking them.
# file: detail/waiter_list.hpp
# scenario: stop_one
# oracle: nobody can go on, and not all have come back
s/for \(waiter_node\* n = threads_.first[^\n]*//
