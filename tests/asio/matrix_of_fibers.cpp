// SPDX-License-Identifier: MIT
// A fiber of Boost.Fiber as a kind of caller in the matrix: it waits as docs/asio.md shows.
#include <boost/fiber/condition_variable.hpp>
#include <boost/fiber/fiber.hpp>
#include <memory>
#include <mutex>
#include <optional>
#include <singleflight/group.hpp>
#include <utility>
#include <vector>

#include "../async_matrix.hpp"

namespace matrix {
namespace {

template <class Value>
class fiber_party final : public async_party<Value, false> {
 public:
  void enter(group<Value>& flights, the_call& call) override {
    fiber_ = boost::fibers::fiber(boost::fibers::launch::dispatch, [&] { wait(flights, call); });
  }
  void leave(leaving) override { this->request_stop(); }
  void end(the_call& call) override { end_with(leader_, call); }
  void finish() override { fiber_.join(); }

 private:
  void wait(group<Value>& flights, the_call& call) {
    std::mutex mutex;
    boost::fibers::condition_variable_any ended;
    std::optional<singleflight::outcome<Value>> came;
    flights.async_call(
        1, singleflight::resume_inline, this->options(),
        [this, &call](singleflight::leader<Value> mine) {
          call.begin(mine.context());
          leader_.emplace(std::move(mine));
        },
        [&](singleflight::outcome<Value> o) {
          const std::lock_guard lock(mutex);
          came.emplace(std::move(o));
          ended.notify_one();
        });
    std::unique_lock lock(mutex);
    ended.wait(lock, [&] { return came.has_value(); });
    this->said.outcome(std::move(*came));
  }

  std::optional<singleflight::leader<Value>> leader_;
  boost::fibers::fiber fiber_;
};

}  // namespace

template <class Value>
std::vector<kind<Value>> kinds_of_fibers() {
  kind<Value> fiber{.name = "fiber", .make = [] {
                      return std::unique_ptr<party<Value>>(std::make_unique<fiber_party<Value>>());
                    }};
#if defined(__cpp_lib_jthread)
  fiber.leader_stops = true;
  fiber.follower_stops = true;
#endif
  return {std::move(fiber)};
}
template std::vector<kind<int>> kinds_of_fibers();
template std::vector<kind<void>> kinds_of_fibers();
template std::vector<kind<std::unique_ptr<int>>> kinds_of_fibers();

}  // namespace matrix
