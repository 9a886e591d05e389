# SPDX-License-Identifier: MIT
# Stores whom to resume when others can resume it already.
# file: coroutine.hpp
# scenario: async_follower_stop
# oracle: the program crashed
s/caller_ = caller;\n    const entered now = enter\(\);/const entered now = enter();\n    caller_ = caller;/
