// SPDX-License-Identifier: MIT
// `import singleflight;` for what `#include <singleflight/group.hpp>` declares. A module exports no
// macros: SINGLEFLIGHT_VERSION is in version.hpp, and SINGLEFLIGHT_ASSERT is what it was when this
// was compiled.
module;

#include "group.hpp"

export module singleflight;

export namespace singleflight {
using singleflight::call_error;
using singleflight::call_info;
using singleflight::call_options;
using singleflight::group;
using singleflight::group_options;
using singleflight::group_stats;
using singleflight::result;
}  // namespace singleflight
