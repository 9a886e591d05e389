# SPDX-License-Identifier: MIT
# Starts anew for an old call inside its own loader.
# file: group.hpp
# scenario: max_age_inside
# oracle: a call was unlisted by its own loader
s/ \|\|\n *waits_for_this_thread\(\*running\)\) \{/) {/
