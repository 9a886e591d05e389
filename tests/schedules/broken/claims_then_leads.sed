# SPDX-License-Identifier: MIT
# Takes a call on an executor that has been claimed, but has no leader yet, for one with a leader. We had
# this error, and tests/stress found it.
# file: detail/owned_call.hpp
# scenario: async_then_call
# oracle: a caller was refused who is in no circle
s/if \(!taken_\) home_/if (phase_.load() == phase::open) home_/
