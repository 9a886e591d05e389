// SPDX-License-Identifier: MIT
// Every order of the steps of a few processes, with what may happen to them in between: a loader
// throws, a process dies, a lease, a value or a result is lost, a reply is lost, the store refuses or
// is full, somebody invalidates or writes. A step is an operation of the store or the begin or end of
// a loader; each is atomic, as the scripts are. Orders that lead to the same state are followed once.
//
// The store can be broken on purpose; then the search must find an order in which a promise breaks.

#include <gtest/gtest.h>

#include <algorithm>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <deque>
#include <functional>
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
#include <unordered_set>
#include <utility>
#include <vector>

#include "../fiber.hpp"

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
  replaces_a_value,
  deletes_after_setting  // in `fill`, so that a store that is full keeps the lease
};

#if defined(SINGLEFLIGHT_TESTS_FIBERS)
using support::fiber;
constexpr bool quick_steps = true;
#else
constexpr bool quick_steps = false;  // some milliseconds for each execution
/// The same by a thread that runs only while it is resumed.
class fiber {
 public:
  using body = std::function<void(const std::function<void()>& suspend)>;

  explicit fiber(body b)
      : body_(std::move(b)), thread_([this] {
          resumed_.acquire();
          body_([this] {
            suspended_.release();
            resumed_.acquire();
          });
          suspended_.release();
        }) {}
  ~fiber() { thread_.join(); }
  void resume() {
    resumed_.release();
    suspended_.acquire();
  }

 private:
  const body body_;
  std::binary_semaphore resumed_{0};
  std::binary_semaphore suspended_{0};
  std::thread thread_;  // the last member: it uses the others
};
#endif

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

/// One execution: processes that take their steps one at a time, as they are told.
class world {
 public:
  explicit world(const plan& p) : plan_(p) {
    for (int i = 0; i < p.processes; ++i) {
      processes_.push_back(std::make_unique<process>(*this, i));
      step(*processes_.back());  // up to its first step
    }
  }
  world(const world&) = delete;
  world& operator=(const world&) = delete;
  ~world() {
    ending_ = true;
    for (auto& each : processes_) {
      while (each->where != place::done) step(*each);
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
    if (value_) all.emplace_back("lose value");
    if (!results_.empty()) all.emplace_back("lose results");
    all.emplace_back("invalidate");
    if (!value_) all.emplace_back("write through");
    if (!full_) all.emplace_back("fill up");
    for (const auto& each : processes_) {
      if (each->dead || each->where == place::done) continue;
      const std::string number = std::to_string(each->number);
      all.push_back("die " + number);
      if (each->where == place::loaded) all.push_back("throw " + number);
      if (each->where == place::loading || each->where == place::loaded) continue;
      if (each->where == place::wait && !can_go_on(*each)) continue;
      all.push_back("lose reply " + number);
      all.push_back("refuse " + number);
    }
    return all;
  }

  /// The state, as text: of two executions with the same, what may follow is the same. Times are
  /// given by their order, tokens by who made them.
  [[nodiscard]] std::string state() const {
    std::vector<int> times = invalidations_;
    const auto add_time = [&](const std::string& bytes) { times.push_back(std::stoi(bytes)); };
    for (const auto& each : processes_) times.insert(times.end(), {each->entered, each->begun});
    if (value_) add_time(*value_);
    for (const auto& [token, end] : results_) {
      if (!end.value.empty()) add_time(end.value);
    }
    for (const auto& [begun, when] : published_) times.insert(times.end(), {begun, when});
    std::sort(times.begin(), times.end());
    times.erase(std::unique(times.begin(), times.end()), times.end());
    const auto rank = [&](int time) {
      return std::to_string(std::lower_bound(times.begin(), times.end(), time) - times.begin());
    };
    const auto rank_of = [&](const std::string& bytes) {
      return bytes.empty() ? "-" : rank(std::stoi(bytes));
    };
    const auto maker = [&](const std::string& token) {
      const auto found = makers_.find(token);
      return found == makers_.end() ? token : found->second;
    };
    std::string all = std::to_string(events_) + ' ' + std::to_string(excuses_) + ' ' +
                      std::to_string(loading_) + (full_ ? " full " : " ") +
                      (value_ ? rank_of(*value_) : "none") + " lease " + maker(lease_);
    std::set<std::string> ends;
    for (const auto& [token, end] : results_) {
      ends.insert(maker(token) + ':' + std::to_string(static_cast<int>(end.what)) + ':' +
                  rank_of(end.value));
    }
    for (const std::string& end : ends) all += ' ' + end;
    for (const int time : invalidations_) all += " i" + rank(time);
    for (const auto& [begun, when] : published_) all += " p" + rank(begun) + '-' + rank(when);
    for (const auto& each : processes_) {
      all += " | " + std::to_string(static_cast<int>(each->where)) + ' ' +
             std::to_string(each->rounds) + ' ' + rank(each->entered) + ' ' + rank(each->begun) +
             ' ' + std::to_string(each->failures) + ' ' + std::to_string(each->bad_waits) +
             (each->dead ? " dead" : "") + (each->excused ? " excused" : "") +
             (each->slice_is_over ? " over" : "") + (each->waited ? " waited " : " ") +
             maker(each->waits_for) + ' ' + each->last_answer;
    }
    return all;
  }

  void take(const std::string& choice) {
    ++now_;
    const std::string verb = choice.substr(0, choice.find_last_of(' '));
    if (choice == "time") {
      for (const auto& each : processes_) {
        const bool its = makers_[lease_].starts_with(std::to_string(each->number));
        if (its && !each->dead && !each->excused) {
          break_promise("others wait for a lease whose leader has ended");
        }
      }
      lease_.clear();
      for (auto& each : processes_) each->slice_is_over = true;
      return;
    }
    if (verb != "go") ++events_;
    if (verb == "throw" || verb == "refuse" || verb == "lose reply" || choice == "lose lease" ||
        choice == "invalidate") {
      ++excuses_;
    }
    if (choice == "lose lease") return lease_.clear();
    if (choice == "lose value") return value_.reset();
    if (choice == "lose results") return results_.clear();
    if (choice == "fill up") {
      full_ = true;
      return;
    }
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
    bool excuse = false;  // a lease may be left by who died, or could not give it back
    for (const auto& each : processes_) excuse |= each->dead || each->excused;
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
    process(world& w, int n)
        : in(w), number(n), steps([this](const std::function<void()>& suspend) {
            pause = &suspend;
            in.run(*this);
          }) {}
    world& in;
    const int number;
    place where = place::enter;
    int rounds = 0;
    int entered = 0;  // when the load first looked into the store
    int begun = 0;    // when its loader began
    bool dead = false;
    bool throws = false;
    bool loses_reply = false;
    bool refused = false;
    bool excused = false;  // a reply was lost or was a refusal
    bool slice_is_over = false;
    std::string waits_for;
    // All that the load remembers of the answers that it got.
    bool waited = false;
    int failures = 0;
    int bad_waits = 0;
    std::string last_answer;
    const std::function<void()>* pause = nullptr;
    fiber steps;  // the last member: it uses the others
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

  static void step(process& its) { its.steps.resume(); }
  /// In a process: waits until it is told to take this step.
  static void arrive(process& its, place where) {
    its.where = where;
    (*its.pause)();
  }

  void break_promise(const std::string& what) {
    if (broken_.empty() && !ending_) broken_ = what;
  }

  void run(process& its) {
    store leases{its};
    singleflight::fleet<std::string, store> fleet(leases, {.max_wait = 1h, .jitter = 0});
    for (int round = 0; round < plan_.rounds && !ending_; ++round) {
      ++its.rounds;
      its.entered = its.begun = its.failures = its.bad_waits = 0;
      its.waited = false;
      bool threw = false;
      try {
        const std::string value = fleet.load("k", plan_.lifetime, [&] {
          arrive(its, place::loading);
          const int begun = its.begun = now_;
          if (++loading_ > 1 + excuses_ && !full_) break_promise("too many loads at once");
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
    makers_.try_emplace(token, std::to_string(its.number) + '.' + std::to_string(its.rounds));
    arrive(its, place::enter);
    if (ending_) return {};
    if (its.entered == 0) its.entered = now_;
    lease_entry said{.what = kind::wait, .leader = lease_, .left = 1000ms};
    if (std::exchange(its.refused, false)) {
      said = {.what = kind::refused};
    } else if (value_) {
      said = {.what = kind::hit, .value = *value_};
    } else if (lease_.empty() || lease_ == token ||
               plan_.wrong == defect::takes_over_a_held_lease) {
      said = {.what = full_ && lease_ != token ? kind::refused : kind::lead};
      if (said.what == kind::lead) lease_ = token;
    }
    if (lost(its)) said = {};
    its.last_answer = "enter" + std::to_string(static_cast<int>(said.what));
    return said;
  }

  lease_answer fill(process& its, const std::string& token, const std::string& bytes,
                    milliseconds lifetime) {
    arrive(its, place::fill);
    if (ending_) return lease_answer::unreachable;
    if (refuses(its)) return lease_answer::refused;
    bool mine = lease_ == token;
    if (plan_.wrong == defect::fills_without_comparing) mine = !lease_.empty();
    if (plan_.wrong == defect::fills_without_a_lease) mine = mine || lease_.empty();
    // A script that has deleted something may write although the store is full.
    if (full_ && (!mine || plan_.wrong == defect::deletes_after_setting)) {
      return lease_answer::refused;
    }
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
    if (refuses(its)) return lease_answer::refused;
    if (lease_ != token && plan_.wrong != defect::releases_without_comparing) {
      return lost(its) ? lease_answer::unreachable : lease_answer::lost;
    }
    if (lease_ != token && !lease_.empty()) break_promise("the lease of another was released");
    lease_.clear();
    results_[result_of(token)] = {.what = lease_end::kind::failed};
    return lost(its) ? lease_answer::unreachable : lease_answer::held;
  }

  lease_end wait(process& its, const std::string& leader) {
    using kind = lease_end::kind;
    its.waits_for = leader;
    its.slice_is_over = false;
    arrive(its, place::wait);
    if (ending_) return {};
    const auto found = results_.find(result_of(leader));
    lease_end said = found != results_.end() ? found->second : lease_end{.what = kind::pending};
    if (refuses(its)) said = {.what = kind::refused};
    if (lost(its)) said = {.what = kind::unreachable};
    its.waited = true;
    its.failures += said.what == kind::failed ? 1 : 0;
    its.bad_waits += said.what == kind::refused || said.what == kind::unreachable ? 1 : 0;
    its.last_answer = "wait" + std::to_string(static_cast<int>(said.what));
    return said;
  }

  static bool lost(process& its) {
    if (!std::exchange(its.loses_reply, false)) return false;
    return its.excused = true;
  }
  static bool refuses(process& its) {
    if (!std::exchange(its.refused, false)) return false;
    return its.excused = true;
  }

  const plan plan_;
  bool ending_ = false;
  int now_ = 0;  // steps taken
  int events_ = 0;
  int excuses_ = 0;  // those of the events that may cost a load at the same time as another
  int loading_ = 0;
  bool full_ = false;
  std::string broken_;
  std::vector<int> invalidations_;
  std::map<int, int> published_;  // when, by when the load began
  std::optional<std::string> value_;
  std::string lease_;
  std::map<std::string, lease_end> results_;
  std::map<std::string, std::string> makers_;  // of tokens
  std::deque<std::unique_ptr<process>> processes_;
};

struct found {
  std::uint64_t executions = 0;
  std::uint64_t states = 0;
  std::string broken;
  std::vector<std::string> schedule;  // that breaks it
};

/// Runs one execution, in which `choose` says which of the choices to take at which depth, or that
/// it need not go on.
template <class Choose>
void execute(const plan& p, found& result, const Choose& choose) {
  ++result.executions;
  world w(p);
  std::vector<std::string> schedule;
  for (std::size_t depth = 0; w.broken().empty(); ++depth) {
    const auto choices = w.choices();
    if (choices.empty()) break;
    const std::optional<std::size_t> chosen = choose(w, depth, choices);
    if (!chosen) return;
    if (depth > 200) {
      result.broken = "it does not end";
      break;
    }
    schedule.push_back(choices[*chosen]);
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
    execute(p, result, [&](const world&, std::size_t, const std::vector<std::string>& choices) {
      std::size_t chosen = random() % choices.size();
      while (!choices[chosen].starts_with("go") && choices.front().starts_with("go") &&
             random() % 8 != 0) {
        chosen = random() % choices.size();
      }
      return std::optional(chosen);
    });
  }
  return result;
}

/// Depth first, by replay: each execution repeats the last one up to some point, and there takes what
/// has not been taken. It stops where another has been.
found explore(const plan& p, std::uint64_t most) {
  struct decision {
    std::size_t chosen;
    std::size_t of;
  };
  std::vector<decision> path;
  std::unordered_set<std::string> seen;
  found result;
  while (result.executions < most) {
    execute(p, result,
            [&](const world& w, std::size_t depth,
                const std::vector<std::string>& choices) -> std::optional<std::size_t> {
              if (depth == path.size()) {
                if (!seen.insert(w.state()).second) return std::nullopt;
                path.push_back({0, choices.size()});
              }
              return path[depth].chosen;
            });
    result.states = seen.size();
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
const std::uint64_t most = !quick_steps ? 20 : full() ? 300'000 : 2'000;

/// All orders, or as many as there is time for: then those of a depth-first search, and as many at
/// random.
void expect_kept(const plan& p) {
  const found all = explore(p, most);
  EXPECT_EQ(all.broken, "") << text(all);
  if (std::getenv("SINGLEFLIGHT_FLEET_SHOW") != nullptr) {
    std::printf("%d processes, %d rounds, %d events: %s%llu states by %llu executions\n",
                p.processes, p.rounds, p.events, all.executions < most ? "all " : "",
                static_cast<unsigned long long>(all.states),
                static_cast<unsigned long long>(all.executions));
  }
  if (all.executions < most) return;
  const found some = sample(p, std::min<std::uint64_t>(most, 100'000));
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
    if (full()) expect_kept({.processes = 3, .events = 2, .lifetime = lifetime});
  }
}

TEST(FleetSteps, OfAStoreThatIsBrokenBreakAPromise) {
  if (!quick_steps) GTEST_SKIP() << "without fibers it takes too long";
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
        expected{defect::replaces_a_value, {.events = 1}},
        expected{defect::deletes_after_setting, {.events = 1}}}) {
    plan p = each.with;
    p.wrong = each.wrong;
    const found result = explore(p, 100'000);
    EXPECT_NE(result.broken, "") << "defect " << static_cast<int>(each.wrong) << " after "
                                 << result.executions << " executions";
  }
}

}  // namespace
