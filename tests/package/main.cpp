// SPDX-License-Identifier: MIT
// A user's program: the callers of two translation units share one call, and what one unit throws
// the other catches.
#include <cstdio>
#include <singleflight/group.hpp>
#include <string>
#include <thread>
#include <vector>

std::string ask(singleflight::group<std::string, std::string>& flights);  // in the other unit

int main() {
  singleflight::group<std::string, std::string> flights;
  std::vector<std::string> answers(7);
  std::vector<std::thread> followers;
  const std::string led = flights.do_call("key", [&] {
    for (std::string& answer : answers) followers.emplace_back([&] { answer = ask(flights); });
    while (flights.stats().waiting < answers.size()) std::this_thread::yield();
    return std::string("one answer");
  });
  for (std::thread& follower : followers) follower.join();
  if (flights.stats().led != 1 || answers != std::vector<std::string>(7, led)) return 1;

  try {
    (void)flights.do_call("key", [&] { return ask(flights); });
    return 1;
  } catch (const singleflight::call_error& refused) {
    if (refused.code() != std::errc::resource_deadlock_would_occur) return 1;
  }
  std::puts("8 callers, 1 call");
}
