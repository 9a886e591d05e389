// SPDX-License-Identifier: MIT
// A handler of the standalone Asio as a kind of caller in the matrix.
#include <asio/bind_cancellation_slot.hpp>
#include <asio/cancellation_signal.hpp>
#include <asio/io_context.hpp>
#include <memory>
#include <singleflight/asio.hpp>
#include <utility>
#include <vector>

#include "asio_party.hpp"

namespace matrix {
namespace {

struct the_library {
  using io_context = asio::io_context;
  using cancellation_signal = asio::cancellation_signal;
  static constexpr auto terminal = asio::cancellation_type::terminal;

  template <class Slot, class Handler>
  static auto bind_cancellation_slot(const Slot& slot, Handler handler) {
    return asio::bind_cancellation_slot(slot, std::move(handler));
  }
  template <class... Given>
  static void async_call(Given&&... given) {
    singleflight::async_call(std::forward<Given>(given)...);
  }
};

}  // namespace

template <class Value>
std::vector<kind<Value>> kinds_of_asio() {
  return kinds_with<Value, the_library>("Asio handler");
}
template std::vector<kind<int>> kinds_of_asio();
template std::vector<kind<void>> kinds_of_asio();
template std::vector<kind<std::unique_ptr<int>>> kinds_of_asio();

}  // namespace matrix
