// SPDX-License-Identifier: MIT
#ifndef SINGLEFLIGHT_VERSION_HPP
#define SINGLEFLIGHT_VERSION_HPP

/// The library's version, major * 10000 + minor * 100 + patch: 100 is 0.1.0.
/// The one place where it is written; the build reads it here.
#define SINGLEFLIGHT_VERSION 100

#endif  // SINGLEFLIGHT_VERSION_HPP
