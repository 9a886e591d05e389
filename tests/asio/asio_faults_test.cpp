// SPDX-License-Identifier: MIT
// Callers by Asio where memory runs out: at each allocation in turn.
#include <array>
#include <cstddef>
#include <exception>
#include <functional>
#include <new>
#include <utility>
#include <vector>

#include "../replaced_new.hpp"
#include "either_asio.hpp"

#if defined(__GLIBC__)
#include <malloc.h>

namespace {
thread_local bool refuses_aligned_memory = false;  // once, to this thread
}

/// Asio allocates by it, rather than by operator new.
extern "C" void* aligned_alloc(std::size_t alignment, std::size_t size) noexcept {
  return std::exchange(refuses_aligned_memory, false) ? nullptr : memalign(alignment, size);
}
#endif

namespace {

using flight_group = singleflight::group<int, int>;

/// Refuses one allocation of this thread, the one of that number.
class refusal {
 public:
  explicit refusal(int number) noexcept {
    left_ = number;
    support::grants_allocation = []() noexcept { return left_-- != 0; };
  }
  refusal(const refusal&) = delete;
  refusal& operator=(const refusal&) = delete;
  ~refusal() { support::grants_allocation = nullptr; }

  /// Whether there were as many allocations.
  [[nodiscard]] static bool happened() noexcept { return left_ < 0; }

 private:
  static inline thread_local int left_ = 0;
};

void expect_bad_alloc(const std::exception_ptr& error) {
  EXPECT_THROW(std::rethrow_exception(error), std::bad_alloc);
}

/// Two callers of one key: who throws, completes with the value, or with `std::bad_alloc`.
template <class Load>
void expect_each_refusal_to_be_told(const Load& load) {
  if (!support::replaces_new) GTEST_SKIP() << "no allocation can be refused here";
  int number = 0;
  for (bool happened = true; happened; ++number) {
    flight_group flights;
    asio::io_context io;
    std::array<answer, 2> answers;
    int thrown = 0;
    {
      const refusal one(number);
      for (answer& a : answers) {
        try {
          async_call(flights, io, 1, {.deadline = clock_type::now() + 1h, .attempts = 2},
                     std::cref(load), into(a));
        } catch (const std::bad_alloc&) {
          ++thrown;
        }
      }
      io.run();
      happened = refusal::happened();
    }
    int told = thrown;
    for (const answer& a : answers) {
      told += a.calls;
      if (a.error != nullptr) {
        expect_bad_alloc(a.error);
      } else if (a.calls == 1) {
        EXPECT_EQ(a.value, 42);
      }
    }
    EXPECT_EQ(told, 2) << "at allocation " << number;
    if (!happened) {
      EXPECT_TRUE(answers[0].value == 42 && answers[1].value == 42);
    }
    support::expect_idle(flights);
  }
  EXPECT_GT(number, 4);
}

TEST(AsioWithoutMemory, LoaderThatIsAFunction) {
  expect_each_refusal_to_be_told([] { return 42; });
}

TEST(AsioWithoutMemory, LoaderThatTakesALeader) {
  expect_each_refusal_to_be_told(
      [](singleflight::leader<int> token) { std::move(token).set_value(42); });
}

#if defined(__GLIBC__)
TEST(AsioWithoutMemory, TimerThatCannotBeStartedEndsTheWait) {
  flight_group flights;
  asio::io_context io;
  auto leader = lead(flights, 1);
  answer a;
  refuses_aligned_memory = true;
  async_call(flights, io, 1, {.deadline = clock_type::now() + 1h}, must_not_load, into(a));
  ASSERT_FALSE(refuses_aligned_memory) << "nothing was refused";
  EXPECT_EQ(a.calls, 0);
  EXPECT_EQ(flights.stats().waiting, 0U);
  EXPECT_EQ(flights.stats().cancelled, 1U);
  io.run();
  EXPECT_EQ(a.calls, 1);
  expect_bad_alloc(a.error);
  std::move(leader).set_value(1);
  support::expect_idle(flights);
}
#endif

TEST(AsioWithoutMemory, ManyKeys) {
  if (!support::replaces_new) GTEST_SKIP() << "no allocation can be refused here";
  const auto load = [](auto& missing) {
    for (std::size_t i = 0; i < missing.size(); ++i) missing.set_at(i, 10 * missing[i]);
  };
  int number = 0;
  for (bool happened = true; happened; ++number) {
    flight_group flights;
    asio::io_context io;
    const std::vector<int> keys{1, 2, 1};
    int told = 0;
    std::exception_ptr failed;
    std::vector<singleflight::outcome<int>> rows;
    {
      const refusal one(number);
      try {
        singleflight::async_call_many(flights, io, keys,
                                      {.call = {.deadline = clock_type::now() + 1h}}, load,
                                      [&](std::exception_ptr error, auto answers) {
                                        ++told;
                                        failed = std::move(error);
                                        rows = std::move(answers);
                                      });
      } catch (const std::bad_alloc&) {
        ++told;
        failed = std::current_exception();
      }
      io.run();
      happened = refusal::happened();
    }
    EXPECT_EQ(told, 1) << "at allocation " << number;
    EXPECT_TRUE(happened || failed == nullptr);
    bool is_told = failed != nullptr;
    for (const auto& row : rows) is_told |= !row.has_value();
    EXPECT_EQ(is_told, happened) << "at allocation " << number;
    if (failed != nullptr) {
      expect_bad_alloc(failed);
      EXPECT_EQ(flights.stats().led, 0U) << "nothing was asked for";
    } else {
      ASSERT_EQ(rows.size(), keys.size());
      for (std::size_t i = 0; i < rows.size(); ++i) {
        if (rows[i].has_value()) {
          EXPECT_EQ(rows[i].value(), 10 * keys[i]);
        } else {
          EXPECT_TRUE(happened);
          expect_bad_alloc(rows[i].error());
        }
      }
    }
    support::expect_idle(flights);
  }
  EXPECT_GT(number, 4);
}

#if defined(SINGLEFLIGHT_TESTS_ASIO_COROUTINES)
// Its executor cannot be a strand: where there is no memory for one, Asio destroys what it has not
// made (strand_executor_service::create_implementation, in 1.22 and Boost 1.81).
TEST(AsioWithoutMemory, LoaderThatReturnsAnAwaitable) {
  expect_each_refusal_to_be_told([]() -> asio::awaitable<int, executor_type> { co_return 42; });
}
#endif

}  // namespace
