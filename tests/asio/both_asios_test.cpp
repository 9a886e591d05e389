// SPDX-License-Identifier: MIT
// Both Asios in one program: callers of each follow calls of the other.
#include <gtest/gtest.h>

#include <asio/io_context.hpp>
#include <asio/use_future.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/use_future.hpp>
#include <exception>
#include <optional>
#include <singleflight/asio.hpp>
#include <singleflight/boost_asio.hpp>
#include <utility>

namespace {

TEST(BothAsios, CallersOfEachFollowACallOfTheOther) {
  singleflight::group<int, int> flights;
  asio::io_context standalone;
  boost::asio::io_context boost;
  for (const bool boost_leads : {false, true}) {
    std::optional<singleflight::leader<int>> token;
    const auto load = [&](singleflight::leader<int> l) { token.emplace(std::move(l)); };
    const auto of_standalone = [&] {
      return singleflight::async_call(flights, standalone, 1, load, asio::use_future);
    };
    const auto of_boost = [&] {
      return singleflight::async_call(flights, boost.get_executor(), 1, load,
                                      boost::asio::use_future);
    };
    std::future<singleflight::result<int>> leads;
    std::future<singleflight::result<int>> follows;
    standalone.restart();
    boost.restart();
    if (boost_leads) {
      leads = of_boost();
      boost.poll();
      follows = of_standalone();
    } else {
      leads = of_standalone();
      standalone.poll();
      follows = of_boost();
    }
    ASSERT_TRUE(token);
    std::move(*token).set_value(6);
    standalone.run();
    boost.run();
    const auto leader = leads.get();
    const auto follower = follows.get();
    EXPECT_TRUE(leader.led());
    EXPECT_FALSE(follower.led());
    EXPECT_EQ(&*leader, &*follower);
    EXPECT_EQ(*leader, 6);
  }
}

TEST(BothAsios, CallersOfManyKeysFollowEachOther) {
  singleflight::group<int, int> flights;
  asio::io_context standalone;
  boost::asio::io_context boost;
  const auto tenfold = [](auto& missing) {
    for (const int key : missing) missing.set(key, 10 * key);
  };
  auto first =
      singleflight::async_call_many(flights, standalone, {1, 2}, tenfold, asio::use_future);
  auto second =
      singleflight::async_call_many(flights, boost, {2, 3}, tenfold, boost::asio::use_future);
  standalone.run();
  boost.run();
  EXPECT_EQ(&first.get().at(1).value(), &second.get().at(0).value());
  EXPECT_EQ(flights.stats().led, 3U);
}

}  // namespace
