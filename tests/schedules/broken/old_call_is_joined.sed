# SPDX-License-Identifier: MIT
# Starts anew for an old call without taking that out of the map.
# file: group.hpp
# scenario: max_age
# oracle: two calls are listed for one key
s/    home.supersede\(\*running\);\n    seen/    seen/
