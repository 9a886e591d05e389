# SPDX-License-Identifier: MIT
# file: group.hpp
# scenario: async_destroyed
# oracle: a group must outlive the calls that are made through it
s/owned.wait\(\)/true/
