# SPDX-License-Identifier: MIT
# Never lets go of a future.
# file: detail/lead.hpp
# scenario: three_callers
# oracle: there are values left
s/(own.shared->promise.set_value\(std::move)/static_cast<void>(new auto(own.shared->future));\n    \1/
