# SPDX-License-Identifier: MIT
# Hands out what a key is settled with before its call leaves the map.
# file: detail/led_batch.hpp
# scenario: bulk
# oracle: shared() is wrong
s/if \(!end\(k, false\)\) return;\n    give\(k, value\);/if (k.own.ended) return;\n    give(k, value);\n    if (!end(k, false)) return;/
