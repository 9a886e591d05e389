// SPDX-License-Identifier: MIT
// Mixed operations from many threads, in rounds of about 24,000, checked against what must hold in
// every interleaving. All that is random comes from the seed, which is printed; --round runs one
// round of it again. The interleaving is not repeated: a failure that needs a rare one may take
// several runs to occur again.

#include <getopt.h>

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <future>
#include <optional>
#include <random>
#include <string>
#include <thread>

#include "plan.hpp"
#include "round.hpp"

namespace {

using std::chrono::steady_clock;

struct settings {
  std::uint64_t seed = std::random_device{}();
  std::optional<std::uint64_t> round;
  std::uint64_t operations = 1'000'000;
  int round_size = 24'000;          // operations
  std::chrono::seconds seconds{0};  // instead of a number of operations
};

[[noreturn]] void usage(int status) {
  std::fputs(
      "usage: stress [--operations N | --seconds N] [--seed N [--round N]] [--round-size N]\n"
      "  --round N        runs that round again and again, --operations or --seconds long\n"
      "  --round-size N   operations in a round, at least 32, instead of 24,000\n",
      status == 0 ? stdout : stderr);
  std::exit(status);
}

std::uint64_t number(const char* text) {
  char* end = nullptr;
  const std::uint64_t n = std::strtoull(text, &end, 10);
  if (end == text || *end != '\0') usage(2);
  return n;
}

settings parse(int argc, char** argv) {
  const option known[] = {{"seed", required_argument, nullptr, 's'},
                          {"round", required_argument, nullptr, 'r'},
                          {"round-size", required_argument, nullptr, 'z'},
                          {"operations", required_argument, nullptr, 'o'},
                          {"seconds", required_argument, nullptr, 't'},
                          {"help", no_argument, nullptr, 'h'},
                          {nullptr, 0, nullptr, 0}};
  settings s;
  for (int flag; (flag = getopt_long(argc, argv, "", known, nullptr)) != -1;) {
    switch (flag) {
      case 's':
        s.seed = number(optarg);
        break;
      case 'r':
        s.round = number(optarg);
        break;
      case 'z':
        s.round_size = static_cast<int>(std::min<std::uint64_t>(number(optarg), 1'000'000'000));
        if (s.round_size < 32) usage(2);  // one for each thread
        break;
      case 'o':
        s.operations = number(optarg);
        break;
      case 't':
        s.seconds = std::chrono::seconds(number(optarg));
        break;
      case 'h':
        usage(0);
      default:
        usage(2);
    }
  }
  if (optind != argc) usage(2);
  return s;
}

/// Runs the round, and fails it if no operation ends for five minutes.
void run_watched(const stress::plan& p) {
  auto work = std::async(std::launch::async, [&p] {
    if (p.long_keys) {
      stress::round<std::string>(p).run();
    } else {
      stress::round<int>(p).run();
    }
  });
  std::uint64_t seen = stress::operations_done;
  for (int idle = 0; work.wait_for(std::chrono::seconds(1)) != std::future_status::ready; ++idle) {
    const std::uint64_t now = stress::operations_done;
    if (std::exchange(seen, now) != now) idle = 0;
    if (idle == 300) p.violated("no operation has ended for five minutes");
  }
  work.get();
}

}  // namespace

int main(int argc, char** argv) {
  const settings s = parse(argc, argv);
  std::printf("stress: seed %llu\n", static_cast<unsigned long long>(s.seed));
  std::fflush(stdout);
  const auto start = steady_clock::now();
  auto next_line = start + std::chrono::seconds(30);
  const auto print = [&](const char* what, std::uint64_t rounds) {
    const std::chrono::duration<double> spent = steady_clock::now() - start;
    std::printf("stress: %s%llu operations in %llu rounds, %.1f s\n", what,
                static_cast<unsigned long long>(stress::operations_done.load()),
                static_cast<unsigned long long>(rounds), spent.count());
    std::fflush(stdout);
  };
  const auto goes_on = [&] {
    if (s.seconds > s.seconds.zero()) return steady_clock::now() < start + s.seconds;
    return stress::operations_done < s.operations;
  };
  std::uint64_t rounds = 0;
  for (; goes_on(); ++rounds) {
    run_watched(stress::plan::draw(s.seed, s.round.value_or(rounds), s.round_size));
    if (steady_clock::now() > next_line) {
      print("so far ", rounds + 1);
      next_line += std::chrono::seconds(30);
    }
  }
  print("nothing violated: ", rounds);
}
