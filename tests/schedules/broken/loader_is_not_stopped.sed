# SPDX-License-Identifier: MIT
# Tells nobody that the last interested caller has left.
# file: group.hpp
# scenario: stop_newcomer
# oracle: whoever left a call last has not told its loader to stop
s/unwanted.request_stop\(\);//g
