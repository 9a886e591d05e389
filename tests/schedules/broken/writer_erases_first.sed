# SPDX-License-Identifier: MIT
# A writer erases the entry of the cache before it forgets the key.
# file: read_through.hpp
# scenario: fill_write
# oracle: the cache keeps a row that was overwritten
s/flights_.forget\(key\);\n    cache_.erase\(key\);/cache_.erase(key);\n    flights_.forget(key);/
