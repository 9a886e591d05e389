# SPDX-License-Identifier: MIT
# Leaves in the cache what was put while its key was forgotten.
# file: read_through.hpp
# scenario: fill_write
# oracle: the cache keeps a row that was overwritten
s/if \(!call.forgotten\(\)\) return;/return;/
