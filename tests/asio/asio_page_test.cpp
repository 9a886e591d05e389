// SPDX-License-Identifier: MIT
// Runs the code of docs/asio.md, of which guide.cmake has made a header.

// The page's coroutines are in a header, where g++ warns of the lambdas in their frames.
#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC diagnostic ignored "-Wsubobject-linkage"
#endif

#include <gtest/gtest.h>
#include <unistd.h>

#include <asio_page_blocks.hpp>
#include <atomic>
#include <boost/asio/co_spawn.hpp>
#include <boost/asio/detached.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/use_future.hpp>
#include <boost/fiber/algo/work_stealing.hpp>
#include <boost/fiber/barrier.hpp>
#include <boost/fiber/operations.hpp>
#include <chrono>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

#include "../support.hpp"

namespace asio_page {
namespace {

TEST(AsioPage, ShowsCoroutines) {
  asio::io_context io;
  db.loads = 0;
  std::string bodies;
  for (int i = 0; i < 3; ++i) {
    asio::co_spawn(
        io,
        [&]() -> asio::awaitable<void> {
          bodies += (co_await block_1::get("a")).body + ", ";
          bodies += (co_await block_3::get_in_time("b")).body + ", ";
        },
        asio::detached);
  }
  io.run();
  EXPECT_EQ(bodies, "row a, row a, row a, row b, row b, row b, ");
  EXPECT_EQ(db.loads, 2);
}

TEST(AsioPage, ShowsALoaderThatBlocksAPool) {
  asio::io_context io;
  asio::thread_pool pool(1);
  block_2::get(pool, io.get_executor(), "c");
  io.run();
  EXPECT_EQ(used, "row c");
}

TEST(AsioPage, ShowsManyKeys) {
  asio::io_context io;
  db.loads = 0;
  auto page = asio::co_spawn(io, block_4::get_page({"a", "none", "b"}), asio::use_future);
  io.run();
  EXPECT_EQ(page.get(), (std::vector<std::string>{"row a", "(none)", "row b"}));
  EXPECT_EQ(db.loads, 1);
}

/// Threads that steal fibers from each other.
class stealing_threads {
 public:
  template <class Body>
  void run(const Body& body) {
    std::atomic<bool> done = false;
    std::thread other([&] {
      boost::fibers::use_scheduling_algorithm<boost::fibers::algo::work_stealing>(2U);
      while (!done) boost::this_fiber::sleep_for(std::chrono::microseconds(100));
    });
    std::thread first([&] {
      boost::fibers::use_scheduling_algorithm<boost::fibers::algo::work_stealing>(2U);
      body();
      done = true;
    });
    first.join();
    other.join();
  }
};

// Whether a loader is stolen by the other thread is up to the scheduler, which on a busy machine may
// never do it; the number is recorded.
TEST(Fibers, WaitWithoutTheirThreadAndLoadersMayMigrate) {
  constexpr int fibers = 100;
  singleflight::group<std::string, template_details> flights;
  std::atomic<int> migrated = 0;
  std::atomic<int> answered = 0;
  std::atomic<int> loads = 0;
  std::atomic<int> ended = 0;
  const auto round = [&](const std::string& id) {
    const auto load = [&, id]() -> template_details {
      ++loads;
      const auto here = ::gettid();  // compilers take std::this_thread::get_id() for constant
      // Until all wait: were one of them to block the thread, this would never be.
      while (flights.stats().waiting < fibers) boost::this_fiber::yield();
      if (::gettid() != here) ++migrated;
      return {"row " + id};
    };
    for (int i = 0; i < fibers; ++i) {
      boost::fibers::fiber([&, id, load] {
        if (block_5::fiber_call(flights, id, load).body == "row " + id) ++answered;
        ++ended;
      }).detach();
    }
  };
  stealing_threads().run([&] {
    for (int rounds = 1; rounds <= 20 || (migrated == 0 && rounds <= 500); ++rounds) {
      round(std::to_string(rounds));
      while (ended < rounds * fibers) boost::this_fiber::yield();
      ASSERT_EQ(answered, rounds * fibers);
      ASSERT_EQ(loads, rounds);
    }
  });
  RecordProperty("migrated", migrated);
  support::expect_idle(flights);
}

TEST(Fibers, AreThrownWhatTheLoaderThrows) {
  singleflight::group<std::string, template_details> flights;
  const auto load = []() -> template_details { throw std::runtime_error("no row"); };
  EXPECT_THROW((void)block_5::fiber_call(flights, "a", load), std::runtime_error);
}

}  // namespace
}  // namespace asio_page
