// SPDX-License-Identifier: MIT
// A batch whose members are called by many threads at once, as they may be.
#ifndef SINGLEFLIGHT_TESTS_BUSY_BATCH_HPP
#define SINGLEFLIGHT_TESTS_BUSY_BATCH_HPP

#include <gtest/gtest.h>

#include <atomic>
#include <cstddef>
#include <singleflight/group.hpp>
#include <thread>
#include <vector>

#include "support.hpp"

namespace support {

/// A hundred keys.
inline std::vector<int> many_keys() {
  std::vector<int> keys;
  for (int k = 0; k < 100; ++k) keys.push_back(k);
  return keys;
}

/// The body of a bulk loader, which settles each key with ten times the key. ThreadSanitizer sees a
/// member that does not take the lock that it needs.
template <class Group, class Batch>
void use_by_many_threads(Group& flights, Batch& missing,
                         const singleflight::call_context& context) {
  std::atomic<bool> all_have_started = false;
  threads all;
  const auto start = [&](const auto& use) {
    all.start([&missing, &all_have_started, use] {
      while (!all_have_started) std::this_thread::yield();
      for (std::size_t i = 0; i < missing.size(); ++i) use(i);
    });
  };
  start([&](std::size_t i) { missing.set_at(i, 10 * missing[i]); });
  start([&](std::size_t i) { missing.set(missing[i], 10 * missing[i]); });
  start([&](std::size_t i) { static_cast<void>(missing.wanted(i)); });
  start([&](std::size_t i) { static_cast<void>(missing.forgotten(i)); });
  start([&](std::size_t) { static_cast<void>(context.forgotten()); });
  start([&](std::size_t i) { static_cast<void>(flights.forget(missing[i])); });
  start([&](std::size_t i) {
    const int tenfold = 10 * missing[i];
    EXPECT_EQ(*flights.do_call(missing[i], [=] { return tenfold; }), tenfold);
  });
#if defined(__cpp_lib_jthread)
  start([&](std::size_t) { static_cast<void>(context.stop_token()); });
#endif
  all_have_started = true;
  all.join();
}

template <class Rows>
void expect_tenfold(const Rows& rows) {
  const std::vector<int> keys = many_keys();
  ASSERT_EQ(rows.size(), keys.size());
  for (std::size_t i = 0; i < keys.size(); ++i) EXPECT_EQ(rows[i].value(), 10 * keys[i]);
}

}  // namespace support

#endif  // SINGLEFLIGHT_TESTS_BUSY_BATCH_HPP
