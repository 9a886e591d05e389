# SPDX-License-Identifier: MIT
# Hands the result out before the call leaves the map, as most versions of this pattern do.
# file: group.hpp
# scenario: two_by_two
# oracle: a caller has the result of a call that had ended or was forgotten before it came
s/(detail::end\(home, own\);)\n(      if \(!own.shared\)) (return keep[^\n]*)\n(      detail::publish\(home, own, std::move\(value\)\);)/\2 { \1 \3 }\n\4\n      \1/
