// SPDX-License-Identifier: MIT
// A handler of Asio as a kind of caller in the matrix. `Asio` names what is used of the library.
#ifndef SINGLEFLIGHT_TESTS_ASIO_PARTY_HPP
#define SINGLEFLIGHT_TESTS_ASIO_PARTY_HPP

#include <exception>
#include <memory>
#include <optional>
#include <singleflight/group.hpp>
#include <utility>
#include <vector>

#include "../async_matrix.hpp"

namespace matrix {

/// Is destroyed with its context, and stopped by its cancellation slot.
template <class Value, class Asio>
class asio_party final : public party<Value> {
 public:
  void enter(group<Value>& flights, the_call& call) override {
    auto load = [this, &call](singleflight::leader<Value> mine) {
      call.begin(mine.context());
      leader_.emplace(std::move(mine));
    };
    auto done = [this](const std::exception_ptr& error, const singleflight::result<Value>& r) {
      if (error == nullptr) {
        this->said.got(r);
      } else {
        this->said.failed(error);
      }
    };
    Asio::async_call(flights, *io_, 1, std::move(load),
                     Asio::bind_cancellation_slot(signal_.slot(), std::move(done)));
    finish();
  }
  void leave(leaving how) override {
    if (how == leaving::by_destruction) {
      io_.reset();
    } else {
      signal_.emit(Asio::terminal);
    }
  }
  void end(the_call& call) override { end_with(leader_, call); }
  void finish() override {
    if (!io_) return;
    io_->restart();
    io_->poll();
  }

 private:
  typename Asio::cancellation_signal signal_;
  std::optional<singleflight::leader<Value>> leader_;
  std::optional<typename Asio::io_context> io_{std::in_place};
};

template <class Value, class Asio>
[[nodiscard]] std::vector<kind<Value>> kinds_with(const char* name) {
  kind<Value> handler{
      .name = name, .make = [] {
        return std::unique_ptr<party<Value>>(std::make_unique<asio_party<Value, Asio>>());
      }};
  handler.leader_stops = true;
  handler.follower_stops = true;
  handler.can_be_destroyed = true;
  return {std::move(handler)};
}

}  // namespace matrix

#endif  // SINGLEFLIGHT_TESTS_ASIO_PARTY_HPP
