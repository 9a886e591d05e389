# SPDX-License-Identifier: MIT
# Does not stop the loader when the leader was the last that was interested.
# file: detail/lead.hpp
# scenario: stop_newcomer
# oracle: whoever left a call last has not told its loader to stop
s/loader.request_stop\(\);//
