// SPDX-License-Identifier: MIT
// requires: boost/asio/any_completion_handler.hpp
// expect: a bulk loader must be callable with a singleflight::batch
#include <boost/asio/io_context.hpp>
#include <boost/asio/use_future.hpp>
#include <singleflight/boost_asio.hpp>

void use(singleflight::group<int, int>& g, boost::asio::io_context& io) {
  (void)singleflight::async_call_many(
      g, io, {1, 2}, [](const int& key) { return key; }, boost::asio::use_future);
}
