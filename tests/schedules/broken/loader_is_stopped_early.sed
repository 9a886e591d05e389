# SPDX-License-Identifier: MIT
# Stops the loader when any caller leaves.
# file: detail/call_map.hpp
# scenario: stop_one
# oracle: a loader is told to stop that somebody still waits for
s/if \(--c.interested > 0\) return no_stop_source\(\);/if (--c.interested > 0) return c.stop;/
