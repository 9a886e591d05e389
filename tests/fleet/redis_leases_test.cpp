// SPDX-License-Identifier: MIT
// What is made of replies, whatever a server replies; and the commands
// that are sent. The client is a list of replies.

#include "singleflight/redis_leases.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <chrono>
#include <deque>
#include <optional>
#include <random>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace {

using namespace std::chrono_literals;
using singleflight::lease_answer;
using singleflight::lease_end;
using singleflight::lease_entry;
using singleflight::redis_leases;
using singleflight::redis_reply;
using kind = redis_reply::kind;

redis_reply text(std::string s) { return {.what = kind::text, .text = std::move(s)}; }
redis_reply error(std::string s) { return {.what = kind::error, .text = std::move(s)}; }
redis_reply number(long long n) { return {.what = kind::number, .number = n}; }
redis_reply list(std::vector<redis_reply> l) { return {.what = kind::list, .list = std::move(l)}; }
redis_reply nil() { return {.what = kind::null}; }

/// Gives the replies in turn, and keeps the commands.
struct scripted_client {
  redis_reply execute(std::span<const std::string_view> command) {
    commands.emplace_back(command.begin(), command.end());
    if (replies.empty()) return {};
    redis_reply next = std::move(replies.front());
    replies.pop_front();
    return next;
  }
  std::deque<redis_reply> replies;
  std::vector<std::vector<std::string>> commands;
};

/// The same, with connections for commands that block, or none free.
struct blocking_client : scripted_client {
  std::optional<redis_reply> execute_blocking(std::span<const std::string_view> command,
                                              std::chrono::milliseconds time) {
    blocked.push_back(time);
    if (busy) return std::nullopt;
    return execute(command);
  }
  bool busy = false;
  std::vector<std::chrono::milliseconds> blocked;
};

static_assert(singleflight::redis_client<scripted_client>);
static_assert(!singleflight::blocking_redis_client<scripted_client>);
static_assert(singleflight::blocking_redis_client<blocking_client>);
static_assert(singleflight::lease_store<redis_leases<scripted_client>>);
static_assert(singleflight::lease_store<redis_leases<blocking_client>>);

template <class Client = scripted_client>
struct fixture {
  explicit fixture(std::deque<redis_reply> replies) { client.replies = std::move(replies); }
  lease_entry enter() { return leases.enter("k", "t", 2000ms); }
  lease_answer fill() { return leases.fill("k", "t", "v", 30'000ms, 1000ms); }
  lease_answer release() { return leases.release("k", "t", 1000ms); }
  lease_end wait() { return leases.wait("k", "t", 1ms, 0); }
  Client client;
  std::vector<std::string> said;
  redis_leases<Client> leases{client, [this](std::string_view name, std::string_view what) {
                                said.push_back(std::string(name) + "|" + std::string(what));
                              }};
};

TEST(RedisLeases, SendOneCommandForAnEntry) {
  fixture test({list({text("lead"), text("t")})});
  EXPECT_EQ(test.enter().what, lease_entry::kind::lead);
  const std::vector<std::string> command{
      "EVALSHA", redis_leases<scripted_client>::enter_script.sha1, "2", "k", "sf1:{k}", "t",
      "2000"};
  EXPECT_EQ(test.client.commands, std::vector<std::vector<std::string>>{command});
}

TEST(RedisLeases, ReadWhatEnterReplies) {
  fixture test({list({text("hit"), text("t"), text("value")}), list({text("lead"), text("t")}),
                list({text("wait"), text("t"), text("other"), number(1234)}),
                list({text("wait"), text("t"), text("other"), number(-1)}), redis_reply{}});
  lease_entry entry = test.enter();
  EXPECT_EQ(entry.what, lease_entry::kind::hit);
  EXPECT_EQ(entry.value, "value");
  EXPECT_EQ(test.enter().what, lease_entry::kind::lead);
  entry = test.enter();
  EXPECT_EQ(entry.what, lease_entry::kind::wait);
  EXPECT_EQ(entry.leader, "other");
  EXPECT_EQ(entry.left, 1234ms);
  EXPECT_EQ(test.enter().left, 100ms);  // a lease that never ends is looked at again
  EXPECT_EQ(test.enter().what, lease_entry::kind::unreachable);
  EXPECT_TRUE(test.leases.refusals().empty());
}

TEST(RedisLeases, ReadWhatTheOthersReply) {
  fixture test({list({text("held"), text("t")}), list({text("lost"), text("t")}), redis_reply{},
                list({text("held"), text("t")}), list({text("lost"), text("t")}), redis_reply{}});
  EXPECT_EQ(test.fill(), lease_answer::held);
  EXPECT_EQ(test.fill(), lease_answer::lost);
  EXPECT_EQ(test.fill(), lease_answer::unreachable);
  EXPECT_EQ(test.release(), lease_answer::held);
  EXPECT_EQ(test.release(), lease_answer::lost);
  EXPECT_EQ(test.release(), lease_answer::unreachable);
  const std::vector<std::string> fill{"EVALSHA", redis_leases<scripted_client>::fill_script.sha1,
                                      "3",       "k",
                                      "sf1:{k}", "sf1:{k}:t",
                                      "t",       "v",
                                      "30000",   "1000"};
  EXPECT_EQ(test.client.commands[0], fill);
  const std::vector<std::string> release{
      "EVALSHA",   redis_leases<scripted_client>::release_script.sha1,
      "2",         "sf1:{k}",
      "sf1:{k}:t", "t",
      "1000"};
  EXPECT_EQ(test.client.commands[3], release);
}

TEST(RedisLeases, InvalidateValueAndLeaseInOneCommand) {
  fixture test({number(2), number(0), redis_reply{}, error("READONLY no"), text("?")});
  EXPECT_EQ(test.leases.invalidate("k"), lease_answer::held);
  EXPECT_EQ(test.client.commands[0], (std::vector<std::string>{"DEL", "k", "sf1:{k}"}));
  EXPECT_EQ(test.leases.invalidate("k"), lease_answer::held);
  EXPECT_EQ(test.leases.invalidate("k"), lease_answer::unreachable);
  EXPECT_EQ(test.leases.invalidate("k"), lease_answer::refused);
  EXPECT_EQ(test.leases.invalidate("k"), lease_answer::refused);
}

redis_reply told(std::vector<redis_reply> fields) {
  return list({list({text("sf1:{k}:t"), list({list({text("1-1"), list(std::move(fields))})})})});
}

TEST(RedisLeases, ReadWhatALeaderTold) {
  fixture<blocking_client> test({told({text("r"), text("kept")}), told({text("r"), text("failed")}),
                                 told({text("r"), text("value"), text("v"), text("bytes")}), nil(),
                                 redis_reply{}});
  EXPECT_EQ(test.wait().what, lease_end::kind::kept);
  EXPECT_EQ(test.wait().what, lease_end::kind::failed);
  const lease_end value = test.wait();
  EXPECT_EQ(value.what, lease_end::kind::value);
  EXPECT_EQ(value.value, "bytes");
  EXPECT_EQ(test.wait().what, lease_end::kind::pending);
  EXPECT_EQ(test.wait().what, lease_end::kind::unreachable);
  EXPECT_EQ(test.client.commands[0], (std::vector<std::string>{"XREAD", "COUNT", "1", "BLOCK", "1",
                                                               "STREAMS", "sf1:{k}:t", "0"}));
  EXPECT_EQ(test.client.commands.size(), 5U);
}

TEST(RedisLeases, ReadWhatALeaderToldInRESP3) {
  redis_reply map = told({text("r"), text("value"), text("v"), text("bytes")});
  fixture<blocking_client> test({map.list[0]});
  EXPECT_EQ(test.wait().value, "bytes");
}

TEST(RedisLeases, NeverBlockWithoutALimit) {
  fixture<blocking_client> test({nil()});
  (void)test.leases.wait("k", "t", 0ms, 0);
  EXPECT_EQ(test.client.commands[0][4], "1");  // 0 would wait without a limit
}

TEST(RedisLeases, AskAgainAndAgainWhereNoConnectionIsFree) {
  fixture<blocking_client> test({nil(), told({text("r"), text("kept")})});
  test.client.busy = true;
  EXPECT_EQ(test.wait().what, lease_end::kind::pending);
  EXPECT_EQ(test.wait().what, lease_end::kind::kept);
  EXPECT_EQ(test.client.commands[0],
            (std::vector<std::string>{"XREAD", "COUNT", "1", "STREAMS", "sf1:{k}:t", "0"}));
}

TEST(RedisLeases, AskAgainAndAgainWithAClientThatCannotBlock) {
  fixture test({nil(), told({text("r"), text("value"), text("v"), text("bytes")})});
  EXPECT_EQ(test.wait().what, lease_end::kind::pending);
  EXPECT_EQ(test.wait().value, "bytes");
}

TEST(RedisLeases, GoOnWithoutStreams) {
  const auto unknown = error("ERR unknown command 'XREAD'");
  fixture<blocking_client> test({unknown, unknown});
  EXPECT_EQ(test.wait().what, lease_end::kind::pending);
  EXPECT_EQ(test.leases.refusals().at("ERR"), 2U);
  EXPECT_EQ(test.said, std::vector<std::string>{"ERR|ERR unknown command 'XREAD'"});
}

TEST(RedisLeases, ComeBackAtOnceWhenAFailoverEndsTheWait) {
  fixture<blocking_client> test({error("UNBLOCKED force unblock from blocking operation")});
  EXPECT_EQ(test.wait().what, lease_end::kind::pending);
  EXPECT_TRUE(test.leases.refusals().empty());
}

TEST(RedisLeases, SendTheScriptWhereItIsUnknown) {
  fixture test({error("NOSCRIPT No matching script."), list({text("lead"), text("t")})});
  EXPECT_EQ(test.enter().what, lease_entry::kind::lead);
  ASSERT_EQ(test.client.commands.size(), 2U);
  EXPECT_EQ(test.client.commands[1][0], "EVAL");
  EXPECT_EQ(test.client.commands[1][1], redis_leases<scripted_client>::enter_script.text);
  EXPECT_TRUE(std::equal(test.client.commands[0].begin() + 2, test.client.commands[0].end(),
                         test.client.commands[1].begin() + 2));
  EXPECT_TRUE(test.leases.refusals().empty());
}

TEST(RedisLeases, CountRefusalsByNameAndSayEachOnce) {
  fixture test({error("OOM command not allowed"), error("READONLY You can't write"),
                error("OOM command not allowed"), error("no name at all"), error("")});
  EXPECT_EQ(test.enter().what, lease_entry::kind::refused);
  EXPECT_EQ(test.fill(), lease_answer::refused);
  EXPECT_EQ(test.release(), lease_answer::refused);
  EXPECT_EQ(test.enter().what, lease_entry::kind::refused);
  EXPECT_EQ(test.enter().what, lease_entry::kind::refused);
  const std::map<std::string, std::uint64_t> expected{{"OOM", 2}, {"READONLY", 1}, {"OTHER", 2}};
  EXPECT_EQ(test.leases.refusals(), expected);
  const std::vector<std::string> said{"OOM|OOM command not allowed",
                                      "READONLY|READONLY You can't write", "OTHER|no name at all"};
  EXPECT_EQ(test.said, said);
}

TEST(RedisLeases, NameAMissingPermissionInAScriptAsOneOutsideIt) {
  fixture test({error("NOPERM this user has no permissions to run the 'evalsha' command"),
                error("ERR The user executing the script can't run this command or subcommand"),
                error("ERR ACL failure in script: User ann has no permissions"),
                error("ERR something else")});
  for (int i = 0; i < 4; ++i) (void)test.enter();
  const std::map<std::string, std::uint64_t> expected{{"ERR", 1}, {"NOPERM", 3}};
  EXPECT_EQ(test.leases.refusals(), expected);
}

TEST(RedisLeases, KeepNoMoreThanAFewNames) {
  std::deque<redis_reply> replies;
  for (char a = 'A'; a <= 'Z'; ++a) {
    for (char b = 'A'; b <= 'Z'; ++b) replies.push_back(error(std::string{a, b}));
  }
  fixture test(std::move(replies));
  for (int i = 0; i < 26 * 26; ++i) (void)test.enter();
  EXPECT_LE(test.leases.refusals().size(), 65U);
  EXPECT_EQ(test.leases.refusals().at("OTHER"), 26U * 26 - 64);
}

/// The slot by which Redis Cluster places a key, from its specification.
unsigned slot(std::string_view key) {
  const std::size_t open = key.find('{');
  if (open != key.npos) {
    const std::size_t close = key.find('}', open + 1);
    if (close != key.npos && close > open + 1) key = key.substr(open + 1, close - open - 1);
  }
  unsigned crc = 0;
  for (const char c : key) {
    crc ^= static_cast<unsigned>(static_cast<unsigned char>(c)) << 8U;
    for (int i = 0; i < 8; ++i) crc = (crc & 0x8000U) != 0 ? (crc << 1U) ^ 0x1021U : crc << 1U;
    crc &= 0xffffU;
  }
  return crc % 16384;
}

TEST(RedisLeases, NameKeysOfOneSlotOrRefuse) {
  EXPECT_EQ(slot("123456789"), 12739U);  // of the specification
  std::minstd_rand random(4711);
  int refused = 0;
  for (int i = 0; i < 5'000; ++i) {
    std::string key;
    for (auto length = random() % 7; length > 0; --length) key += "ab{}{}:"[random() % 7];
    fixture test({list({text("held"), text("t")})});
    if (test.leases.fill(key, "t", "v", 1ms, 1ms) == lease_answer::refused) {
      ++refused;
      EXPECT_TRUE(test.client.commands.empty());
      EXPECT_EQ(test.leases.refusals().at("NOSLOT"), 1U);
      // Not for nothing: the names that are used elsewhere would be in another slot.
      EXPECT_TRUE(key.empty() || slot("sf1:{" + key + "}") != slot(key)) << key;
      EXPECT_TRUE(key.empty() || slot("sf1:" + key) != slot(key)) << key;
    } else {
      const auto& command = test.client.commands.at(0);
      EXPECT_EQ(command[3], key);
      EXPECT_EQ(slot(command[4]), slot(key)) << command[4];
      EXPECT_EQ(slot(command[5]), slot(key)) << command[5];
      EXPECT_NE(command[4], command[5]);
    }
  }
  EXPECT_GT(refused, 100);
  EXPECT_LT(refused, 4'900);
}

TEST(RedisLeases, RefuseAKeyThatCannotBeNamedInOneSentence) {
  fixture test({number(1)});
  EXPECT_EQ(test.leases.enter("a}b", "t", 2000ms).what, lease_entry::kind::refused);
  EXPECT_EQ(test.said,
            std::vector<std::string>{
                "NOSLOT|NOSLOT the braces in \"a}b\" leave its lease no name in the same "
                "hash slot"});
  EXPECT_EQ(test.leases.enter("sf1:{k}", "t", 2000ms).what, lease_entry::kind::refused);
  EXPECT_TRUE(test.client.commands.empty());
  EXPECT_EQ(test.leases.invalidate("a}b"), lease_answer::held);  // its value can go all the same
  EXPECT_EQ(test.client.commands.at(0), (std::vector<std::string>{"DEL", "a}b"}));
}

TEST(RedisLeases, TakeNoReplyThatTheyDoNotKnow) {
  fixture test({list({text("hit"), text("t")}), list({text("lead"), text("t"), text("?")}),
                list({text("wait"), text("t"), number(1), number(1)}), list({text("?"), text("t")}),
                list({text("?"), text("t")}), text("held"), nil()});
  for (int i = 0; i < 4; ++i) EXPECT_EQ(test.enter().what, lease_entry::kind::unreachable);
  for (int i = 0; i < 3; ++i) EXPECT_EQ(test.fill(), lease_answer::unreachable);
  EXPECT_EQ(test.leases.refusals().at("UNEXPECTED"), 7U);
}

TEST(RedisLeases, TakeNoReplyThatBelongsToAnotherCommand) {
  fixture test({list({text("hit"), text("other token"), text("another key's value")}),
                list({text("held"), text("other token")}),
                list({list({text("sf1:{other}:t"),
                            list({list({text("1-1"), list({text("r"), text("value"), text("v"),
                                                           text("another key's value")})})})})})});
  EXPECT_EQ(test.enter().what, lease_entry::kind::unreachable);
  EXPECT_EQ(test.fill(), lease_answer::unreachable);
  EXPECT_EQ(test.wait().what, lease_end::kind::unreachable);
  EXPECT_EQ(test.leases.refusals().at("UNEXPECTED"), 3U);
}

/// A reply of any shape, made of words that mean something here.
redis_reply any_reply(std::minstd_rand& random, int depth) {
  static const std::vector<std::string> words{
      "",     "t",     "hit",    "lead",      "wait",       "held", "lost",      "r",     "v",
      "kept", "value", "failed", "sf1:{k}:t", "NOSCRIPT x", "OOM",  "UNBLOCKED", "other", "1-1"};
  redis_reply reply{.what = static_cast<kind>(random() % 6)};
  reply.text = words[random() % words.size()];
  reply.number = static_cast<long long>(random()) - 1'000'000;
  if (reply.what == kind::list && depth > 0) {
    for (auto size = random() % 5; size > 0; --size) {
      reply.list.push_back(any_reply(random, depth - 1));
    }
  }
  return reply;
}

TEST(RedisLeases, SurviveAnyReply) {
  const unsigned seed = std::random_device{}();
  SCOPED_TRACE(seed);
  std::minstd_rand random(seed);
  for (int i = 0; i < 20'000; ++i) {
    fixture<blocking_client> test({any_reply(random, 5), any_reply(random, 5)});
    switch (random() % 4) {
      case 0: {
        const lease_entry entry = test.enter();
        EXPECT_TRUE(entry.what != lease_entry::kind::hit || !test.client.commands.empty());
        break;
      }
      case 1:
        (void)test.fill();
        break;
      case 2:
        (void)test.release();
        break;
      default:
        (void)test.leases.invalidate("k");
    }
  }
  for (int i = 0; i < 1'000; ++i) {  // some of these sleep for a millisecond
    fixture<blocking_client> test({any_reply(random, 6), any_reply(random, 6)});
    (void)test.wait();
  }
}

}  // namespace
