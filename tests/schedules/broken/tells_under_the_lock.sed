# SPDX-License-Identifier: MIT
# Tells of a caller that has joined before it releases the lock.
# file: group.hpp
# scenario: observed
# oracle: an observer is told under a lock
s/      lock.unlock\(\);\n      if \(refusal\) refuse\(key, \*refusal, seen\);\n      if \(auto answer = seen.follow/      if (!refusal) seen.tell_joined(key);\n      lock.unlock();\n      if (refusal) refuse(key, *refusal, seen);\n      if (auto answer = seen.follow/
