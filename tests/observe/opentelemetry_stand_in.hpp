// SPDX-License-Identifier: MIT
// A stand-in of the few names of opentelemetry-cpp 1.x that docs/observe.md uses, with their signatures,
// and an exporter that keeps the spans in memory. No Debian package has the library.
#ifndef SINGLEFLIGHT_TESTS_OPENTELEMETRY_STAND_IN_HPP
#define SINGLEFLIGHT_TESTS_OPENTELEMETRY_STAND_IN_HPP

#include <array>
#include <chrono>
#include <cstdint>
#include <initializer_list>
#include <memory>
#include <mutex>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace opentelemetry {

namespace nostd {
template <class T>
using shared_ptr = std::shared_ptr<T>;
using std::string_view;
}  // namespace nostd

namespace common {
using AttributeValue = const char*;

struct SystemTimestamp {
  SystemTimestamp() = default;
  explicit SystemTimestamp(std::chrono::system_clock::time_point t) : at(t) {}
  std::chrono::system_clock::time_point at;
};
struct SteadyTimestamp {
  SteadyTimestamp() = default;
  explicit SteadyTimestamp(std::chrono::steady_clock::time_point t) : at(t) {}
  std::chrono::steady_clock::time_point at;
};
}  // namespace common

namespace trace {

template <std::size_t Size>
struct Id {
  std::array<std::uint8_t, Size> bytes{};
  bool operator==(const Id&) const = default;
};
using TraceId = Id<16>;
using SpanId = Id<8>;
struct TraceFlags {
  std::uint8_t flags = 0;
};

class SpanContext {
 public:
  SpanContext(TraceId trace, SpanId span, TraceFlags flags, bool) noexcept
      : trace_(trace), span_(span), flags_(flags) {}
  [[nodiscard]] const TraceId& trace_id() const noexcept { return trace_; }
  [[nodiscard]] const SpanId& span_id() const noexcept { return span_; }
  [[nodiscard]] const TraceFlags& trace_flags() const noexcept { return flags_; }

 private:
  TraceId trace_;
  SpanId span_;
  TraceFlags flags_;
  std::shared_ptr<int> state_;  // the library's is not trivially copyable either
};

struct StartSpanOptions {
  common::SystemTimestamp start_system_time;
  common::SteadyTimestamp start_steady_time;
};

/// What the exporter keeps.
struct exported_span {
  std::string name;
  std::string outcome;
  std::vector<SpanContext> links;
  std::chrono::steady_clock::duration took{};
};

class Span {
 public:
  Span(SpanContext context, std::vector<exported_span>* to, std::mutex* guard, exported_span made,
       std::chrono::steady_clock::time_point start)
      : context_(context), to_(to), guard_(guard), made_(std::move(made)), start_(start) {}
  [[nodiscard]] SpanContext GetContext() const noexcept { return context_; }
  void End() noexcept {
    made_.took = std::chrono::steady_clock::now() - start_;
    const std::lock_guard lock(*guard_);
    to_->push_back(made_);
  }

 private:
  SpanContext context_;
  std::vector<exported_span>* to_;
  std::mutex* guard_;
  exported_span made_;
  std::chrono::steady_clock::time_point start_;
};

class Tracer {
 public:
  using attributes = std::initializer_list<std::pair<nostd::string_view, common::AttributeValue>>;

  [[nodiscard]] static nostd::shared_ptr<Span> GetCurrentSpan() noexcept { return current(); }

  nostd::shared_ptr<Span> StartSpan(nostd::string_view name, attributes with,
                                    std::initializer_list<std::pair<SpanContext, attributes>> links,
                                    const StartSpanOptions& options = {}) noexcept {
    exported_span made{std::string(name), with.size() > 0 ? with.begin()->second : "", {}};
    for (const auto& link : links) made.links.push_back(link.first);
    return std::make_shared<Span>(SpanContext({}, {}, {}, false), &exported, &guard, made,
                                  options.start_steady_time.at);
  }

  /// The span in which this thread is.
  static nostd::shared_ptr<Span>& current() {
    static thread_local nostd::shared_ptr<Span> span =
        std::make_shared<Span>(SpanContext({}, {}, {}, false), nullptr, nullptr, exported_span{},
                               std::chrono::steady_clock::time_point());
    return span;
  }

  std::vector<exported_span> exported;
  std::mutex guard;
};

}  // namespace trace
}  // namespace opentelemetry

#endif  // SINGLEFLIGHT_TESTS_OPENTELEMETRY_STAND_IN_HPP
