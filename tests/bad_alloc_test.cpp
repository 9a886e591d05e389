// SPDX-License-Identifier: MIT
// What fails within the group and not in a loader: memory, a hash, an equality, the copy of a key.
// It is its own caller's failure; nothing stays listed, and nobody else notices.

#include <gtest/gtest.h>

#include <bit>
#include <cstddef>
#include <cstdlib>
#include <limits>
#include <new>
#include <optional>
#include <singleflight/group.hpp>
#include <string>

#include "support.hpp"

namespace {

using singleflight::group;

template <class Group>
void expect_idle(const Group& g) {
  EXPECT_EQ(g.stats().in_flight, 0U);
  EXPECT_EQ(g.stats().waiting, 0U);
  EXPECT_TRUE(g.in_flight().empty());
}

struct fault {};

/// Its hash, its equality or its copy throws, of this thread.
struct faulty_key {
  enum operation { none, hash, equal, copy };
  static inline thread_local operation failing = none;

  static void may_fail(operation now) {
    if (failing == now) throw fault();
  }
  explicit faulty_key(int n) : id(n) {}
  faulty_key(const faulty_key& other) : id(other.id) { may_fail(copy); }
  faulty_key& operator=(const faulty_key&) = delete;
  ~faulty_key() = default;
  friend bool operator==(const faulty_key& a, const faulty_key& b) {
    may_fail(equal);
    return a.id == b.id;
  }
  int id;
};

struct one_hash {
  std::size_t operator()(const faulty_key&) const {
    faulty_key::may_fail(faulty_key::hash);
    return 1;
  }
};

class failing_at {
 public:
  explicit failing_at(faulty_key::operation operation) { faulty_key::failing = operation; }
  failing_at(const failing_at&) = delete;
  failing_at& operator=(const failing_at&) = delete;
  ~failing_at() { faulty_key::failing = faulty_key::none; }
};

TEST(FaultyKey, LeavesNothingListedAndNothingLocked) {
  group<faulty_key, int, one_hash> g;
  const faulty_key key(1), another(2);
  const auto load = [] { return 42; };
  for (auto operation : {faulty_key::hash, faulty_key::copy}) {
    const failing_at now(operation);
    EXPECT_THROW((void)g.do_call(key, load), fault);
  }
  EXPECT_EQ(g.stats().led, 0U);
  EXPECT_EQ(*g.do_call(key,
                       [&] {
                         for (auto operation : {faulty_key::hash, faulty_key::equal}) {
                           const failing_at now(operation);
                           EXPECT_THROW((void)g.do_call(another, load), fault);
                           EXPECT_THROW(g.forget(key), fault);
                           EXPECT_THROW(g.forget_unshared(key), fault);
                         }
                         {
                           const failing_at now(faulty_key::copy);
                           EXPECT_THROW((void)g.do_call(another, load), fault);
                           EXPECT_THROW((void)g.in_flight(), fault);
                         }
                         EXPECT_EQ(g.in_flight().size(), 1U);
                         return *g.do_call(another, load);
                       }),
            42);
  EXPECT_EQ(g.stats().led, 2U);
  expect_idle(g);
}

TEST(FaultyKey, OfAFollowerIsItsAlone) {
  group<faulty_key, int, one_hash> g;
  const faulty_key key(1);
  support::threads leader;
  leader.start([&] {
    auto result = g.do_call(key, [&] {
      support::await_followers(g, 1);
      return 42;
    });
    EXPECT_TRUE(result.led());
    EXPECT_EQ(*result, 42);
  });
  support::await([&] { return g.stats().led == 1; }, "the call to run");
  for (auto operation : {faulty_key::hash, faulty_key::equal}) {
    const failing_at now(operation);
    EXPECT_THROW((void)g.do_call(key, [] { return 0; }), fault);
  }
  const failing_at now(faulty_key::copy);  // which a follower has no need of
  EXPECT_EQ(*g.do_call(key, [] { return 0; }), 42);
  leader.join();
  EXPECT_EQ(g.stats().joined, 1U);
}

}  // namespace

#if !defined(SINGLEFLIGHT_TESTS_KEEP_NEW)

namespace {

// Of this thread. All is granted while `grants_left` is `unlimited`.
constexpr std::size_t unlimited = std::numeric_limits<std::size_t>::max();
thread_local std::size_t grants_left = unlimited;
thread_local bool grants_resume = true;  // after one refusal
thread_local std::size_t refusals = 0;

void* take(std::size_t size, std::size_t alignment = alignof(std::max_align_t)) noexcept {
  if (grants_left == 0) {
    if (grants_resume) grants_left = unlimited;
    ++refusals;
    return nullptr;
  }
  if (grants_left != unlimited) --grants_left;
  return std::aligned_alloc(alignment, (size + alignment - 1) / alignment * alignment);
}

void* take_or_throw(std::size_t size, std::size_t alignment = alignof(std::max_align_t)) {
  if (void* p = take(size, alignment)) return p;
  throw std::bad_alloc();
}

// Inlined, it would have g++ warn that memory of operator new is freed (-Wmismatched-new-delete).
[[gnu::noinline]] void give_back(void* p) noexcept { std::free(p); }

}  // namespace

void* operator new(std::size_t n) { return take_or_throw(n); }
void* operator new[](std::size_t n) { return take_or_throw(n); }
void* operator new(std::size_t n, const std::nothrow_t&) noexcept { return take(n); }
void* operator new[](std::size_t n, const std::nothrow_t&) noexcept { return take(n); }
void* operator new(std::size_t n, std::align_val_t a) {
  return take_or_throw(n, static_cast<std::size_t>(a));
}
void* operator new[](std::size_t n, std::align_val_t a) {
  return take_or_throw(n, static_cast<std::size_t>(a));
}
void operator delete(void* p) noexcept { give_back(p); }
void operator delete[](void* p) noexcept { give_back(p); }
void operator delete(void* p, std::size_t) noexcept { give_back(p); }
void operator delete[](void* p, std::size_t) noexcept { give_back(p); }
void operator delete(void* p, std::align_val_t) noexcept { give_back(p); }
void operator delete[](void* p, std::align_val_t) noexcept { give_back(p); }
void operator delete(void* p, std::size_t, std::align_val_t) noexcept { give_back(p); }
void operator delete[](void* p, std::size_t, std::align_val_t) noexcept { give_back(p); }

namespace {

/// While it lives, refuses one allocation of this thread, or all, after having granted some.
class refusing {
 public:
  enum how_many { one, all };
  explicit refusing(std::size_t granted_first, how_many refused = one) {
    refusals = 0;
    grants_resume = refused == one;
    grants_left = granted_first;
  }
  refusing(const refusing&) = delete;
  refusing& operator=(const refusing&) = delete;
  ~refusing() { grants_left = unlimited; }
};

/// Does `work` with its first allocation refused, with its second, and so on until it succeeds;
/// `after` each failure. Returns the number of failures.
template <class Work, class After>
std::size_t refuse_each_allocation(const Work& work, const After& after) {
  for (std::size_t failures = 0;; ++failures) {
    try {
      const refusing nth(failures);
      work();
      return failures;
    } catch (const std::bad_alloc&) {
    }
    after();
  }
}

const std::string long_key = "a key that is too long to be kept within the string itself";

TEST(BadAlloc, OfALeaderLeavesNothingListed) {
  group<std::string, std::string> g;
  const std::size_t failures = refuse_each_allocation(
      [&] { (void)g.do_call(long_key, [] { return std::string(100, 'x'); }); },
      [&] { expect_idle(g); });
  EXPECT_GE(failures, 2U);
  EXPECT_EQ(g.stats().led, g.stats().failed + 1);
  EXPECT_LE(g.stats().led, failures);  // an entry whose key could not be copied did not happen
  expect_idle(g);
}

TEST(BadAlloc, OfTheFirstFollowerIsItsAlone) {
  group<std::string, std::string> g;
  support::threads others;
  others.start([&] {
    auto result = g.do_call(long_key, [&] {
      support::await_followers(g, 2);
      return std::string(100, 'x');
    });
    EXPECT_TRUE(result.led());
    EXPECT_TRUE(result.shared());
    EXPECT_EQ(*result, std::string(100, 'x'));
  });
  support::await([&] { return g.stats().led == 1; }, "the call to run");
  others.start([&] {
    support::await_followers(g, 1);
    EXPECT_EQ(
        refuse_each_allocation([&] { (void)g.do_call(long_key, [] { return "mine"; }); }, [] {}),
        0U);
  });
  std::optional<singleflight::result<std::string>> joined;
  const std::size_t failures =
      refuse_each_allocation([&] { joined.emplace(g.do_call(long_key, [] { return "mine"; })); },
                             [&] {
                               EXPECT_EQ(g.stats().joined, 0U);
                               EXPECT_EQ(g.stats().waiting, 0U);
                               EXPECT_EQ(g.stats().in_flight, 1U);
                             });
  others.join();
  EXPECT_GE(failures, 1U);
  EXPECT_EQ(**joined, std::string(100, 'x'));
  EXPECT_EQ(g.stats().failed, 0U);
  EXPECT_EQ(g.stats().joined, 2U);
  expect_idle(g);
}

TEST(BadAlloc, OfARefusedReentryHarmsNoCall) {
  group<std::string, int> g;
  std::size_t failures = 0;
  EXPECT_EQ(*g.do_call(long_key,
                       [&] {
                         failures = refuse_each_allocation(
                             [&] {
                               try {
                                 (void)g.do_call(long_key, [] { return 0; });
                               } catch (const singleflight::call_error&) {
                               }
                             },
                             [&] { EXPECT_EQ(g.stats().in_flight, 1U); });
                         return 42;
                       }),
            42);
  EXPECT_GE(failures, 1U);
  EXPECT_EQ(g.stats().rejected, failures + 1);
  expect_idle(g);
}

TEST(BadAlloc, OfALookIntoTheGroupHarmsNoCall) {
  group<std::string, int> g({.shards = 4});
  std::size_t failures = 0;
  (void)g.do_call(long_key, [&] {
    failures = refuse_each_allocation([&] { (void)g.in_flight(); },
                                      [&] { EXPECT_EQ(g.stats().in_flight, 1U); });
    EXPECT_EQ(g.in_flight().size(), 1U);
    return 0;
  });
  EXPECT_GE(failures, 2U);
  expect_idle(g);
}

TEST(BadAlloc, OfAGroupThatIsMadeIsItsMakers) {
  for (std::size_t shards = 1; shards <= 9; ++shards) {
    const std::size_t failures =
        refuse_each_allocation([&] { const group<int, int> g({.shards = shards}); }, [] {});
    EXPECT_EQ(failures, 1 + std::bit_ceil(shards));  // the shards, and the buckets of each
  }
}

TEST(BadAlloc, RefusesNoCallWhenTheMapCannotGrow) {
  constexpr int depth = 500;
  struct nest {
    group<int, int> g{{.shards = 1}};
    std::size_t deepest = 0;
    int found = 0;
    int call(int key) {
      return g.do_call(key, [&] {
        if (key < depth) return 1 + call(key + 1);
        deepest = g.stats().in_flight;
        for (int k = 1; k <= depth; k += 2) found += g.forget(k) ? 1 : 0;
        return 1;
      });
    }
  };
  for (std::size_t granted = 0; granted < 4; ++granted) {
    for (auto how_many : {refusing::one, refusing::all}) {
      nest n;
      int answer = 0;
      {
        const refusing growth(granted, how_many);
        answer = n.call(1);
      }
      EXPECT_GE(refusals, how_many == refusing::one ? 1U : 2U);
      EXPECT_EQ(answer, depth);
      EXPECT_EQ(n.deepest, std::size_t{depth});
      EXPECT_EQ(n.found, depth / 2);
      expect_idle(n.g);
    }
  }
}

}  // namespace

#endif
