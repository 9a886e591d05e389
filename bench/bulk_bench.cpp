// SPDX-License-Identifier: MIT
// Many keys by one do_many beside as many do_calls; reads through a cache by `read_through` beside bare
// calls of the cache. In a process that has started a thread, as those have that share calls.

#include <benchmark/benchmark.h>

#include <chrono>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <mutex>
#include <optional>
#include <singleflight/group.hpp>
#include <singleflight/read_through.hpp>
#include <string>
#include <unordered_map>
#include <utility>
#include <vector>

#include "harness.hpp"
#include "keys.hpp"

namespace {

// --- Many keys ---------------------------------------------------------------------------------------

/// What a query costs, whatever it asks for.
struct no_query {
  static constexpr const char* name = "empty";
  void operator()() const noexcept {}
};
struct slow_query {
  static constexpr const char* name = "50us";
  void operator()() const {
    const auto end = std::chrono::steady_clock::now() + std::chrono::microseconds(50);
    while (std::chrono::steady_clock::now() < end) {
    }
  }
};

template <class Key>
std::vector<Key> many_keys(std::size_t n) {
  std::vector<Key> all;
  for (std::size_t i = 0; i < n; ++i) {
    if constexpr (std::same_as<Key, std::string>) {  // 24 characters, as in the other benchmarks
      all.push_back("template-details:en:" + std::to_string(1000 + i));
    } else {
      all.push_back(bench::keys<Key>::make(static_cast<int>(i)));
    }
  }
  return all;
}

template <class Key, class Query>
void by_do_many(benchmark::State& state, std::size_t n) {
  singleflight::group<Key, std::uint64_t> flights;
  const std::vector<Key> keys = many_keys<Key>(n);
  std::uint64_t loaded = 0;
  for (auto _ : state) {
    const auto rows = flights.do_many(keys, [&](auto& missing) {
      Query()();
      for (std::size_t i = 0; i < missing.size(); ++i) missing.set_at(i, ++loaded);
    });
    for (std::size_t i = 0; i < n; ++i) {
      if (rows[i].value() != loaded - n + i + 1) state.SkipWithError("wrong answer");
    }
  }
}

template <class Key, class Query>
void by_do_calls(benchmark::State& state, std::size_t n) {
  singleflight::group<Key, std::uint64_t> flights;
  const std::vector<Key> keys = many_keys<Key>(n);
  std::uint64_t loaded = 0;
  for (auto _ : state) {
    for (const Key& key : keys) {
      const auto row = flights.do_call(key, [&] {
        Query()();
        return ++loaded;
      });
      if (*row != loaded) state.SkipWithError("wrong answer");
    }
  }
}

template <class Key, class Query>
void add_many() {
  for (const std::size_t n : {1U, 10U, 100U, 1000U}) {
    const std::string row = std::string("bulk/") + Query::name + "/key:" + bench::keys<Key>::name +
                            "/keys:" + std::to_string(n) + "/";
    benchmark::RegisterBenchmark((row + "do_many").c_str(), by_do_many<Key, Query>, n);
    benchmark::RegisterBenchmark((row + "do_call").c_str(), by_do_calls<Key, Query>, n);
  }
}

// --- Reading through a cache -------------------------------------------------------------------------

using row = std::uint64_t;
using entry = singleflight::cache_entry<row>;

/// A map under a mutex.
class map_cache {
 public:
  [[nodiscard]] std::optional<entry> find(const std::string& key) const {
    const std::lock_guard guard(mutex_);
    const auto at = map_.find(key);
    return at != map_.end() ? std::optional(at->second) : std::nullopt;
  }
  void put(const std::string& key, const entry& e) {
    const std::lock_guard guard(mutex_);
    map_.insert_or_assign(key, e);
  }
  void erase(const std::string& key) {
    const std::lock_guard guard(mutex_);
    map_.erase(key);
  }

 private:
  mutable std::mutex mutex_;
  std::unordered_map<std::string, entry> map_;
};

/// `get(cache, key, load)`, on a cache that has the key or, `misses`, has it never.
template <class Get>
void add_read(const char* name, bool misses, const Get& get) {
  benchmark::RegisterBenchmark((std::string("read/") + (misses ? "miss/" : "hit/") + name).c_str(),
                               [=](benchmark::State& state) {
                                 map_cache cache;
                                 const auto reads = get(cache);
                                 const std::string key = bench::keys<std::string>::make(0);
                                 std::uint64_t loaded = 0;
                                 const auto load = [&] { return ++loaded; };
                                 for (auto _ : state) {
                                   if (misses) cache.erase(key);
                                   if (reads(key, load) != loaded)
                                     state.SkipWithError("wrong answer");
                                 }
                               });
}

constexpr auto bare = [](map_cache& cache) {
  return [&cache](const std::string& key, const auto& load) -> row {
    const auto now = std::chrono::system_clock::now();
    if (const auto hit = cache.find(key); hit && now < hit->fresh_until) return *hit->value;
    const row loaded = load();
    const auto until = now + std::chrono::seconds(30);
    cache.put(key, {loaded, until, until});
    return loaded;
  };
};

constexpr auto through = [](map_cache& cache) {
  using type = singleflight::read_through<std::string, row, map_cache&>;
  return [rows = std::make_shared<type>(cache)](const std::string& key, const auto& load) -> row {
    return *rows->get(key, load);
  };
};

void register_rows() {
  add_many<std::uint64_t, no_query>();
  add_many<std::string, no_query>();
  add_many<std::string, slow_query>();
  for (const bool misses : {false, true}) {
    add_read("bare", misses, bare);
    add_read("read_through", misses, through);
  }
}

}  // namespace

int main(int argc, char** argv) {
  return bench::run(argc, argv, bench::process::with_threads, register_rows);
}
