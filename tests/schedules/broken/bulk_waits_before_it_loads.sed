# SPDX-License-Identifier: MIT
# A bulk waits for the calls that it has joined while its own are open.
# file: detail/bulk.hpp
# scenario: bulk
# oracle: nobody can go on, and not all have come back
s/(      batch_.lead\(limits_.options\(\), find, fn\);)/      wait();\n\1/
