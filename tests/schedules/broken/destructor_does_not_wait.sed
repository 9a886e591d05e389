# SPDX-License-Identifier: MIT
# file: group.hpp
# scenario: async_destroyed
# oracle: nobody can go on, and not all have come back
s/owned.wait\(\)/true/
