// SPDX-License-Identifier: MIT
#ifndef STAMPEDE_CREW_HPP
#define STAMPEDE_CREW_HPP

#include <atomic>
#include <cstddef>
#include <exception>
#include <mutex>
#include <thread>
#include <utility>
#include <vector>

#include "interrupt.hpp"

namespace stampede {

/// Threads that do the same work. If one fails, all are interrupted and join() throws its
/// exception.
class crew {
 public:
  template <class Work>
  crew(std::size_t size, const Work& work) : working_(size) {
    try {
      for (std::size_t i = 0; i < size; ++i) {
        threads_.emplace_back([this, work] { run(work); });
      }
    } catch (...) {  // the system refuses another thread
      interrupted = true;
      join_all();
      throw;
    }
  }
  crew(const crew&) = delete;
  crew& operator=(const crew&) = delete;
  ~crew() { join_all(); }

  [[nodiscard]] bool done() const noexcept { return working_ == 0; }

  void join() {
    join_all();
    if (failure_) std::rethrow_exception(std::exchange(failure_, nullptr));
  }

 private:
  template <class Work>
  void run(const Work& work) noexcept {
    try {
      work();
    } catch (...) {
      interrupted = true;
      const std::lock_guard lock(mutex_);
      if (!failure_) failure_ = std::current_exception();
    }
    --working_;
  }

  void join_all() {
    for (std::thread& thread : threads_) {
      if (thread.joinable()) thread.join();
    }
  }

  std::atomic<std::size_t> working_;
  std::mutex mutex_;
  std::exception_ptr failure_;  // guarded by mutex_ until all have joined
  std::vector<std::thread> threads_;
};

}  // namespace stampede

#endif  // STAMPEDE_CREW_HPP
