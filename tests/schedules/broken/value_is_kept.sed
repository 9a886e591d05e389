# SPDX-License-Identifier: MIT
# Never lets go of a future.
# file: detail/lead.hpp
# scenario: three_callers
# oracle: there are values left
s/(own.shared->channel->promise.set_value\(std::move)/static_cast<void>(new auto(own.shared->channel->future));\n    \1/
