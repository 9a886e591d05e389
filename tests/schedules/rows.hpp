// SPDX-License-Identifier: MIT
// A table, a cache in front of it, and callers that read and write through both by `read_through`.
#ifndef SINGLEFLIGHT_TESTS_SCHEDULES_ROWS_HPP
#define SINGLEFLIGHT_TESTS_SCHEDULES_ROWS_HPP

#include <chrono>
#include <functional>
#include <optional>

#include "scheduler.hpp"
#include "world.hpp"
// After SINGLEFLIGHT_ASSERT.
#include <singleflight/read_through.hpp>

namespace schedules {

/// The one row of the table, by its version. Each look at the table or the cache is a step.
///
/// Oracles: at the end the cache has the row of the table or none; and if nobody writes or evicts, the
/// row is loaded once.
class rows {
 public:
  explicit rows(scheduler& threads) : threads_(threads) {
    threads_.know(mutex_of(through_.flights()), "the shard of the readers");
  }

  void read(const singleflight::call_options& options) {
    try {
      (void)through_.get(the_key, options, [this] {
        step("reads the table");
        ++loads_;
        return table_;
      });
    } catch (const singleflight::call_error&) {  // it was stopped
    }
    threads_.point("after the read");
  }
  void write() {
    changed_ = true;
    through_.write(the_key, [this] {
      step("writes the table");
      ++table_;
    });
    threads_.point("after the write");
  }
  void evict() {
    changed_ = true;
    cache_.erase(the_key);
  }

  void judge() const {
    expect(!cache_.row || cache_.row->value == table_,
           "the cache keeps a row that was overwritten");
    expect(changed_ || loads_ <= 1, "a row was loaded that the cache had");
  }

 private:
  friend struct rows_internals;

  /// Nothing expires.
  struct still_clock {
    using duration = std::chrono::seconds;
    using rep = duration::rep;
    using period = duration::period;
    using time_point = std::chrono::time_point<still_clock>;
    static constexpr bool is_steady = true;
    static time_point now() noexcept { return {}; }
  };
  using entry = singleflight::cache_entry<int, still_clock>;
  using group = singleflight::group<key, entry, key_hash>;

  struct cache {
    rows& of;
    std::optional<entry> row = std::nullopt;

    std::optional<entry> find(key) const {
      of.step("looks into the cache");
      return row;
    }
    void put(key, const entry& e) {
      of.step("puts");
      row = e;
    }
    void erase(key) {
      of.step("erases");
      row.reset();
    }
  };

  using read_through = singleflight::read_through<key, int, cache&, singleflight::no_refresh,
                                                  key_hash, std::equal_to<key>, still_clock>;

  static constexpr key the_key = 0;

  /// Returns: the mutex of the one shard.
  [[nodiscard]] static const void* mutex_of(group& of) noexcept;

  void step(const char* what) {
    threads_.point(what);
    threads_.touch({.writes = objects::others});
  }
  void expect(bool holds, const char* what) const {
    if (!holds) threads_.fail(what);
  }

  scheduler& threads_;
  int table_ = 1;
  int loads_ = 0;
  bool changed_ = false;
  cache cache_{*this};
  read_through through_{cache_, {.jitter = 0}, {}, {.shards = 1}};
};

}  // namespace schedules

#endif  // SINGLEFLIGHT_TESTS_SCHEDULES_ROWS_HPP
