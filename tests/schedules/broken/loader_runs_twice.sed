# SPDX-License-Identifier: MIT
# Runs a loader again that has thrown.
# file: detail/lead.hpp
# scenario: throw
# oracle: a loader runs twice
s/(detail::fail\(home, own, current_failure\(\)\);)/static_cast<void>(detail::run_loader(std::forward<Fn>(fn), own.stop));\n    \1/
