# SPDX-License-Identifier: MIT
# Looks for a call, and lists its own under another lock.
# file: group.hpp
# scenario: three_callers
# oracle: two calls are listed for one key
s/(begin\(home, own, running, me\);)/home.mutex.unlock(); home.mutex.lock(); \1/
