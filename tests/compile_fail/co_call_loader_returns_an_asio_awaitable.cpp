// SPDX-License-Identifier: MIT
// requires: boost/asio/any_completion_handler.hpp
// expect: for an asio::awaitable use async_call of <singleflight/asio.hpp>
#include <boost/asio/awaitable.hpp>
#include <singleflight/coroutine.hpp>

boost::asio::awaitable<int> load();

void use(singleflight::group<int, int>& g) {
  (void)g.co_call(1, singleflight::resume_inline, load);
}
