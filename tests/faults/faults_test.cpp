// SPDX-License-Identifier: MIT
// Every use of everything that a group uses and did not write fails once, or from then on for ever,
// or ends its thread; in every operation. Nobody is left waiting, nothing stays listed or is leaked,
// and the books balance.

#include <gtest/gtest.h>
#include <pthread.h>

#include <chrono>
#include <cstddef>
#include <exception>
#include <iostream>
#include <new>
#include <set>
#include <singleflight/call_error.hpp>
#include <string>
#include <system_error>
#include <utility>
#include <vector>

#include "operations.hpp"

namespace {

using namespace faults;
using namespace std::chrono_literals;

/// What `call_error_of` gives for a call_error with this code, and for no exception.
std::error_code make_code(std::errc code) {
  return code == std::errc() ? std::error_code() : std::make_error_code(code);
}

/// The caller under test, on a thread of its own, which may end.
class caller {
 public:
  caller(world& w, const operation& what, plan& p) : world_(w), operation_(what), plan_(p) {}

  answer returns() {
    pthread_t thread{};
    EXPECT_EQ(pthread_create(&thread, nullptr, &run, this), 0);
    EXPECT_EQ(pthread_join(thread, nullptr), 0);
    return std::move(got_);
  }

 private:
  static void* run(void* self) {
    static_cast<caller*>(self)->call();
    return nullptr;
  }
  void call() {
    const carrying the_plan(&plan_);
    try {
      operation_.perform(world_);
      got_.number = world::ours;
    } catch (const std::exception&) {  // forced unwinding must go on
      got_.thrown = std::current_exception();
    }
  }

  world& world_;
  const operation& operation_;
  plan& plan_;
  answer got_;
};

struct tested_fault {
  operation what;
  effect how;

  friend std::string name(const tested_fault& f) { return f.what.name + "_" + name(f.how); }
  friend void PrintTo(const tested_fault& f, std::ostream* out) { *out << name(f); }
};

class EveryUse : public testing::TestWithParam<tested_fault> {
 protected:
  [[nodiscard]] static const operation& tested() { return GetParam().what; }
  [[nodiscard]] static effect how() { return GetParam().how; }

  /// Does the operation with the nth use of `where` failing. Returns: how many uses failed.
  static std::size_t fail(point where, std::size_t nth, clock::duration patience) {
    SCOPED_TRACE(std::string(name(where)) + " " + std::to_string(nth));
    plan p(where, how(), nth);
    auto options = tested().options;
    if (tested().timed == operation::by_age) options.max_age = patience;
    {
      world w(options, patience);
      tested().prepare(w);
      const answer got = caller(w, tested(), p).returns();
      w.all_return();
      expect_told(p, got);
      w.expect_unharmed(p, got);
    }
    EXPECT_EQ(alive, 0);
    return p.failures();
  }

  /// Expects that the caller was told of the failure, whatever it was, or of none if there was none.
  static void expect_told(const plan& p, const answer& got) {
    const bool absorbed = p.where() == point::allocation && tested().absorbs_allocations;
    if (p.failures() == 0 || absorbed) {
      EXPECT_EQ(support::call_error_of(got.thrown), make_code(tested().refused_with));
      EXPECT_EQ(got.number.has_value(), tested().refused_with == std::errc());
    } else if (p.how() == effect::ends_thread) {
      EXPECT_FALSE(got.number.has_value());
      if (got.thrown != nullptr) {
        EXPECT_EQ(support::call_error_of(got.thrown), std::errc::owner_dead);
      }
    } else {
      ASSERT_NE(got.thrown, nullptr);
      if (p.where() == point::allocation) {
        EXPECT_THROW(std::rethrow_exception(got.thrown), std::bad_alloc);
      } else {
        EXPECT_THROW(std::rethrow_exception(got.thrown), fault);
      }
    }
  }

  /// Fails each use of `where` in turn until there is none left to fail. Returns: how many there are.
  static std::size_t fail_each(point where, clock::duration patience) {
    for (std::size_t nth = 1;; ++nth) {
      const auto memory = support::live_bytes.load();
      const std::size_t failures = fail(where, nth, patience);
      EXPECT_EQ(support::live_bytes, memory) << name(where) << " " << nth;
      if (failures == 0 || HasFailure()) return nth - 1;
      injected += failures;
    }
  }

  [[nodiscard]] static bool can_fail(point p) {
    if (p == point::allocation) return how() != effect::ends_thread && support::replaces_new;
#ifdef SINGLEFLIGHT_TESTS_CALL_ONCE_HANGS
    if (p == point::value_move) return !tested().publishes;
#endif
    return true;
  }

 public:
  static inline std::size_t injected = 0;

  static auto every_operation_and_effect() {
    std::vector<ParamType> all;
    for (const operation& o : operations()) {
      all.push_back({o, effect::throws});
      all.push_back({o, effect::keeps_failing});
#if defined(SINGLEFLIGHT_TESTS_THREAD_EXIT_UNWINDS)
      if (!o.cannot_unwind && !o.uses.empty()) all.push_back({o, effect::ends_thread});
#endif
    }
    return all;
  }
};

TEST_P(EveryUse, LeavesEverybodyAnsweredAndTheKeyUsable) {
  fail(point::nothing, 0, 20ms);  // none: what is made once in a program is made now
  for (clock::duration patience = 20ms;; patience *= 4) {
    std::set<point> failed, expected;
    for (std::size_t i = 0; i < static_cast<std::size_t>(point::nothing); ++i) {
      const auto p = static_cast<point>(i);
      if (!can_fail(p)) continue;
      if (tested().uses.count(p) > 0) expected.insert(p);
      if (fail_each(p, patience) > 0) failed.insert(p);
      if (HasFailure()) return;
    }
    if (failed == expected) return;
    if (tested().timed == operation::untimed || patience > 10s) {
      for (point p : failed) EXPECT_EQ(expected.count(p), 1U) << name(p) << " failed";
      for (point p : expected) EXPECT_EQ(failed.count(p), 1U) << name(p) << " did not fail";
      return;
    }
  }
}

INSTANTIATE_TEST_SUITE_P(OfAnOperation, EveryUse,
                         testing::ValuesIn(EveryUse::every_operation_and_effect()),
                         [](const auto& test) { return name(test.param); });

/// Says at the end how much there was.
class summary : public testing::Environment {
 public:
  void TearDown() override {
    std::cout << "faults: " << operations().size() << " operations, " << EveryUse::injected
              << " uses failed\n";
  }
};
[[maybe_unused]] const auto* const at_the_end =
    testing::AddGlobalTestEnvironment(new summary);  // gtest deletes it

}  // namespace
