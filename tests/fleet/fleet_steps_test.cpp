// SPDX-License-Identifier: MIT
// Every order of the steps of a few processes, with what may happen to them in between: a loader
// throws, a process dies, a lease is lost, a reply is lost, the store refuses, somebody invalidates.
// A step is an operation of the store or the begin or end of a loader; each is atomic, as the scripts
// are.
//
// The store can be broken on purpose; then the search must find an order in which a promise breaks.

#include <gtest/gtest.h>

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <deque>
#include <map>
#include <memory>
#include <optional>
#include <random>
#include <semaphore>
#include <set>
#include <singleflight/fleet.hpp>
#include <stdexcept>
#include <string>
#include <string_view>
#include <thread>
#include <utility>
#include <vector>

namespace {

using namespace std::chrono_literals;
using singleflight::lease_answer;
using singleflight::lease_end;
using singleflight::lease_entry;
using std::chrono::milliseconds;

/// What is wrong with a store.
enum class defect {
  none,
  fills_without_comparing,  // no matter who has the lease
  fills_without_a_lease,    // a lease that is gone is as good as one's own
  takes_over_a_held_lease,  // SET without NX
  names_results_by_key,     // so that newcomers find old ones
  never_releases,
  releases_without_comparing,
  invalidates_the_value_only,
  replaces_a_value
};

struct loader_failed : std::runtime_error {
  loader_failed() : std::runtime_error("the loader failed") {}
};

/// What one search varies.
struct plan {
  int processes = 2;
  int rounds = 1;               // loads that each process makes, one after the other
  int events = 0;               // how much may happen in between
  milliseconds lifetime{1000};  // 0: nothing is kept
  defect wrong = defect::none;
};

/// One execution: threads that take their steps one at a time, as they are told.
class world {
 public:
  explicit world(const plan& p) : plan_(p) {
    for (int i = 0; i < p.processes; ++i) {
      processes_.push_back(std::make_unique<process>(*this, i));
    }
  }
  world(const world&) = delete;
  world& operator=(const world&) = delete;
  ~world() {
    ending_ = true;
    for (auto& each : processes_) {
      while (each->where != place::done) step(*each);
      each->thread.join();
    }
  }

  /// What may happen next, as text; it is only ever compared.
  [[nodiscard]] std::vector<std::string> choices() const {
    std::vector<std::string> all;
    for (const auto& each : processes_) {
      if (can_go_on(*each)) all.push_back("go " + std::to_string(each->number));
    }
    if (all.empty()) {
      bool anybody = false;
      for (const auto& each : processes_) anybody |= !each->dead && each->where != place::done;
      // They wait for a process that died, or whose reply was lost: time passes.
      if (anybody) all.emplace_back("time");
      return all;
    }
    if (events_ >= plan_.events) return all;
    if (!lease_.empty()) all.emplace_back("lose lease");
    all.emplace_back("invalidate");
    if (!value_) all.emplace_back("write through");
    for (const auto& each : processes_) {
      if (each->dead || each->where == place::done) continue;
      const std::string number = std::to_string(each->number);
      if (each->where == place::loaded) all.push_back("throw " + number);
      if (each->where == place::loaded || each->where == place::fill)
        all.push_back("die " + number);
      if (each->where == place::enter || each->where == place::fill) {
        all.push_back("lose reply " + number);
      }
      if (each->where == place::enter) all.push_back("refuse " + number);
    }
    return all;
  }

  void take(const std::string& choice) {
    ++now_;
    const std::string verb = choice.substr(0, choice.find_last_of(' '));
    if (choice == "time") {
      lease_.clear();
      for (auto& each : processes_) each->slice_is_over = true;
      return;
    }
    if (verb != "go") ++events_;
    if (choice == "lose lease") return lease_.clear();
    if (choice == "write through") {
      value_ = std::to_string(now_);
      return;
    }
    if (choice == "invalidate") {
      value_.reset();
      if (plan_.wrong != defect::invalidates_the_value_only) lease_.clear();
      invalidations_.push_back(now_);
      return;
    }
    process& its = *processes_[static_cast<std::size_t>(choice.back() - '0')];
    if (verb == "die") {
      its.dead = true;
      if (its.where == place::loaded) --loading_;
      return;
    }
    if (verb == "throw") its.throws = true;
    if (verb == "lose reply") its.loses_reply = true;
    if (verb == "refuse") its.refused = true;
    step(its);
  }

  /// What is wrong so far, if anything.
  [[nodiscard]] const std::string& broken() const { return broken_; }

  void check_the_end() {
    bool excuse = false;  // a lease may be left by who died, or does not know of it
    for (const auto& each : processes_) excuse |= each->dead || each->lost_a_reply;
    if (!lease_.empty() && !excuse) break_promise("a lease was left");
  }

 private:
  enum class place { enter, fill, release, wait, loading, loaded, done };

  struct process;
  /// The store as one process sees it.
  struct store {
    process& its;
    static std::chrono::steady_clock::time_point now() { return {}; }
    lease_entry enter(std::string_view, std::string_view token, milliseconds) {
      return its.in.enter(its, std::string(token));
    }
    lease_answer fill(std::string_view, std::string_view token, std::string_view bytes,
                      milliseconds lifetime, milliseconds) {
      return its.in.fill(its, std::string(token), std::string(bytes), lifetime);
    }
    lease_answer release(std::string_view, std::string_view token, milliseconds) {
      return its.in.release(its, std::string(token));
    }
    lease_end wait(std::string_view, std::string_view leader, milliseconds, std::size_t) {
      return its.in.wait(its, std::string(leader));
    }
    static lease_answer invalidate(std::string_view) { return lease_answer::held; }
  };

  struct process {
    process(world& w, int n) : in(w), number(n), thread([this] { in.run(*this); }) {
      back.acquire();
    }
    world& in;
    const int number;
    place where = place::enter;
    int entered = 0;  // when the load first looked into the store
    bool dead = false;
    bool throws = false;
    bool loses_reply = false;
    bool lost_a_reply = false;
    bool refused = false;
    bool slice_is_over = false;
    std::string waits_for;
    std::binary_semaphore go{0};
    std::binary_semaphore back{0};
    std::thread thread;  // the last member: it uses the others
  };

  [[nodiscard]] bool can_go_on(const process& its) const {
    if (its.dead || its.where == place::done) return false;
    if (its.where != place::wait) return true;
    // A wait ends with its leader's news. Until then it would only come back to wait again.
    return its.slice_is_over || results_.contains(result_of(its.waits_for)) ||
           lease_ != its.waits_for;
  }
  [[nodiscard]] std::string result_of(const std::string& token) const {
    return plan_.wrong == defect::names_results_by_key ? "k" : token;
  }

  static void step(process& its) {
    its.go.release();
    its.back.acquire();
  }
  /// In a process's thread: waits until it is told to take this step.
  static void arrive(process& its, place where) {
    its.where = where;
    its.back.release();
    its.go.acquire();
  }

  void break_promise(const std::string& what) {
    if (broken_.empty() && !ending_) broken_ = what;
  }

  void run(process& its) {
    store leases{its};
    singleflight::fleet<std::string, store> fleet(leases, {.max_wait = 1h, .jitter = 0});
    for (int round = 0; round < plan_.rounds && !ending_; ++round) {
      its.entered = 0;
      bool threw = false;
      try {
        const std::string value = fleet.load("k", plan_.lifetime, [&] {
          arrive(its, place::loading);
          const int begun = now_;
          if (++loading_ > 1 + events_) break_promise("too many loads at once");
          arrive(its, place::loaded);
          if (!its.dead) --loading_;
          threw = std::exchange(its.throws, false);
          if (threw) throw loader_failed();
          return std::to_string(begun);
        });
        check_value(std::stoi(value), its.entered);
      } catch (const loader_failed&) {
        if (!threw) break_promise("a caller got an exception that its loader did not throw");
      }
    }
    its.where = place::done;
    its.back.release();
  }

  void check_value(int begun, int entered) {
    for (const int invalidated : invalidations_) {
      if (begun < invalidated && invalidated < entered) {
        break_promise("a value older than an invalidation before the entry");
      }
    }
    const auto published = published_.find(begun);
    if (plan_.lifetime == 0ms && published != published_.end() && published->second < entered) {
      break_promise("somebody joined a load after its result was published");
    }
  }

  lease_entry enter(process& its, const std::string& token) {
    using kind = lease_entry::kind;
    arrive(its, place::enter);
    if (ending_) return {};
    if (its.entered == 0) its.entered = now_;
    if (std::exchange(its.refused, false)) return {.what = kind::refused};
    lease_entry said{.what = kind::wait, .leader = lease_, .left = 1000ms};
    if (value_) {
      said = {.what = kind::hit, .value = *value_};
    } else if (lease_.empty() || lease_ == token ||
               plan_.wrong == defect::takes_over_a_held_lease) {
      lease_ = token;
      said = {.what = kind::lead};
    }
    return lost(its) ? lease_entry{} : said;
  }

  lease_answer fill(process& its, const std::string& token, const std::string& bytes,
                    milliseconds lifetime) {
    arrive(its, place::fill);
    if (ending_) return lease_answer::unreachable;
    bool mine = lease_ == token;
    if (plan_.wrong == defect::fills_without_comparing) mine = !lease_.empty();
    if (plan_.wrong == defect::fills_without_a_lease) mine = mine || lease_.empty();
    if (mine) lease_.clear();
    const bool kept =
        mine && lifetime > 0ms && (!value_ || plan_.wrong == defect::replaces_a_value);
    if (kept) {
      if (!invalidations_.empty() && std::stoi(bytes) < invalidations_.back()) {
        break_promise("a result older than an invalidation was stored");
      }
      if (value_) break_promise("a value was replaced");
      value_ = bytes;
    }
    results_[result_of(token)] = kept ? lease_end{.what = lease_end::kind::kept}
                                      : lease_end{.what = lease_end::kind::value, .value = bytes};
    published_.emplace(std::stoi(bytes), now_);
    if (lost(its)) return lease_answer::unreachable;
    return mine ? lease_answer::held : lease_answer::lost;
  }

  lease_answer release(process& its, const std::string& token) {
    arrive(its, place::release);
    if (ending_ || plan_.wrong == defect::never_releases) return lease_answer::unreachable;
    if (lease_ != token && plan_.wrong != defect::releases_without_comparing) {
      return lease_answer::lost;
    }
    if (lease_ != token && !lease_.empty()) break_promise("the lease of another was released");
    lease_.clear();
    results_[result_of(token)] = {.what = lease_end::kind::failed};
    return lease_answer::held;
  }

  lease_end wait(process& its, const std::string& leader) {
    its.waits_for = leader;
    its.slice_is_over = false;
    arrive(its, place::wait);
    if (ending_) return {};
    const auto found = results_.find(result_of(leader));
    return found != results_.end() ? found->second : lease_end{.what = lease_end::kind::pending};
  }

  static bool lost(process& its) {
    if (!std::exchange(its.loses_reply, false)) return false;
    return its.lost_a_reply = true;
  }

  const plan plan_;
  bool ending_ = false;
  int now_ = 0;  // steps taken
  int events_ = 0;
  int loading_ = 0;
  std::string broken_;
  std::vector<int> invalidations_;
  std::map<int, int> published_;  // when, by when the load began
  std::optional<std::string> value_;
  std::string lease_;
  std::map<std::string, lease_end> results_;
  std::deque<std::unique_ptr<process>> processes_;
};

struct found {
  std::uint64_t executions = 0;
  std::string broken;
  std::vector<std::string> schedule;  // that breaks it
};

/// Runs one execution, in which `choose` says which of the choices to take at which depth.
template <class Choose>
void execute(const plan& p, found& result, const Choose& choose) {
  ++result.executions;
  world w(p);
  std::vector<std::string> schedule;
  for (std::size_t depth = 0; w.broken().empty(); ++depth) {
    const auto choices = w.choices();
    if (choices.empty()) break;
    if (depth > 200) {
      result.broken = "it does not end";
      break;
    }
    schedule.push_back(choices[choose(depth, choices)]);
    w.take(schedule.back());
  }
  if (w.broken().empty()) w.check_the_end();
  if (!w.broken().empty()) result.broken = w.broken();
  if (!result.broken.empty()) result.schedule = schedule;
}

/// Orders at random, in which most events come late.
found sample(const plan& p, std::uint64_t most) {
  std::mt19937 random(20130429);
  found result;
  while (result.executions < most && result.broken.empty()) {
    execute(p, result, [&](std::size_t, const std::vector<std::string>& choices) {
      std::size_t chosen = random() % choices.size();
      while (!choices[chosen].starts_with("go") && choices.front().starts_with("go") &&
             random() % 8 != 0) {
        chosen = random() % choices.size();
      }
      return chosen;
    });
  }
  return result;
}

/// Depth first, by replay: each execution repeats the last one up to some point, and there takes what
/// has not been taken.
found explore(const plan& p, std::uint64_t most) {
  struct decision {
    std::size_t chosen;
    std::size_t of;
  };
  std::vector<decision> path;
  found result;
  while (result.executions < most) {
    execute(p, result, [&](std::size_t depth, const std::vector<std::string>& choices) {
      if (depth == path.size()) path.push_back({0, choices.size()});
      return path[depth].chosen;
    });
    if (!result.broken.empty()) return result;
    while (!path.empty() && path.back().chosen + 1 == path.back().of) path.pop_back();
    if (path.empty()) return result;
    ++path.back().chosen;
  }
  return result;
}

std::string text(const found& f) {
  std::string all = f.broken + ", after:";
  for (const std::string& choice : f.schedule) all += " " + choice + ";";
  return all;
}

bool full() { return std::getenv("SINGLEFLIGHT_FLEET_FULL") != nullptr; }
const std::uint64_t most = full() ? 100'000 : 2'000;

/// All orders, or as many as there is time for: then those of a depth-first search, and as many at
/// random.
void expect_kept(const plan& p) {
  const found all = explore(p, most);
  EXPECT_EQ(all.broken, "") << text(all);
  if (std::getenv("SINGLEFLIGHT_FLEET_SHOW") != nullptr) {
    std::printf("%d processes, %d rounds, %d events: %s%llu orders\n", p.processes, p.rounds,
                p.events, all.executions < most ? "all " : "",
                static_cast<unsigned long long>(all.executions));
  }
  if (all.executions < most) return;
  const found some = sample(p, most);
  EXPECT_EQ(some.broken, "") << text(some);
}

TEST(FleetSteps, OfTwoProcessesKeepThePromisesInEveryOrder) {
  for (const auto lifetime : {1000ms, 0ms}) expect_kept({.rounds = 1, .lifetime = lifetime});
  for (const auto lifetime : {1000ms, 0ms}) expect_kept({.rounds = 2, .lifetime = lifetime});
}

TEST(FleetSteps, OfThreeProcessesKeepThePromisesInEveryOrder) {
  for (const auto lifetime : {1000ms, 0ms}) expect_kept({.processes = 3, .lifetime = lifetime});
}

TEST(FleetSteps, OfTwoProcessesKeepThePromisesWhateverHappensInBetween) {
  for (const int events : {1, 2}) {
    for (const auto lifetime : {1000ms, 0ms}) {
      expect_kept({.events = events, .lifetime = lifetime});
      expect_kept({.rounds = 2, .events = events, .lifetime = lifetime});
    }
  }
}

TEST(FleetSteps, OfThreeProcessesKeepThePromisesWhateverHappensInBetween) {
  for (const auto lifetime : {1000ms, 0ms}) {
    expect_kept({.processes = 3, .events = 1, .lifetime = lifetime});
  }
}

TEST(FleetSteps, OfAStoreThatIsBrokenBreakAPromise) {
  struct expected {
    defect wrong;
    plan with;
  };
  for (const expected& each :
       {expected{defect::fills_without_comparing, {.events = 1}},
        expected{defect::fills_without_a_lease, {.events = 1}},
        expected{defect::takes_over_a_held_lease, {}},
        expected{defect::names_results_by_key, {.rounds = 2, .lifetime = 0ms}},
        expected{defect::never_releases, {.events = 1, .lifetime = 0ms}},
        expected{defect::releases_without_comparing, {.events = 2}},
        expected{defect::invalidates_the_value_only, {.events = 1}},
        expected{defect::replaces_a_value, {.events = 1}}}) {
    plan p = each.with;
    p.wrong = each.wrong;
    const found result = sample(p, 100'000);
    EXPECT_NE(result.broken, "") << "defect " << static_cast<int>(each.wrong) << " after "
                                 << result.executions << " executions";
  }
}

}  // namespace
