# SPDX-License-Identifier: MIT
# No loader learns that its key was forgotten.
# file: detail/context.hpp
# scenario: fill_write
# oracle: the cache keeps a row that was overwritten
s/return home_.forgets\(\) != own_.forgets_before;/return false;/
