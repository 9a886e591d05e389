// SPDX-License-Identifier: MIT
// Replays the scripts of traces.py on singleflight::group, one step at a time. replay.go is the same
// for golang.org/x/sync/singleflight; what both print must be equal.
#include <pthread.h>

#include <atomic>
#include <functional>
#include <future>
#include <iostream>
#include <map>
#include <memory>
#include <set>
#include <singleflight/group.hpp>
#include <string>
#include <system_error>
#include <thread>
#include <utility>
#include <vector>

namespace {

using group = singleflight::group<int, int>;

struct failure {
  int number;
};
struct panic {
  int number;
};
struct order {
  std::string how;
  int number;
};

void await(const std::function<bool()>& condition) {
  while (!condition()) std::this_thread::yield();
}

struct caller {
  int id = 0;
  int key = 0;
  bool chan = false;
  std::atomic<bool> leads = false;
  std::promise<order> orders;
  std::promise<void> recursion;
  std::promise<std::string> recursed;
  std::thread thread;  // of the caller, or of its loader if it does not block itself
  std::shared_future<int> future;
  std::string answer = "exits";

  ~caller() {
    if (thread.joinable()) thread.join();
  }

  int load() {
    leads = true;
    const order o = orders.get_future().get();
    if (o.how == "fail") throw failure{o.number};
    if (o.how == "panic") throw panic{o.number};
    if (o.how == "exit") pthread_exit(nullptr);
    return o.number;
  }
};

std::string number(const char* what, int n) { return what + (" " + std::to_string(n)); }

/// Returns: the value or the exception of `get`, as text. Lets the forced unwinding of a thread
/// pass.
template <class Get>
std::string answer_of(const Get& get) {
  try {
    return get();
  } catch (const failure& f) {
    return number("error", f.number);
  } catch (const panic& p) {
    return number("panic", p.number);
  } catch (const singleflight::call_error& e) {
    return e.code() == std::errc::owner_dead ? "owner_dead" : e.code().message();
  }
}

class replay {
 public:
  void enter(int id, int key, bool chan) {
    caller& c = *(callers_[id] = std::make_unique<caller>());
    c.id = id;
    c.key = key;
    c.chan = chan;
    const auto joined = group_.stats().joined;
    if (chan) {
      const auto executor = [&c](auto task) { c.thread = std::thread(std::move(task)); };
      c.future = group_.do_async(key, executor, [&c] { return c.load(); });
    } else {
      c.thread = std::thread([this, &c] {
        c.answer = answer_of([this, &c] {
          const auto r = group_.do_call(c.key, [&c] { return c.load(); });
          return number("value", *r) + (r.shared() ? " shared" : " alone");
        });
      });
    }
    await([&] { return c.leads || group_.stats().joined > joined; });
    std::cout << "caller " << id << (c.leads ? " leads\n" : " joins\n");
    if (c.leads) {
      listed_[key] = id;
      members_[id] = {id};
    } else {
      members_[listed_.at(key)].insert(id);
    }
  }

  void forget(int key) {
    group_.forget(key);
    listed_.erase(key);
    std::cout << "forget " << key << '\n';
  }

  void end(int id, const order& o) {
    caller& leader = *callers_.at(id);
    leader.orders.set_value(o);
    if (const auto it = listed_.find(leader.key); it != listed_.end() && it->second == id) {
      listed_.erase(it);
    }
    for (const int member : members_.at(id)) {
      caller& c = *callers_.at(member);
      if (c.chan) c.answer = answer_of([&c] { return number("value", c.future.get()); });
      if (c.thread.joinable()) c.thread.join();
      std::cout << "caller " << member << (c.chan ? " (chan): " : ": ") << c.answer << '\n';
    }
  }

  /// The answer of a call inside a call for the same key.
  void recurse() {
    const auto r = group_.do_call(0, [this] {
      std::cout << "caller 1 leads\n";
      const std::string inner =
          answer_of([this] { return number("value", *group_.do_call(0, [] { return 0; })); });
      const bool refused =
          inner == std::make_error_code(std::errc::resource_deadlock_would_occur).message();
      std::cout << "caller 1 " << (refused ? "is refused" : inner) << '\n';
      return 5;
    });
    std::cout << "caller 1: value " << *r << (r.shared() ? " shared\n" : " alone\n");
  }

 private:
  group group_;
  std::map<int, std::unique_ptr<caller>> callers_;
  std::map<int, int> listed_;             // key → leader, as observed
  std::map<int, std::set<int>> members_;  // leader → callers of its call
};

/// Runs two steps in no order. Returns: their outcome.
std::string race_once(const std::string& what, unsigned delay) {
  group g;
  std::atomic<bool> held_runs = false;
  std::atomic<bool> end = what == "do-do";
  std::atomic<bool> go = false;
  std::string held_answer;
  const auto answer = [&g](int mine, const std::function<void()>& wait) {
    const auto r = g.do_call(0, [&] {
      wait();
      return mine;
    });
    return std::string(*r == mine ? "own" : "other's") + (r.shared() ? " shared" : " alone");
  };
  const auto start = [&go](unsigned yields) {
    await([&] { return go.load(); });
    while (yields-- > 0) std::this_thread::yield();
  };
  std::thread held([&] {
    if (what == "do-do") start(delay / 8);
    held_answer = answer(1, [&] {
      held_runs = true;
      await([&] { return end.load(); });
      std::this_thread::yield();
    });
  });
  if (what != "do-do") await([&] { return held_runs.load(); });
  std::string second_answer;
  std::thread second([&] {
    start(delay % 8);
    second_answer = answer(2, [] { std::this_thread::yield(); });
  });
  std::thread third([&] {
    start(delay / 8);
    if (what == "do-forget") g.forget(0);
    if (what == "do-end") end = true;
  });
  go = true;
  third.join();
  if (what == "do-forget") {
    await([&] {
      const auto s = g.stats();
      return s.led + s.joined == 2;
    });
    end = true;
  }
  second.join();
  held.join();
  return held_answer + " | " + second_answer;
}

/// Repeats a race until it has had `outcomes` different outcomes, and at least 500 times.
void race(const std::string& what, std::size_t outcomes) {
  std::set<std::string> seen;
  for (unsigned i = 0; i < 500 || (seen.size() < outcomes && i < 200'000); ++i) {
    seen.insert(race_once(what, i % 64));
  }
  for (const std::string& outcome : seen) std::cout << "race " << what << ": " << outcome << '\n';
}

}  // namespace

int main() {
  std::unique_ptr<replay> now;
  for (std::string step; std::cin >> step;) {
    if (step == "trace") {
      std::string name;
      std::cin >> name;
      std::cout << "trace " << name << '\n';
      now = std::make_unique<replay>();
    } else if (step == "do" || step == "chan") {
      int id = 0;
      int key = 0;
      std::cin >> id >> key;
      now->enter(id, key, step == "chan");
    } else if (step == "forget") {
      int key = 0;
      std::cin >> key;
      now->forget(key);
    } else if (step == "end") {
      int id = 0;
      order o;
      std::cin >> id >> o.how >> o.number;
      now->end(id, o);
    } else if (step == "recursion") {
      now->recurse();
    } else if (step == "race") {
      std::string what;
      std::size_t outcomes = 0;
      std::cin >> what >> outcomes;
      race(what, outcomes);
    } else {
      std::cerr << "unknown step " << step << '\n';
      return 2;
    }
  }
}
