// SPDX-License-Identifier: MIT
// Every operation of a group, in every situation that takes another path through it.
#ifndef SINGLEFLIGHT_TESTS_FAULTS_OPERATIONS_HPP
#define SINGLEFLIGHT_TESTS_FAULTS_OPERATIONS_HPP

#include <set>
#include <singleflight/options.hpp>
#include <string>
#include <system_error>
#include <vector>

#include "world.hpp"

namespace faults {

struct operation {
  enum timing { untimed, by_deadline, by_age };

  std::string name;
  std::set<point> uses;                     // what can fail in it; all else cannot
  void (*perform)(world&);                  // by the caller under test
  void (*prepare)(world&) = [](world&) {};  // by the others, before
  singleflight::group_options options = {};
  std::errc refused_with = {};       // how it ends if nothing fails; by default with success
  bool absorbs_allocations = false;  // it succeeds without that memory
  bool publishes = false;            // it hands a value to others
  bool cannot_unwind = false;        // through a noexcept of the standard library, say
  timing timed = untimed;            // if it depends on something not being late
};

std::vector<operation> operations();
/// Those of callers that are not threads.
std::vector<operation> async_operations();

}  // namespace faults

#endif  // SINGLEFLIGHT_TESTS_FAULTS_OPERATIONS_HPP
