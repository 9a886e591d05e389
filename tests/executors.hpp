// SPDX-License-Identifier: MIT
// Executors for tests, and helpers for the exceptions that callers get.
#ifndef SINGLEFLIGHT_TESTS_EXECUTORS_HPP
#define SINGLEFLIGHT_TESTS_EXECUTORS_HPP

#include <cstddef>
#include <exception>
#include <functional>
#include <mutex>
#include <singleflight/call_error.hpp>
#include <string>
#include <system_error>
#include <thread>
#include <utility>
#include <vector>

#include "support.hpp"

namespace support {

/// An executor that runs each task at once, on the caller's thread.
inline constexpr auto inline_executor = [](auto task) { task(); };

/// An executor that keeps its tasks until the test runs or drops them.
class task_queue {
 public:
  using task = std::function<void()>;

  void operator()(task t) {
    const std::lock_guard lock(mutex_);
    tasks_.push_back(std::move(t));
  }
  [[nodiscard]] std::size_t size() const {
    const std::lock_guard lock(mutex_);
    return tasks_.size();
  }
  /// Empties the queue. Dropping what this returns drops the tasks.
  std::vector<task> take() {
    const std::lock_guard lock(mutex_);
    return std::exchange(tasks_, {});
  }
  void run() {
    for (task& t : take()) std::exchange(t, nullptr)();
  }
  void drop() { take().clear(); }

 private:
  mutable std::mutex mutex_;
  std::vector<task> tasks_;
};

/// An executor that runs each task on a new thread, which the destructor joins.
class thread_executor {
 public:
  thread_executor() = default;
  thread_executor(const thread_executor&) = delete;
  thread_executor& operator=(const thread_executor&) = delete;
  ~thread_executor() { join(); }

  template <class Task>
  void operator()(Task task) {
    const std::lock_guard lock(mutex_);
    threads_.emplace_back(std::move(task));
  }
  void join() {
    std::vector<std::thread> all;
    {
      const std::lock_guard lock(mutex_);
      all.swap(threads_);
    }
    for (std::thread& t : all) t.join();
  }

 private:
  std::mutex mutex_;
  std::vector<std::thread> threads_;
};

/// The exception that `work` throws, or null. Keep it until the threads that saw the same exception
/// are joined: TSan does not see what orders the last release of an exception.
template <class Work>
std::exception_ptr thrown_by(const Work& work) {
  try {
    work();
  } catch (const std::exception&) {
    return std::current_exception();
  }
  return nullptr;
}

/// The code of a `call_error`, or none.
inline std::error_code call_error_of(const std::exception_ptr& thrown) {
  try {
    if (thrown) std::rethrow_exception(thrown);
  } catch (const singleflight::call_error& e) {
    return e.code();
  } catch (...) {
  }
  return {};
}

/// `what()` of an exception, or nothing.
inline std::string text_of(const std::exception_ptr& thrown) {
  try {
    if (thrown) std::rethrow_exception(thrown);
  } catch (const std::exception& e) {
    return e.what();
  } catch (...) {
  }
  return {};
}

}  // namespace support

#endif  // SINGLEFLIGHT_TESTS_EXECUTORS_HPP
