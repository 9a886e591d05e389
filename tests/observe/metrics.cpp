// SPDX-License-Identifier: MIT
// Prints every metric that there is, for dashboard_test.py.
#include <prometheus/text_serializer.h>

#include <functional>
#include <iostream>
#include <singleflight/fleet.hpp>
#include <singleflight/group.hpp>
#include <singleflight/prometheus.hpp>
#include <singleflight/read_through.hpp>

namespace {

struct a_fleet {
  [[nodiscard]] static singleflight::fleet_stats stats() { return {}; }
};
struct reads {
  [[nodiscard]] static singleflight::read_stats stats() { return {}; }
};

}  // namespace

int main() {
  const singleflight::group<int, int, std::hash<int>, std::equal_to<int>,
                            singleflight::prometheus_observer>
      group;
  const a_fleet fleet;
  const reads through;
  singleflight::prometheus_collector metrics;
  metrics.add("rows", group);
  metrics.add("rows", fleet);
  metrics.add("rows", through);
  std::cout << prometheus::TextSerializer().Serialize(metrics.Collect());
}
