// SPDX-License-Identifier: MIT
// `outcome`: a value or the exception of a call, for a caller that nothing can be thrown at.
#include <gtest/gtest.h>

#include <exception>
#include <memory>
#include <singleflight/group.hpp>
#include <singleflight/outcome.hpp>
#include <stdexcept>
#include <string>
#include <type_traits>
#include <utility>

#include "support.hpp"

namespace {

using singleflight::outcome;
using maker = singleflight::detail::outcome_maker;

static_assert(std::is_nothrow_move_constructible_v<outcome<std::string>>);
static_assert(std::is_move_assignable_v<outcome<void>>);
static_assert(!std::is_copy_constructible_v<outcome<int>>);

/// What a call of a group gives, as an outcome.
template <class Value, class Fn>
outcome<Value> outcome_of(Fn&& load) {
  singleflight::group<int, Value> flights;
  try {
    return maker::of(flights.do_call(1, std::forward<Fn>(load)));
  } catch (...) {
    return maker::failed<Value>(std::current_exception());
  }
}

TEST(Outcome, OfASuccessfulCallHasItsValue) {
  const auto row = outcome_of<std::string>([] { return "row"; });
  EXPECT_TRUE(row.has_value());
  EXPECT_EQ(row.value(), "row");
  EXPECT_EQ(row.error(), nullptr);
}

TEST(Outcome, OfAFailedCallThrowsTheVeryExceptionOfTheLoader) {
  const auto thrown = std::make_exception_ptr(std::runtime_error("no such row"));
  auto row = outcome_of<int>([&]() -> int { std::rethrow_exception(thrown); });
  EXPECT_FALSE(row.has_value());
  support::expect_same(row.error(), thrown);
  EXPECT_THROW(row.value(), std::runtime_error);
  EXPECT_THROW(std::ignore = std::move(row).value(), std::runtime_error);
  EXPECT_THROW(std::ignore = std::move(row).result(), std::runtime_error);
  EXPECT_FALSE(row.has_value()) << "it still has the exception";
}

TEST(Outcome, GivesItsResultAway) {
  auto row = outcome_of<std::unique_ptr<int>>([] { return std::make_unique<int>(7); });
  EXPECT_EQ(*row.value(), 7);
  const auto result = std::move(row).result();
  EXPECT_TRUE(result.led());
  EXPECT_EQ(**result, 7);
}

TEST(Outcome, GivesItsValueAway) {
  auto row = outcome_of<std::string>([] { return std::string(100, 'x'); });
  const char* const characters = row.value().data();
  const std::string taken = std::move(row).value();
  EXPECT_EQ(taken.data(), characters) << "moved, since nobody shares it";
}

TEST(Outcome, OfVoidSaysThatTheCallSucceeded) {
  auto done = outcome_of<void>([] {});
  EXPECT_TRUE(done.has_value());
  EXPECT_NO_THROW(done.value());
  EXPECT_TRUE(std::move(done).result().led());
  const auto failed = outcome_of<void>([] { throw std::runtime_error("no"); });
  EXPECT_FALSE(failed.has_value());
  EXPECT_THROW(failed.value(), std::runtime_error);
}

// A Value that is an exception_ptr itself is not taken for the failure.
TEST(Outcome, TellsAValueThatIsAnExceptionFromAFailure) {
  const auto row = outcome_of<std::exception_ptr>([] { return std::exception_ptr(); });
  EXPECT_TRUE(row.has_value());
  EXPECT_EQ(row.value(), nullptr);
}

TEST(Outcome, MayBeAssigned) {
  auto row = outcome_of<int>([] { return 1; });
  row = outcome_of<int>([]() -> int { throw std::runtime_error("no"); });
  EXPECT_FALSE(row.has_value());
  row = outcome_of<int>([] { return 2; });
  EXPECT_EQ(row.value(), 2);
}

}  // namespace
