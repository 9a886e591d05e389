# SPDX-License-Identifier: MIT
# A loader loads what another has put into the cache since its caller looked.
# file: read_through.hpp
# scenario: fill
# oracle: a row was loaded that the cache had
s/if \(cache_answers\) old = find\(key, cache_answers\);//
