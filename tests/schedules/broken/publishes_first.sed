# SPDX-License-Identifier: MIT
# Hands the result out before the call leaves the map, as most versions of this pattern do.
# file: detail/lead.hpp
# scenario: two_by_two
# oracle: a caller has the result of a call that had ended or was forgotten before it came
s/home.end\(own\);\n  \}\n  if \(!own.handed_out\(\)\) \{\n[^\n]*\n    (return detail::keep[^\n]*)\n  \}\n(  detail::publish\(home, own, value\);)/if (!own.handed_out()) home.end(own);\n  }\n  if (own.ended) \1\n\2\n  {\n    const lock guard(home.mutex);\n    home.end(own);\n  }/
