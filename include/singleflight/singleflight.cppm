// SPDX-License-Identifier: MIT
// `import singleflight;` for what <singleflight/group.hpp> and <singleflight/coroutine.hpp> declare. A
// module exports no macros: SINGLEFLIGHT_VERSION is in version.hpp, and SINGLEFLIGHT_ASSERT is what it
// was when this was compiled.
module;

#include "coroutine.hpp"
#include "group.hpp"

export module singleflight;

export namespace singleflight {
using singleflight::async_bulk_options;
using singleflight::async_options;
using singleflight::batch;
using singleflight::bulk_options;
using singleflight::call_context;
using singleflight::call_error;
using singleflight::call_info;
using singleflight::call_options;
using singleflight::group;
using singleflight::group_options;
using singleflight::group_stats;
using singleflight::leader;
using singleflight::outcome;
using singleflight::result;
using singleflight::resume_inline;
using singleflight::resume_inline_t;
}  // namespace singleflight
