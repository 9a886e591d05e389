// SPDX-License-Identifier: MIT
// requires: boost/asio/any_completion_handler.hpp
// expect: or nothing, or an asio::awaitable of one of the two
#include <boost/asio/io_context.hpp>
#include <boost/asio/use_future.hpp>
#include <singleflight/boost_asio.hpp>

void use(singleflight::group<int, int>& g, boost::asio::io_context& io) {
  (void)singleflight::async_call_many(
      g, io, {1, 2}, [](auto& missing) { return static_cast<int>(missing.size()); },
      boost::asio::use_future);
}
