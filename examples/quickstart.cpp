// SPDX-License-Identifier: MIT
#include <atomic>
#include <iostream>
#include <singleflight/group.hpp>
#include <string>
#include <thread>
#include <vector>

int main() {
  singleflight::group<std::string, std::string> flights;
  std::atomic<int> queries = 0;

  auto query = [&] {  // stands for a slow one: it ends when the seven others wait for its result
    ++queries;
    while (flights.stats().waiting < 7) std::this_thread::yield();
    return std::string("Hello, {{name}}!");
  };

  std::vector<std::string> answers(8);
  std::vector<std::thread> threads;
  for (std::string& answer : answers) {
    threads.emplace_back([&] { answer = flights.do_call("welcome", query); });
  }
  for (std::thread& thread : threads) thread.join();

  std::cout << answers.size() << " requests, " << queries << " query: " << answers.back() << '\n';
}
