// SPDX-License-Identifier: MIT
#ifndef TEMPLATE_SERVICE_TEMPLATE_HPP
#define TEMPLATE_SERVICE_TEMPLATE_HPP

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>

namespace template_service {

enum class locale : std::uint8_t { en, de };

inline const char* name(locale language) noexcept { return language == locale::de ? "de" : "en"; }

/// Everything that an answer depends on: the key of the cache and of the group. If a field were
/// missing, a caller could get the answer to another request.
struct template_key {
  std::uint32_t id = 0;
  locale language = locale::en;

  bool operator==(const template_key&) const = default;
};

/// The answer to a request as JSON, shared by all callers that wait for it; null if there is no
/// such template.
using details_json = std::shared_ptr<const std::string>;

}  // namespace template_service

template <>
struct std::hash<template_service::template_key> {
  std::size_t operator()(const template_service::template_key& key) const noexcept {
    return std::hash<std::uint64_t>()(std::uint64_t{key.id} << 8 |
                                      static_cast<std::uint64_t>(key.language));
  }
};

#endif  // TEMPLATE_SERVICE_TEMPLATE_HPP
