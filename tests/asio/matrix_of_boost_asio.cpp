// SPDX-License-Identifier: MIT
// A handler of Boost.Asio as a kind of caller in the matrix.
#include <boost/asio/bind_cancellation_slot.hpp>
#include <boost/asio/cancellation_signal.hpp>
#include <boost/asio/io_context.hpp>
#include <memory>
#include <singleflight/boost_asio.hpp>
#include <utility>
#include <vector>

#include "asio_party.hpp"

namespace matrix {
namespace {

struct the_library {
  using io_context = boost::asio::io_context;
  using cancellation_signal = boost::asio::cancellation_signal;
  static constexpr auto terminal = boost::asio::cancellation_type::terminal;

  template <class Slot, class Handler>
  static auto bind_cancellation_slot(const Slot& slot, Handler handler) {
    return boost::asio::bind_cancellation_slot(slot, std::move(handler));
  }
  template <class... Given>
  static void async_call(Given&&... given) {
    singleflight::async_call(std::forward<Given>(given)...);
  }
};

}  // namespace

template <class Value>
std::vector<kind<Value>> kinds_of_boost_asio() {
  return kinds_with<Value, the_library>("Boost.Asio handler");
}
template std::vector<kind<int>> kinds_of_boost_asio();
template std::vector<kind<void>> kinds_of_boost_asio();
template std::vector<kind<std::unique_ptr<int>>> kinds_of_boost_asio();

}  // namespace matrix
