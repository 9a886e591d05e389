// SPDX-License-Identifier: MIT
#ifndef STAMPEDE_INTERRUPT_HPP
#define STAMPEDE_INTERRUPT_HPP

#include <atomic>
#include <csignal>

namespace stampede {

/// Set by Ctrl-C, or by the first thread that fails: every thread finishes its request and returns,
/// so that main() can clean up.
inline std::atomic<bool> interrupted = false;
static_assert(std::atomic<bool>::is_always_lock_free, "a signal handler may touch nothing else");

inline void interrupt_on_signal() {
  const auto handler = [](int signal) {
    interrupted = true;
    std::signal(signal, SIG_DFL);  // a second Ctrl-C kills
  };
  std::signal(SIGINT, handler);
  std::signal(SIGTERM, handler);
}

}  // namespace stampede

#endif  // STAMPEDE_INTERRUPT_HPP
