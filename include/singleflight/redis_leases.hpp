// SPDX-License-Identifier: MIT
#ifndef SINGLEFLIGHT_REDIS_LEASES_HPP
#define SINGLEFLIGHT_REDIS_LEASES_HPP

#include <algorithm>
#include <array>
#include <chrono>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <initializer_list>
#include <map>
#include <mutex>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <thread>
#include <utility>
#include <vector>

#include "fleet.hpp"

namespace singleflight::inline SINGLEFLIGHT_ABI {

/// What Redis replied to a command, in whatever client's words.
struct redis_reply {
  /// The kinds of replies.
  enum class kind {
    text,    ///< A string, in `text`.
    number,  ///< In `number`.
    null,
    list,   ///< In `list`; of a map, keys and values in turn.
    error,  ///< Redis refused: `text` begins with the error's name.
    none    ///< No reply: `text` says why. The command may have been executed or not.
  };
  /// Which of them it is.
  kind what = kind::none;
  /// Of a text, an error or none.
  std::string text = {};
  /// Of a number.
  long long number = 0;
  /// Of a list.
  std::vector<redis_reply> list = {};
};

/// A client of Redis, or of what speaks like it: `execute` sends one command and returns its reply.
/// Called at once from many threads. It must bound its own time, and close a connection whose reply
/// did not come in that time, or the next command would get it.
///
/// A client may have `execute_blocking(command, time)` as well, for commands that Redis itself
/// answers only after `time`. It needs connections for that which nobody else waits for; it returns
/// nothing, at once, if none is free. It must allow Redis 100 ms more, by which a server that is
/// idle ends a block late. Without it, waiting callers ask again and again, which costs commands
/// and some 50 ms of delay.
template <class Client>
concept redis_client = requires(Client& client, std::span<const std::string_view> command) {
  { client.execute(command) } -> std::same_as<redis_reply>;
};

/// A `redis_client` that has connections for commands that block.
template <class Client>
concept blocking_redis_client = redis_client<Client> &&
    requires(Client& client, std::span<const std::string_view> command,
             std::chrono::milliseconds time) {
  { client.execute_blocking(command, time) } -> std::same_as<std::optional<redis_reply>>;
};

/// A `lease_store` on Redis 5 or newer, Valkey, and what understands their scripts and streams.
///
/// Three kinds of keys, all with an expiry:
///   * `k`, the value, raw: what any program reads and writes under the key;
///   * `sf1:{k}`, the lease: the token of its leader;
///   * `sf1:{k}:<token>`, the result for those who wait: a stream with one entry.
///
/// The braces put all three into one hash slot. Where `k` has a hash tag of its own, the names are
/// `sf1:k` and so on. A key with a brace that leaves no such name (`a}b`), an empty one and one
/// that begins with `sf1:` are refused, so their loads are not coordinated.
///
/// Replies carry the token of their command, so that no reply is taken for that of another.
///
/// What Redis refuses is counted by the error's name; the names that this class adds are `NOSLOT`,
/// for a key as above, and `UNEXPECTED`, for a reply that makes no sense.
///
/// Permissions that its user needs: `+get +set +del +pttl +pexpire +xadd +xread +eval +evalsha` and
/// all keys that are used, with those that begin with `sf1:`.
///
/// Thread safety: all members may be called at once from any thread, except the destructor.
/// Lifetime: the client must outlive it.
template <redis_client Client>
class redis_leases {
 public:
  /// Hears of each kind of refusal once: its name and what Redis said. Called from any thread.
  using refusal_hook = std::function<void(std::string_view name, std::string_view text)>;

  /// Calls `on_first_refusal` with the name of each error that Redis refuses by, once each.
  explicit redis_leases(Client& client, refusal_hook on_first_refusal = {})
      : client_(client), on_first_refusal_(std::move(on_first_refusal)) {}

  redis_leases(const redis_leases&) = delete;
  redis_leases& operator=(const redis_leases&) = delete;
  ~redis_leases() = default;

  /// See `lease_store`. One round trip.
  [[nodiscard]] lease_entry enter(std::string_view key, std::string_view token,
                                  std::chrono::milliseconds lease) {
    using kind = lease_entry::kind;
    const std::optional<names> named = names_of(key, token);
    if (!named) return {.what = kind::refused};
    redis_reply reply =
        run(enter_script, {key, named->lease}, {token, std::to_string(lease.count())});
    if (reply.what == redis_reply::kind::error) {
      refuse(reply.text);
      return {.what = kind::refused};
    }
    if (!answers(reply, token)) return {};
    const std::string_view what = reply.list[0].text;
    const std::size_t size = reply.list.size();
    if (what == "hit" && size == 3 && reply.list[2].what == redis_reply::kind::text) {
      return {.what = kind::hit, .value = std::move(reply.list[2].text)};
    }
    if (what == "lead" && size == 2) return {.what = kind::lead};
    if (what == "wait" && size == 4 && reply.list[2].what == redis_reply::kind::text &&
        reply.list[3].what == redis_reply::kind::number) {
      const long long left = reply.list[3].number;  // negative if somebody took its expiry away
      return {.what = kind::wait,
              .leader = std::move(reply.list[2].text),
              .left = std::chrono::milliseconds(left < 0 ? 100 : left)};
    }
    refuse(unexpected);
    return {};
  }

  /// See `lease_store`. One round trip.
  lease_answer fill(std::string_view key, std::string_view token, std::string_view bytes,
                    std::chrono::milliseconds lifetime, std::chrono::milliseconds handover) {
    const std::optional<names> named = names_of(key, token);
    if (!named) return lease_answer::refused;
    return answer(
        run(fill_script, {key, named->lease, named->result},
            {token, bytes, std::to_string(lifetime.count()), std::to_string(handover.count())}),
        token);
  }

  /// See `lease_store`. One round trip.
  lease_answer release(std::string_view key, std::string_view token,
                       std::chrono::milliseconds handover) {
    const std::optional<names> named = names_of(key, token);
    if (!named) return lease_answer::refused;
    return answer(run(release_script, {named->lease, named->result},
                      {token, std::to_string(handover.count())}),
                  token);
  }

  /// See `lease_store`. One round trip; blocks for `at_most` and a little longer.
  [[nodiscard]] lease_end wait(std::string_view key, std::string_view leader,
                               std::chrono::milliseconds at_most, std::size_t round) {
    using std::chrono::milliseconds;
    const std::optional<names> named = names_of(key, leader);
    if (!named) return {.what = lease_end::kind::refused};
    if constexpr (blocking_redis_client<Client>) {
      const std::string block = std::to_string((std::max)(at_most, milliseconds(1)).count());
      const std::array<std::string_view, 8> command{"XREAD", "COUNT",   "1",           "BLOCK",
                                                    block,   "STREAMS", named->result, "0"};
      std::optional<redis_reply> reply = client_.execute_blocking(command, at_most);
      if (reply && reply->what == redis_reply::kind::error &&
          reply->text.starts_with("UNBLOCKED")) {
        pause(milliseconds(10), at_most);  // a failover: all that waited come back at once
        return {.what = lease_end::kind::pending};
      }
      if (reply && reply->what != redis_reply::kind::error) return told(*reply, named->result);
      if (reply) refuse(reply->text);
    }
    pause(milliseconds(10) * (1 << (std::min<std::size_t>)(round, 3)), at_most);
    const std::array<std::string_view, 6> command{"XREAD",   "COUNT",       "1",
                                                  "STREAMS", named->result, "0"};
    redis_reply reply = client_.execute(command);
    if (reply.what == redis_reply::kind::error) {
      refuse(reply.text);
      return {.what = lease_end::kind::pending};  // `enter` finds what was kept
    }
    return told(reply, named->result);
  }

  /// See `lease_store`. One round trip.
  lease_answer invalidate(std::string_view key) {
    const std::optional<names> named = names_of(key, {});
    std::vector<std::string_view> command{"DEL", key};
    if (named) command.emplace_back(named->lease);
    const redis_reply reply = client_.execute(command);
    if (reply.what == redis_reply::kind::number) return lease_answer::held;
    if (reply.what == redis_reply::kind::none) return lease_answer::unreachable;
    refuse(reply.what == redis_reply::kind::error ? std::string_view(reply.text) : unexpected);
    return lease_answer::refused;
  }

  /// Returns: how often what was refused, by the name of the error.
  [[nodiscard]] std::map<std::string, std::uint64_t> refusals() const {
    const std::lock_guard lock(mutex_);
    return refusals_;
  }

  /// A script, and the name by which Redis knows it: its SHA-1.
  struct script {
    /// In hexadecimal digits.
    const char* sha1;
    /// In Lua.
    const char* text;
  };

  // One round trip each, one step each.
  /// What `enter` runs.
  static constexpr script enter_script{"3de643a13dd8f000fb9aa0e6923dc0bc97313383", R"(
local value = redis.call('GET', KEYS[1])
if value then return {'hit', ARGV[1], value} end
if redis.call('SET', KEYS[2], ARGV[1], 'NX', 'PX', ARGV[2]) then return {'lead', ARGV[1]} end
local leader = redis.call('GET', KEYS[2])
if leader == ARGV[1] then return {'lead', ARGV[1]} end
return {'wait', ARGV[1], leader, redis.call('PTTL', KEYS[2])}
)"};
  // DEL comes first: it is allowed where memory is short, and what follows a write is allowed then.
  /// What `fill` runs.
  static constexpr script fill_script{"d11cd486baeaf49206d3499e149d7f66370b7b9b", R"(
local mine = redis.call('GET', KEYS[2]) == ARGV[1]
if mine then redis.call('DEL', KEYS[2]) end
if mine and tonumber(ARGV[3]) > 0 and redis.call('SET', KEYS[1], ARGV[2], 'NX', 'PX', ARGV[3]) then
  redis.call('XADD', KEYS[3], '*', 'r', 'kept')
else
  redis.call('XADD', KEYS[3], '*', 'r', 'value', 'v', ARGV[2])
end
redis.call('PEXPIRE', KEYS[3], ARGV[4])
return {mine and 'held' or 'lost', ARGV[1]}
)"};
  /// What `release` runs.
  static constexpr script release_script{"701f76f1edb3bd3f16777857f716116717021a1e", R"(
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return {'lost', ARGV[1]} end
redis.call('DEL', KEYS[1])
redis.call('XADD', KEYS[2], '*', 'r', 'failed')
redis.call('PEXPIRE', KEYS[2], ARGV[2])
return {'held', ARGV[1]}
)"};

 private:
  static constexpr std::string_view unexpected = "UNEXPECTED reply";
  static constexpr std::size_t most_names = 64;

  struct names {
    std::string lease;
    std::string result;
  };

  /// Returns: nothing, counted, if no names share the key's hash slot.
  std::optional<names> names_of(std::string_view key, std::string_view token) {
    std::string lease = "sf1:";
    const std::size_t open = key.find('{');
    const std::size_t close = open == key.npos ? key.npos : key.find('}', open);
    if (close != key.npos && close > open + 1) {
      lease += key;  // its own hash tag is the first one here, too
    } else if (key.find('}') == key.npos && !key.empty()) {
      lease.append("{").append(key).append("}");
    } else {
      refuse("NOSLOT the braces in \"" + std::string(key.substr(0, 100)) +
             "\" leave its lease no name in the same hash slot");
      return std::nullopt;
    }
    if (key.starts_with("sf1:")) {
      refuse("NOSLOT keys that begin with sf1: are leases");
      return std::nullopt;
    }
    std::string result = lease;
    result.append(":").append(token);
    return names{std::move(lease), std::move(result)};
  }

  redis_reply run(const script& which, std::initializer_list<std::string_view> keys,
                  std::initializer_list<std::string_view> arguments) {
    const std::string count = std::to_string(keys.size());
    std::vector<std::string_view> command{"EVALSHA", which.sha1, count};
    command.insert(command.end(), keys);
    command.insert(command.end(), arguments);
    redis_reply reply = client_.execute(command);
    if (reply.what != redis_reply::kind::error || !reply.text.starts_with("NOSCRIPT")) return reply;
    command[0] = "EVAL";  // a server that was restarted, or flushed, or is new
    command[1] = which.text;
    return client_.execute(command);
  }

  /// Returns: whether it is a reply to the command with that token.
  bool answers(const redis_reply& reply, std::string_view token) {
    using kind = redis_reply::kind;
    if (reply.what == kind::none) return false;
    const bool sound = reply.what == kind::list && reply.list.size() >= 2 &&
                       reply.list[0].what == kind::text && reply.list[1].what == kind::text &&
                       reply.list[1].text == token;
    if (!sound) refuse(unexpected);
    return sound;
  }

  lease_answer answer(const redis_reply& reply, std::string_view token) {
    if (reply.what == redis_reply::kind::error) {
      refuse(reply.text);
      return lease_answer::refused;
    }
    if (!answers(reply, token)) return lease_answer::unreachable;
    if (reply.list[0].text == "held") return lease_answer::held;
    if (reply.list[0].text == "lost") return lease_answer::lost;
    refuse(unexpected);
    return lease_answer::unreachable;
  }

  /// Reads [[stream, [[id, ["r", what, "v", value]]]]], or without the outer brackets, as a client
  /// has it that speaks RESP3.
  lease_end told(redis_reply& reply, std::string_view stream) {
    using kind = redis_reply::kind;
    using ended = lease_end::kind;
    const auto list_of = [](redis_reply& of, std::size_t size) {
      return of.what == kind::list && of.list.size() == size;
    };
    const auto text_is = [](const redis_reply& of, std::string_view text) {
      return of.what == kind::text && of.text == text;
    };
    if (reply.what == kind::none) return {.what = ended::unreachable};
    if (reply.what == kind::null) return {.what = ended::pending};
    redis_reply& pair = list_of(reply, 1) ? reply.list[0] : reply;
    if (list_of(pair, 2) && text_is(pair.list[0], stream) && list_of(pair.list[1], 1) &&
        list_of(pair.list[1].list[0], 2)) {
      redis_reply& fields = pair.list[1].list[0].list[1];
      if (list_of(fields, 2) && text_is(fields.list[0], "r")) {
        if (text_is(fields.list[1], "kept")) return {.what = ended::kept};
        if (text_is(fields.list[1], "failed")) return {.what = ended::failed};
      }
      if (list_of(fields, 4) && text_is(fields.list[0], "r") && text_is(fields.list[1], "value") &&
          text_is(fields.list[2], "v") && fields.list[3].what == kind::text) {
        return {.what = ended::value, .value = std::move(fields.list[3].text)};
      }
    }
    refuse(unexpected);
    return {.what = ended::unreachable};
  }

  /// Counts a refusal by the error's name.
  void refuse(std::string_view text) {
    std::string name(text.substr(0, text.find(' ')));
    // What Redis 7 and Redis 7.2 say of a permission that only a command in a script lacks.
    if (text.starts_with("ERR The user executing the script can't run") ||
        text.starts_with("ERR ACL failure")) {
      name = "NOPERM";
    }
    const bool sound = !name.empty() && name.size() <= 32 && std::ranges::all_of(name, [](char c) {
      return (c >= 'A' && c <= 'Z') || c == '_';
    });
    if (!sound) name = "OTHER";
    {
      const std::lock_guard lock(mutex_);
      if (refusals_.size() >= most_names && !refusals_.contains(name)) name = "OTHER";
      if (++refusals_[name] > 1 || !on_first_refusal_) return;
    }
    on_first_refusal_(name, text);
  }

  /// Sleeps for half the time up to one and a half, so that those who wait do not ask in step.
  static void pause(std::chrono::milliseconds time, std::chrono::milliseconds at_most) {
    using duration = std::chrono::duration<double, std::milli>;
    const duration varied = time * detail::random_between(0.5, 1.5);
    std::this_thread::sleep_for((std::min)(varied, duration(at_most)));
  }

  Client& client_;
  const refusal_hook on_first_refusal_;
  mutable std::mutex mutex_;
  std::map<std::string, std::uint64_t> refusals_;  // guarded by mutex_
};

}  // namespace singleflight::inline SINGLEFLIGHT_ABI

#endif  // SINGLEFLIGHT_REDIS_LEASES_HPP
