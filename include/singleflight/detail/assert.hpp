// SPDX-License-Identifier: MIT
#ifndef SINGLEFLIGHT_DETAIL_ASSERT_HPP
#define SINGLEFLIGHT_DETAIL_ASSERT_HPP

/// Checks a precondition and names the rule that was broken. Define it before the first include of
/// the library to have violations handled your way; the default is `assert`.
#ifndef SINGLEFLIGHT_ASSERT
#include <cassert>
#define SINGLEFLIGHT_ASSERT(condition, rule) assert((condition) && (rule))
#endif

#endif  // SINGLEFLIGHT_DETAIL_ASSERT_HPP
