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
using singleflight::call_began_event;
using singleflight::call_context;
using singleflight::call_ended_event;
using singleflight::call_error;
using singleflight::call_info;
using singleflight::call_options;
using singleflight::ending;
using singleflight::group;
using singleflight::group_options;
using singleflight::group_stats;
using singleflight::joined_event;
using singleflight::leader;
using singleflight::leaving;
using singleflight::left_event;
using singleflight::no_capture;
using singleflight::no_observer;
using singleflight::observer_of;
using singleflight::outcome;
using singleflight::refusal;
using singleflight::rejected_event;
using singleflight::result;
using singleflight::resume_inline;
using singleflight::resume_inline_t;
using singleflight::superseded_event;
using singleflight::to_string;
using singleflight::wait_ended_event;
}  // namespace singleflight
