# SPDX-License-Identifier: MIT
# Hands the result out before the call leaves the map, as most versions of this pattern do.
# file: group.hpp
# scenario: two_by_two
# oracle: a caller has the result of a call that had ended or was forgotten before it came
s/detail::end\(home, own\);\n      if \(!own.shared\) (return keep[^\n]*)\n(      detail::publish\(home, own, std::move\(value\)\);)/{\n        detail::lock guard(home.mutex);\n        if (!own.shared) {\n          home.end(own);\n          guard.unlock();\n          \1\n        }\n      }\n\2\n      detail::end(home, own);/
