# SPDX-License-Identifier: MIT
# Never lets go of what a loader has thrown.
# file: detail/lead.hpp
# scenario: throw
# oracle: there are exceptions left
s/(own.shared->channel->promise.set_exception\()/static_cast<void>(new std::exception_ptr(why)), \1/
