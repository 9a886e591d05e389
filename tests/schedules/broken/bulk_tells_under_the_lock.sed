# SPDX-License-Identifier: MIT
# A caller of many keys tells what it has noted before it releases the lock.
# file: detail/bulk.hpp
# scenario: observed_bulk
# oracle: an observer is told under a lock
s/(      \[\[maybe_unused\]\] const auto telling = seen_.tells_at_exit\(\);\n)(      \{\n        const lock guard\(home.mutex\);\n)/\2\1/
