// SPDX-License-Identifier: MIT
#ifndef SINGLEFLIGHT_DETAIL_CONTEXT_HPP
#define SINGLEFLIGHT_DETAIL_CONTEXT_HPP

#include <memory>
#include <utility>

#include "../call_context.hpp"
#include "call.hpp"
#include "call_map.hpp"
#include "config.hpp"
#include "mutex.hpp"
#include "stop.hpp"
#include "wait_graph.hpp"

namespace singleflight::inline SINGLEFLIGHT_ABI::detail {

struct context_access {
  /// Returns: the call in the wait graph. Throws: `std::bad_alloc`.
  [[nodiscard]] static std::shared_ptr<wait_node> node_of(const call_context& context) {
    return context.get_node();
  }
};

/// The context of a call that is in flight.
template <class Key, class Value>
class context_of final : public call_context {
 public:
  context_of(call_map<Key, Value>& home, call<Key, Value>& own) noexcept : home_(home), own_(own) {}
  ~context_of() = default;

 private:
#if defined(__cpp_lib_jthread)
  /// A call gets a stop source when its loader first asks for it, or when it begins: see
  /// `stop_source_for`.
  [[nodiscard]] std::stop_token get_stop_token() const override {
    stop_source source;  // before the lock: it allocates
    lock guard(home_.mutex);
    stop_source current = home_.stop_of(own_, source);
    const bool wanted = home_.is_wanted(own_);
    guard.unlock();
    if (!wanted) current.request_stop();
    return current.get_token();
  }
#endif

  [[nodiscard]] bool was_forgotten() const noexcept override {
    const lock guard(home_.mutex);
    return home_.forgets() != own_.forgets_before;
  }

  [[nodiscard]] std::shared_ptr<wait_node> get_node() const override {
    const lock guard(home_.mutex);
    const auto& handle = home_.make_handle(own_, {.an_edge = true});
    return {handle, &handle->node};
  }

  call_map<Key, Value>& home_;
  call<Key, Value>& own_;
};

}  // namespace singleflight::inline SINGLEFLIGHT_ABI::detail

#endif  // SINGLEFLIGHT_DETAIL_CONTEXT_HPP
