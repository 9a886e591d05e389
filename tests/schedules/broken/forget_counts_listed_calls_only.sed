# SPDX-License-Identifier: MIT
# A forget that finds no call is not seen by one that everybody has left.
# file: group.hpp
# scenario: fill_left
# oracle: the cache keeps a row that was overwritten
s/home.forget\(\);\n    (if \(running == nullptr\) return false;)/\1\n    home.forget();/
