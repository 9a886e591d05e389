# SPDX-License-Identifier: MIT
# Runs a loader again that has thrown.
# file: detail/lead.hpp
# scenario: throw
# oracle: a loader runs twice
s/(detail::fail\(home, own, current_failure\(\)\);)/static_cast<void>(detail::load<Value>(std::forward<Fn>(fn), own.key,\n        [\&] { return detail::token_of(own.stop); }, [\&] { return context_of<Key, Value>(home, own); }));\n    \1/
