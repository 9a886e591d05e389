// SPDX-License-Identifier: MIT
// flags: -fno-exceptions
// expect: singleflight needs exceptions: compile without -fno-exceptions
#include <singleflight/group.hpp>
