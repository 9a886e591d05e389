// SPDX-License-Identifier: MIT
// Coroutine types in the styles that libraries have: lazy, eager, and one that re-routes whatever it
// awaits to its own executor. And a frame that its owner may destroy while it is suspended.
#ifndef SINGLEFLIGHT_TESTS_TASKS_HPP
#define SINGLEFLIGHT_TESTS_TASKS_HPP

#include <atomic>
#include <coroutine>
#include <exception>
#include <functional>
#include <optional>
#include <type_traits>
#include <utility>
#include <variant>

namespace support {

namespace detail {

/// What a task has come to: a value or an exception.
template <class T>
class settled {
 public:
  template <class U>
  void return_value(U&& value) {
    held_.template emplace<1>(std::forward<U>(value));
  }
  void unhandled_exception() noexcept { held_.template emplace<2>(std::current_exception()); }
  T take() {
    if (auto* const thrown = std::get_if<2>(&held_)) std::rethrow_exception(*thrown);
    return std::move(std::get<1>(held_));
  }

 private:
  std::variant<std::monostate, T, std::exception_ptr> held_;
};

template <>
class settled<void> {
 public:
  void return_void() noexcept {}
  void unhandled_exception() noexcept { thrown_ = std::current_exception(); }
  void take() {
    if (thrown_) std::rethrow_exception(thrown_);
  }

 private:
  std::exception_ptr thrown_;
};

template <class A>
decltype(auto) awaiter_of(A&& awaited) {
  if constexpr (requires { std::forward<A>(awaited).operator co_await(); }) {
    return std::forward<A>(awaited).operator co_await();
  } else {
    return std::forward<A>(awaited);
  }
}

/// What awaiting it gives.
template <class A>
using awaited = decltype(detail::awaiter_of(std::declval<A>()).await_resume());

/// Owns the frame of a coroutine.
template <class Promise>
class frame_owner {
 public:
  explicit frame_owner(std::coroutine_handle<Promise> frame) noexcept : frame_(frame) {}
  frame_owner(frame_owner&& other) noexcept : frame_(std::exchange(other.frame_, nullptr)) {}
  frame_owner& operator=(frame_owner other) noexcept {
    std::swap(frame_, other.frame_);
    return *this;
  }
  ~frame_owner() {
    if (frame_) frame_.destroy();
  }
  [[nodiscard]] std::coroutine_handle<Promise> get() const noexcept { return frame_; }

 private:
  std::coroutine_handle<Promise> frame_;
};

}  // namespace detail

/// Begins when it is awaited, and resumes who awaits it by symmetric transfer: in the style of cppcoro
/// and libcoro.
template <class T = void>
class [[nodiscard]] lazy_task {
 public:
  struct promise_type : detail::settled<T> {
    std::coroutine_handle<> next = std::noop_coroutine();

    lazy_task get_return_object() noexcept {
      return lazy_task(std::coroutine_handle<promise_type>::from_promise(*this));
    }
    [[nodiscard]] std::suspend_always initial_suspend() const noexcept { return {}; }
    auto final_suspend() noexcept {
      struct transfer {
        [[nodiscard]] bool await_ready() const noexcept { return false; }
        std::coroutine_handle<> await_suspend(
            std::coroutine_handle<promise_type> done) const noexcept {
          return done.promise().next;
        }
        void await_resume() const noexcept {}
      };
      return transfer{};
    }
  };

  auto operator co_await() && noexcept {
    struct awaiter {
      std::coroutine_handle<promise_type> task;
      [[nodiscard]] bool await_ready() const noexcept { return false; }
      [[nodiscard]] std::coroutine_handle<> await_suspend(
          std::coroutine_handle<> next) const noexcept {
        task.promise().next = next;
        return task;
      }
      T await_resume() const { return task.promise().take(); }
    };
    return awaiter{frame_.get()};
  }

 private:
  explicit lazy_task(std::coroutine_handle<promise_type> frame) noexcept : frame_(frame) {}

  detail::frame_owner<promise_type> frame_;
};

/// Begins at once, on any thread, and may be done before it is awaited. It must be awaited.
template <class T = void>
class [[nodiscard]] eager_task {
 public:
  struct promise_type : detail::settled<T> {
    std::atomic<void*> next = nullptr;  // who awaits it; this: it is done

    eager_task get_return_object() noexcept {
      return eager_task(std::coroutine_handle<promise_type>::from_promise(*this));
    }
    [[nodiscard]] std::suspend_never initial_suspend() const noexcept { return {}; }
    auto final_suspend() noexcept {
      struct transfer {
        [[nodiscard]] bool await_ready() const noexcept { return false; }
        std::coroutine_handle<> await_suspend(
            std::coroutine_handle<promise_type> done) const noexcept {
          promise_type& p = done.promise();
          void* const waiting = p.next.exchange(&p);
          if (waiting == nullptr) return std::noop_coroutine();
          return std::coroutine_handle<>::from_address(waiting);
        }
        void await_resume() const noexcept {}
      };
      return transfer{};
    }
  };

  auto operator co_await() && noexcept {
    struct awaiter {
      promise_type& task;
      [[nodiscard]] bool await_ready() const noexcept { return task.next.load() != nullptr; }
      [[nodiscard]] bool await_suspend(std::coroutine_handle<> next) const noexcept {
        void* none = nullptr;
        return task.next.compare_exchange_strong(none, next.address());
      }
      T await_resume() const { return task.take(); }
    };
    return awaiter{frame_.get().promise()};
  }

 private:
  explicit eager_task(std::coroutine_handle<promise_type> frame) noexcept : frame_(frame) {}

  detail::frame_owner<promise_type> frame_;
};

/// Begins at once and destroys itself when it is done.
struct detached {
  struct promise_type {
    [[nodiscard]] detached get_return_object() const noexcept { return {}; }
    [[nodiscard]] std::suspend_never initial_suspend() const noexcept { return {}; }
    [[nodiscard]] std::suspend_never final_suspend() const noexcept { return {}; }
    void return_void() const noexcept {}
    [[noreturn]] void unhandled_exception() const noexcept { std::terminate(); }
  };
};

/// Where a `routed_task` runs.
using route = std::function<void(std::function<void()>)>;

/// Lazy. Whatever it awaits, it is resumed by its own executor: in the style of folly and of the
/// senders' tasks. The executor is the `route` among its arguments.
template <class T = void>
class [[nodiscard]] routed_task {
 public:
  template <class A>
  struct rerouted {
    A inner;
    const route& home;
    detail::settled<detail::awaited<A>> came = {};

    [[nodiscard]] bool await_ready() const noexcept { return false; }
    void await_suspend(std::coroutine_handle<> me) { follow(*this, me); }
    auto await_resume() { return came.take(); }

    static detached follow(rerouted& self, std::coroutine_handle<> me) {
      try {
        if constexpr (std::is_void_v<detail::awaited<A>>) {
          co_await std::move(self.inner);
        } else {
          self.came.return_value(co_await std::move(self.inner));
        }
      } catch (...) {
        self.came.unhandled_exception();
      }
      self.home([me] { me.resume(); });
    }
  };

  struct promise_type : lazy_task<T>::promise_type {
    const route* home = nullptr;

    template <class... Args>
    explicit promise_type(const Args&... args) {
      (note(args), ...);
    }
    routed_task get_return_object() noexcept {
      return routed_task(std::coroutine_handle<promise_type>::from_promise(*this));
    }
    auto final_suspend() noexcept {
      struct transfer {
        [[nodiscard]] bool await_ready() const noexcept { return false; }
        std::coroutine_handle<> await_suspend(
            std::coroutine_handle<promise_type> done) const noexcept {
          return done.promise().next;
        }
        void await_resume() const noexcept {}
      };
      return transfer{};
    }
    template <class A>
    auto await_transform(A inner) const noexcept {  // by value, as folly's does
      return rerouted<A>{std::move(inner), *home};
    }

   private:
    void note(const route& r) { home = &r; }
    template <class Other>
    void note(const Other&) const noexcept {}
  };

  auto operator co_await() && noexcept {
    struct awaiter {
      std::coroutine_handle<promise_type> task;
      [[nodiscard]] bool await_ready() const noexcept { return false; }
      [[nodiscard]] std::coroutine_handle<> await_suspend(
          std::coroutine_handle<> next) const noexcept {
        task.promise().next = next;
        return task;
      }
      T await_resume() const { return task.promise().take(); }
    };
    return awaiter{frame_.get()};
  }

 private:
  explicit routed_task(std::coroutine_handle<promise_type> frame) noexcept : frame_(frame) {}

  detail::frame_owner<promise_type> frame_;
};

/// Begins at once. Its owner may destroy it while it is suspended.
class [[nodiscard]] frame {
 public:
  struct promise_type {
    frame get_return_object() noexcept {
      return frame(std::coroutine_handle<promise_type>::from_promise(*this));
    }
    [[nodiscard]] std::suspend_never initial_suspend() const noexcept { return {}; }
    [[nodiscard]] std::suspend_always final_suspend() const noexcept { return {}; }
    void return_void() const noexcept {}
    [[noreturn]] void unhandled_exception() const noexcept { std::terminate(); }

    // Where g++ inlines one of the two, it takes it for the global one, to which the other does not belong.
    [[gnu::noinline]] static void* operator new(std::size_t size) { return ::operator new(size); }
    /// Leaves no pointer there that somebody could follow who uses the frame afterwards.
    [[gnu::noinline]] static void operator delete(void* memory, std::size_t size) noexcept {
      auto* const bytes = static_cast<volatile unsigned char*>(memory);
      for (std::size_t i = 0; i < size; ++i) bytes[i] = 0xFF;
      ::operator delete(memory);  // clang++ 14 has none with the size
    }
  };

  frame() noexcept : frame_({}) {}
  void destroy() { *this = frame(); }
  [[nodiscard]] bool done() const noexcept { return frame_.get().done(); }

 private:
  explicit frame(std::coroutine_handle<promise_type> handle) noexcept : frame_(handle) {}

  detail::frame_owner<promise_type> frame_;
};

/// Something to await that the test completes, on the thread that does so. Awaited once.
template <class T>
class gate {
 public:
  auto operator co_await() noexcept {
    struct awaiter {
      gate& opens;
      [[nodiscard]] bool await_ready() const noexcept { return false; }
      [[nodiscard]] bool await_suspend(std::coroutine_handle<> waiting) const noexcept {
        void* none = nullptr;
        return opens.waiting_.compare_exchange_strong(none, waiting.address());
      }
      T await_resume() const { return opens.came_.take(); }
    };
    return awaiter{*this};
  }

  /// Whether somebody waits.
  [[nodiscard]] bool awaited() const noexcept { return waiting_.load() != nullptr; }

  template <class... U>
  void open(U&&... value) {
    if constexpr (sizeof...(U) > 0) came_.return_value(std::forward<U>(value)...);
    resume();
  }
  void fail(std::exception_ptr why) {
    try {
      std::rethrow_exception(std::move(why));
    } catch (...) {
      came_.unhandled_exception();
    }
    resume();
  }

 private:
  void resume() {
    void* const waiting = waiting_.exchange(this);
    if (waiting != nullptr) std::coroutine_handle<>::from_address(waiting).resume();
  }

  detail::settled<T> came_;
  std::atomic<void*> waiting_ = nullptr;  // who waits; this: it is open
};

}  // namespace support

#endif  // SINGLEFLIGHT_TESTS_TASKS_HPP
