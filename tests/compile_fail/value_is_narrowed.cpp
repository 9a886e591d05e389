// SPDX-License-Identifier: MIT
// expect: conversion
// flags: -Wconversion -Werror
#include <cstdint>
#include <singleflight/group.hpp>

void load(singleflight::group<int, std::int32_t>& g, std::int64_t row) {
  (void)g.do_call(1, [&] { return row; });
}
