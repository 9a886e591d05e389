// SPDX-License-Identifier: MIT
// Runs the code of docs/observe.md.
#include <gtest/gtest.h>

#include <memory>

#include "observe_blocks.hpp"
#include "support.hpp"

namespace observe_guide {
namespace {

TEST(ObserveGuide, ARejectedCallerAndASlowCallAreLogged) {
  auto& flights = block_1::flights;
  EXPECT_ANY_THROW(
      (void)flights.do_call("welcome", {.timeout = -1s}, [] { return template_details{}; }));
  ASSERT_EQ(logged.size(), 1U);
  EXPECT_EQ(logged[0], "rejected key=welcome why=deadline");
  const block_1::logging observer;
  observer.call_ended("welcome",
                      singleflight::call_ended_event<int>{0, 2s, singleflight::ending::value, 3});
  EXPECT_EQ(logged.back(), "slow_call key=welcome ms how=value waited");
}

TEST(ObserveGuide, TheMetricsOfTheGroupAreCollected) {
  singleflight::prometheus_collector metrics;
  block_2::add_to(metrics);
  EXPECT_FALSE(metrics.Collect().empty());
}

TEST(ObserveGuide, TheSpanOfAFollowerLinksToThatOfItsLeader) {
  namespace trace = opentelemetry::trace;
  const auto tracer = std::make_shared<trace::Tracer>();
  observed_group<block_3::tracing> flights({}, {}, {}, {tracer});
  const auto be_in_span = [&](std::uint8_t id) {
    trace::Tracer::current() = std::make_shared<trace::Span>(
        trace::SpanContext({{id}}, {{id}}, {}, false), &tracer->exported, &tracer->guard,
        trace::exported_span{}, std::chrono::steady_clock::now());
  };
  support::threads follower;
  be_in_span(7);
  (void)flights.do_call("welcome", [&] {
    follower.start([&] {
      be_in_span(8);
      (void)flights.do_call("welcome", [] { return template_details{}; });
    });
    support::await_followers(flights, 1);
    const auto since = std::chrono::steady_clock::now();
    support::await([&] { return std::chrono::steady_clock::now() - since > 2ms; },
                   "two milliseconds");
    return template_details{"Hello"};
  });
  follower.join();
  // The follower may have been told so late to wait that it waited for less than a millisecond.
  if (tracer->exported.empty()) GTEST_SKIP() << "the follower was slow";
  ASSERT_EQ(tracer->exported.size(), 1U);
  const trace::exported_span& span = tracer->exported[0];
  EXPECT_EQ(span.outcome, "value");
  ASSERT_EQ(span.links.size(), 1U);
  EXPECT_EQ(span.links[0].trace_id(), (trace::TraceId{{7}}));
  EXPECT_EQ(span.links[0].span_id(), (trace::SpanId{{7}}));
  EXPECT_GE(span.took, 1ms);
}

}  // namespace
}  // namespace observe_guide
