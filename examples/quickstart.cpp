// SPDX-License-Identifier: MIT
#include <atomic>
#include <chrono>
#include <iostream>
#include <singleflight/group.hpp>
#include <string>
#include <thread>
#include <vector>

using namespace std::chrono_literals;

int main() {
  singleflight::group<std::string, std::string> flights;
  std::atomic<int> queries = 0;

  auto load = [&](const std::string& id) {
    ++queries;
    std::this_thread::sleep_for(10ms);  // a slow query
    return "<h1>" + id + "</h1>";
  };

  std::vector<std::string> answers(8);
  std::vector<std::thread> threads;
  for (std::string& answer : answers) {
    threads.emplace_back([&] { answer = flights.do_call("welcome", load); });
  }
  for (std::thread& thread : threads) thread.join();

  std::cout << answers.size() << " requests, " << queries << " query: " << answers.back() << '\n';
}
