// SPDX-License-Identifier: MIT
#ifndef SINGLEFLIGHT_BENCH_THREAD_STATE_HPP
#define SINGLEFLIGHT_BENCH_THREAD_STATE_HPP

#include <fcntl.h>
#include <unistd.h>

#include <array>
#include <cstddef>
#include <stdexcept>
#include <string_view>
#include <utility>

namespace bench {

/// Asks Linux whether the thread that made this object sleeps.
class thread_state {
 public:
  thread_state() : file_(open("/proc/thread-self/stat", O_RDONLY | O_CLOEXEC)) {
    if (file_ < 0) throw std::runtime_error("bench: cannot read /proc/thread-self/stat");
  }
  thread_state(thread_state&& other) noexcept : file_(std::exchange(other.file_, -1)) {}
  thread_state(const thread_state&) = delete;
  thread_state& operator=(const thread_state&) = delete;
  thread_state& operator=(thread_state&&) = delete;
  ~thread_state() {
    if (file_ >= 0) close(file_);
  }

  [[nodiscard]] bool asleep() const {
    std::array<char, 128> text{};
    const ssize_t size = pread(file_, text.data(), text.size(), 0);
    const std::string_view line(text.data(), static_cast<std::size_t>(size > 0 ? size : 0));
    const std::size_t name_end = line.rfind(") ");
    return name_end != std::string_view::npos && line.substr(name_end).starts_with(") S");
  }

 private:
  int file_;
};

}  // namespace bench

#endif  // SINGLEFLIGHT_BENCH_THREAD_STATE_HPP
