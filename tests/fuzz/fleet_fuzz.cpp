// SPDX-License-Identifier: MIT
// libFuzzer as a Redis that answers anything: hiredis' reader, hiredis_client.hpp's conversion,
// redis_leases and fleet. Nothing crashes or hangs, and no caller gets a value that is not its
// loader's, unless a reply names the caller's own token, or the stream that it waits for.
//
// An input is what the server sends. It cannot know tokens and streams, so byte 1 stands for the
// token of the command that is answered, byte 2 for the stream that it reads, as RESP has a string.
// The first byte says whether the client has connections for commands that block.

#include <hiredis/hiredis.h>

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <optional>
#include <set>
#include <singleflight/fleet.hpp>
#include <singleflight/hiredis_client.hpp>
#include <singleflight/redis_leases.hpp>
#include <span>
#include <string>
#include <string_view>

namespace {

using namespace std::chrono_literals;
using singleflight::redis_reply;

constexpr std::string_view own_value = "what the loader returns";

/// Answers each command with the next reply of the input; with none if it is damaged or has ended.
class server {
 public:
  explicit server(std::span<const std::uint8_t> input) : input_(input) {}

  redis_reply execute(std::span<const std::string_view> command) {
    const reader connection(redisReaderCreate());
    bool vouched = false;
    while (!input_.empty()) {
      const std::uint8_t byte = input_.front();
      input_ = input_.subspan(1);
      const std::string_view name = byte == 1   ? token_of(command)
                                    : byte == 2 ? stream_of(command)
                                                : std::string_view();
      const std::string bytes =
          name.empty() ? std::string(1, static_cast<char>(byte))
                       : '$' + std::to_string(name.size()) + "\r\n" + std::string(name) + "\r\n";
      vouched |= !name.empty();
      if (redisReaderFeed(connection.get(), bytes.data(), bytes.size()) != REDIS_OK) break;
      void* got = nullptr;
      if (redisReaderGetReply(connection.get(), &got) != REDIS_OK) break;
      if (got == nullptr) continue;
      const std::unique_ptr<redisReply, void (*)(redisReply*)> reply(
          static_cast<redisReply*>(got), [](redisReply* r) { freeReplyObject(r); });
      redis_reply converted = singleflight::to_redis_reply(*reply);
      if (vouched) note(converted);
      return converted;
    }
    return {.text = "no reply"};
  }

  /// Whether a reply that named its command had this text in it.
  [[nodiscard]] bool vouches_for(const std::string& value) const {
    return vouched_.contains(value);
  }

 private:
  struct free_reader {
    void operator()(redisReader* r) const { redisReaderFree(r); }
  };
  using reader = std::unique_ptr<redisReader, free_reader>;

  /// EVALSHA sha1 n key … token …
  static std::string_view token_of(std::span<const std::string_view> command) {
    if (!command.front().starts_with("EVAL")) return {};
    return command[3 + static_cast<std::size_t>(std::stoul(std::string(command[2])))];
  }
  /// XREAD … stream 0
  static std::string_view stream_of(std::span<const std::string_view> command) {
    return command.front() == "XREAD" ? command[command.size() - 2] : std::string_view();
  }

  void note(const redis_reply& reply) {
    vouched_.insert(reply.text);
    for (const redis_reply& each : reply.list) note(each);
  }

  std::span<const std::uint8_t> input_;
  std::set<std::string> vouched_;
};

class blocking_server : public server {
 public:
  using server::server;
  std::optional<redis_reply> execute_blocking(std::span<const std::string_view> command,
                                              std::chrono::milliseconds) {
    return execute(command);
  }
};

[[noreturn]] void report(const char* what) {
  std::fprintf(stderr, "FAILED: %s\n", what);
  std::abort();  // which makes libFuzzer keep the input
}

template <class Server>
void load_from(std::span<const std::uint8_t> input) {
  Server redis(input);
  singleflight::redis_leases leases(redis);
  singleflight::fleet<std::string, decltype(leases)> fleet(leases, {.max_wait = 5ms});
  for (int i = 0; i < 3; ++i) {
    const std::string value = fleet.load("k", 1s, [] { return std::string(own_value); });
    if (value != own_value && !redis.vouches_for(value)) report("a value of nobody's");
  }
  (void)fleet.invalidate("k");
  if (fleet.stats().entries() != 3 || fleet.stats().waiting != 0) report("the figures are wrong");
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  if (size == 0) return 0;
  const std::span input(data + 1, size - 1);
  if (data[0] % 8 == 0) {
    load_from<server>(input);
  } else {
    load_from<blocking_server>(input);
  }
  return 0;
}
