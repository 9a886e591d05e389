// SPDX-License-Identifier: MIT
// requires: boost/asio/any_completion_handler.hpp
// expect: or an asio::awaitable of it
#include <boost/asio/io_context.hpp>
#include <boost/asio/use_future.hpp>
#include <singleflight/boost_asio.hpp>

struct row {};

void use(singleflight::group<int, int>& g, boost::asio::io_context& io) {
  (void)singleflight::async_call(
      g, io, 1, [] { return row(); }, boost::asio::use_future);
}
