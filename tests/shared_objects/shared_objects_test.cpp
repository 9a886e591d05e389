// SPDX-License-Identifier: MIT
// Two plugins that are built with -fvisibility=hidden and loaded by dlopen, or a program and one
// plugin: what must be one in a process is one. Each test runs in a child process of its own, since
// what is loaded first decides.

#include <dlfcn.h>
#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <cstddef>
#include <cstdio>
#include <cstdlib>
#include <functional>
#include <string>
#include <thread>

#include "../support.hpp"
#include "plugin.hpp"

namespace {

using support::await;

constexpr const char* first = SINGLEFLIGHT_TESTS_PLUGIN_ONE;
constexpr const char* second = SINGLEFLIGHT_TESTS_PLUGIN_TWO;

class plugin {
 public:
  // Without a path it is the program itself.
  plugin(const char* path, int flags) : image_(dlopen(path, RTLD_NOW | flags)) {
    if (image_ == nullptr) throw std::runtime_error(dlerror());
    functions_ = reinterpret_cast<plugin_entry*>(dlsym(image_, plugin_entry_name))();
    group = functions_->own_group();
  }
  plugin(const plugin&) = delete;
  plugin& operator=(const plugin&) = delete;
  ~plugin() = default;

  const plugin_functions* operator->() const { return functions_; }
  [[nodiscard]] int ask(int key, const std::function<int()>& loader) const {
    return ask(group, key, loader);
  }
  [[nodiscard]] int ask(void* g, int key, const std::function<int()>& loader) const {
    const auto call = [](void* f) { return (*static_cast<const std::function<int()>*>(f))(); };
    return functions_->ask(g, key, {call, const_cast<std::function<int()>*>(&loader)});
  }
  void close() { EXPECT_EQ(dlclose(image_), 0); }

  void* group = nullptr;

 private:
  void* image_;
  const plugin_functions* functions_ = nullptr;
};

constexpr unsigned limit_s = 100;

// Returns: the exit status of a child process that does `body`, or the negative signal.
int status_of(const std::function<void()>& body) {
  std::fflush(nullptr);
  const pid_t child = fork();
  if (child == 0) {
    alarm(limit_s);
    body();
    std::fflush(nullptr);
    _exit(testing::Test::HasFailure() ? 1 : 0);
  }
  int status = 0;
  EXPECT_EQ(waitpid(child, &status, 0), child);
  return WIFEXITED(status) ? WEXITSTATUS(status) : -WTERMSIG(status);
}

class SharedObjects : public testing::TestWithParam<int> {
 protected:
  // Runs `body` with two plugins.
  static void with_two(const std::function<void(plugin&, plugin&)>& body) {
    EXPECT_EQ(status_of([&] {
                plugin one(first, GetParam());
                plugin two(second, GetParam());
                body(one, two);
              }),
              0);
  }
};

INSTANTIATE_TEST_SUITE_P(Loaded, SharedObjects, testing::Values(RTLD_LOCAL, RTLD_GLOBAL),
                         [](const auto& flags) {
                           return flags.param == RTLD_LOCAL ? "Local" : "Global";
                         });

// clang++ makes no symbols that are unique in a process: what the linker merges by name is merged
// under RTLD_GLOBAL only, and with the program.
#if defined(__clang__)
#define SINGLEFLIGHT_TESTS_SKIP_LOCAL               \
  if (GetParam() == RTLD_LOCAL && first != nullptr) \
  GTEST_SKIP() << "a known limit: each shared object has its own"
#else
#define SINGLEFLIGHT_TESTS_SKIP_LOCAL static_cast<void>(0)
#endif

TEST_P(SharedObjects, AreOneWhereACircleIsRefused) {
  SINGLEFLIGHT_TESTS_SKIP_LOCAL;
  with_two([](plugin& one, plugin& two) {
    std::atomic<int> inside = 0;
    const auto cross = [&](plugin& mine, plugin& others) {
      return mine.ask(1, [&] {
        ++inside;
        await([&] { return inside == 2; }, "both to lead");
        return others.ask(1, [] { return 1; });
      });
    };
    int of_first = 0, of_second = 0;
    {
      support::threads both;
      both.start([&] { of_first = cross(one, two); });
      both.start([&] { of_second = cross(two, one); });
    }
    // One is refused, and its own call ends with that as its value; the other one follows it.
    EXPECT_EQ(of_first, plugin_refused);
    EXPECT_EQ(of_second, plugin_refused);
  });
}

TEST_P(SharedObjects, CatchEachOthersErrors) {
#if !defined(__GLIBCXX__)  // it compares the names of types; libc++ compares addresses
  SINGLEFLIGHT_TESTS_SKIP_LOCAL;
#endif
  with_two([](plugin& one, plugin& two) {
    EXPECT_EQ(two->catch_from(one->fail), caught_call_error);
    EXPECT_EQ(one->catch_from(two->fail), caught_call_error);
  });
}

TEST_P(SharedObjects, ShareOneGroup) {
  with_two([](plugin& one, plugin& two) {
    std::atomic<int> loads = 0;
    int value = 0;
    support::threads follower;
    EXPECT_EQ(
        one.ask(one.group, 1,
                [&] {
                  follower.start([&] { value = two.ask(one.group, 1, [&] { return ++loads; }); });
                  await([&] { return two->waiting(one.group) == 1; }, "the follower");
                  ++loads;
                  return 42;
                }),
        42);
    follower.join();
    EXPECT_EQ(value, 42);
    EXPECT_EQ(loads, 1);
    EXPECT_EQ(one.ask(one.group, 1, [&] { return two.ask(one.group, 1, [] { return 1; }); }),
              plugin_refused);
  });
}

TEST_P(SharedObjects, MayFork) {
  with_two([](plugin& one, plugin& two) {
    std::atomic<bool> over = false;
    support::threads leaders;
    const auto lead = [&](const plugin& p) {
      leaders.start([&] {
        (void)p.ask(1, [&] {
          await([&] { return over.load(); }, "the test to end");
          return 42;
        });
      });
      await([&] { return p->in_flight(p.group) == 1; }, "the call to run");
    };
    lead(one);
    lead(two);
    EXPECT_EQ(status_of([&] {
                for (const plugin* p : {&one, &two}) {
                  EXPECT_EQ((*p)->in_flight(p->group), 0U);
                  EXPECT_EQ(p->ask(1, [] { return 43; }), 43);
                }
              }),
              0);
    over = true;
  });
}

// The groups that nobody destroys go with the code that the handlers of a fork would run.
TEST_P(SharedObjects, MayForkAfterTheyAreUnloaded) {
  with_two([](plugin& one, plugin& two) {
    void* const left = one->new_group();
    void* const gone = two->new_group();
    EXPECT_EQ(two.ask(gone, 1, [] { return 42; }), 42);
    EXPECT_EQ(two.ask(left, 1, [] { return 42; }), 42);
    two.close();
    EXPECT_EQ(status_of([&] { EXPECT_EQ(one.ask(left, 1, [] { return 43; }), 43); }), 0);
    one.close();
    EXPECT_EQ(status_of([] {}), 0);
  });
}

TEST_P(SharedObjects, MayBeUnloadedWhileALoaderOfTheHostRuns) {
  EXPECT_EQ(status_of([] {
              plugin one(first, GetParam());
              std::thread([&] {
                (void)one.ask(1, [] {
                  for (;;) pause();
                  return 42;
                });
              }).detach();
              await([&] { return one->in_flight(one.group) == 1; }, "the call to run");
              one.close();
              std::exit(3);
            }),
            3);
}

TEST_P(SharedObjects, LetExitInALoaderEndTheProcessWithItsStatus) {
  EXPECT_EQ(status_of([] {
              plugin one(first, GetParam());
              std::thread([&] { (void)one.ask(1, []() -> int { std::exit(3); }); }).join();
            }),
            3);
}

}  // namespace
