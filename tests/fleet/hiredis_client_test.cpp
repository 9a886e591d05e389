// SPDX-License-Identifier: MIT
// The client, with a real Redis and a network that fails: what it makes of trouble.

#include "singleflight/hiredis_client.hpp"

#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <atomic>
#include <chrono>
#include <memory>
#include <mutex>
#include <optional>
#include <random>
#include <span>
#include <stdexcept>
#include <string>
#include <string_view>
#include <vector>

#include "../support.hpp"
#include "fault_proxy.hpp"
#include "redis_server.hpp"

extern "C" [[gnu::weak]] void __gcov_dump();  // there when coverage is measured

namespace {

using namespace std::chrono_literals;
using fleet_tests::fault_proxy;
using fleet_tests::redis_server;
using singleflight::hiredis_client;
using singleflight::hiredis_options;
using singleflight::redis_reply;
using fault = fault_proxy::fault;
using kind = redis_reply::kind;

/// What a client says of the server, in turn.
class changes {
 public:
  auto hook() {
    return [this](bool up, std::string_view why) {
      const std::lock_guard lock(mutex_);
      said_.push_back(up ? "up" : std::string(why));
    };
  }
  [[nodiscard]] std::vector<std::string> said() const {
    const std::lock_guard lock(mutex_);
    return said_;
  }

 private:
  mutable std::mutex mutex_;
  std::vector<std::string> said_;
};

void await_up(const hiredis_client& client) {
  support::await([&] { return client.up(); }, "the server to be found");
}

TEST(HiredisClient, TalksToRedis) {
  redis_server server;
  hiredis_client client(server.options());
  EXPECT_EQ(client.execute({"SET", "k", "v"}).text, "OK");
  EXPECT_EQ(client.execute({"GET", "k"}).text, "v");
  EXPECT_EQ(client.execute({"GET", "nothing"}).what, kind::null);
  EXPECT_EQ(client.execute({"INCR", "n"}).number, 1);
  EXPECT_EQ(client.execute({"INCR", "k"}).what, kind::error);
  const redis_reply list = client.execute({"MGET", "k", "nothing"});
  ASSERT_EQ(list.list.size(), 2U);
  EXPECT_EQ(list.list[0].text, "v");
  EXPECT_EQ(list.list[1].what, kind::null);
  EXPECT_EQ(client.stats().opened, 2U);  // the prober's, and one for all of these
  EXPECT_EQ(client.stats().in_use, 0U);
}

TEST(HiredisClient, TakesBigValues) {
  redis_server server;
  hiredis_client client(server.options());
  const std::string big(10'000'000, 'x');
  EXPECT_EQ(client.execute({"SET", "k", big}).text, "OK");
  EXPECT_EQ(client.execute({"GET", "k"}).text, big);
}

TEST(HiredisClient, UsesAUnixSocketAPasswordAndADatabase) {
  const std::string path = "/tmp/singleflight-fleet-" + std::to_string(getpid()) + ".sock";
  redis_server server({"--unixsocket", path});
  (void)server.reply({"ACL", "SETUSER", "ann", "on", ">secret", "allkeys", "allcommands"});
  hiredis_client client(
      {.unix_socket = path, .user = "ann", .password = "secret", .database = 3, .timeout = 5s});
  EXPECT_EQ(client.execute({"ACL", "WHOAMI"}).text, "ann");
  EXPECT_EQ(client.execute({"SET", "k", "v"}).text, "OK");
  EXPECT_EQ(server.text({"GET", "k"}), "(nil)");  // which is in database 0
}

TEST(HiredisClient, SaysOnceThatThePasswordIsWrong) {
  redis_server server;
  (void)server.reply({"ACL", "SETUSER", "ann", "on", ">secret", "allkeys", "allcommands"});
  auto options = server.options();
  changes heard;
  options.user = "ann";
  options.password = "guess";
  options.longest_pause = 10ms;
  options.on_change = heard.hook();
  hiredis_client client(options);
  for (int i = 0; i < 20; ++i) EXPECT_EQ(client.execute({"GET", "k"}).what, kind::none);
  support::await([&] { return client.stats().opened > 5; }, "some attempts");
  ASSERT_EQ(heard.said().size(), 1U);
  EXPECT_TRUE(heard.said()[0].starts_with("WRONGPASS")) << heard.said()[0];
}

TEST(HiredisClient, MayBeMadeWhileTheServerIsAway) {
  redis_server server;
  server.kill();
  changes heard;
  auto options = server.options();
  options.longest_pause = 20ms;
  options.on_change = heard.hook();
  hiredis_client client(options);
  EXPECT_EQ(client.execute({"GET", "k"}).what, kind::none);
  EXPECT_FALSE(client.up());
  server.start();
  await_up(client);
  EXPECT_EQ(client.execute({"GET", "k"}).what, kind::null);
  support::await([&] { return heard.said().size() == 2; }, "both changes to be said");
  EXPECT_EQ(heard.said()[1], "up");
}

TEST(HiredisClient, ReportsANameThatIsUnknown) {
  changes heard;
  hiredis_client client({.host = "no-such-host.invalid", .timeout = 1s, .on_change = heard.hook()});
  EXPECT_EQ(client.execute({"GET", "k"}).what, kind::none);
  support::await([&] { return !heard.said().empty(); }, "the reason");
}

// Each fault: the command has no reply, one caller pays for it, and the client is soon as before.
TEST(HiredisClient, OutlivesEveryFaultOfTheNetwork) {
  redis_server server;
  fault_proxy network(server.port());
  for (const fault how : {fault::reset, fault::hang, fault::lose_reply, fault::keep_reply,
                          fault::cut, fault::garbage, fault::drip, fault::delay}) {
    SCOPED_TRACE(static_cast<int>(how));
    (void)server.reply({"SET", "k", "a long value that takes a while to drip"});
    changes heard;
    hiredis_client client({.port = network.port(),
                           .timeout = 100ms,
                           .longest_pause = 10ms,
                           .on_change = heard.hook()});
    await_up(client);
    network.set(how, "GET", 1, 200ms);
    EXPECT_EQ(client.execute({"GET", "k"}).what, kind::none);
    await_up(client);
    support::await(
        [&] {
          return client.execute({"GET", "k"}).text.starts_with("a long");
        },
        "the value");
    support::await([&] { return heard.said().size() >= 2; }, "the changes to be said");
  }
}

// More than the kernel takes at once, for a server that takes nothing.
TEST(HiredisClient, StopsSendingAtTheDeadline) {
  redis_server server;
  hiredis_client client({.port = server.port(), .timeout = 300ms});
  await_up(client);
  server.stop();
  EXPECT_EQ(client.execute({"SET", "k", std::string(50'000'000, 'x')}).text, "no reply in time");
  EXPECT_FALSE(client.up());
}

TEST(HiredisClient, NoticesWhileItSendsThatTheServerHasGone) {
  redis_server server;
  hiredis_client client({.port = server.port(), .timeout = 20s});
  await_up(client);
  server.stop();
  support::threads killer(1, [&](std::size_t) {
    support::await([&] { return client.stats().in_use == 1; }, "the command to be sent");
    server.kill();
  });
  EXPECT_EQ(client.execute({"SET", "k", std::string(50'000'000, 'x')}).what, kind::none);
}

// The next command on a connection whose reply was late would get that reply: another key's value.
TEST(HiredisClient, NeverGivesAReplyToAnotherCommand) {
  redis_server server;
  fault_proxy network(server.port());
  constexpr int keys = 20;
  for (int i = 0; i < keys; ++i) {
    (void)server.reply({"SET", std::to_string(i), "value of " + std::to_string(i)});
  }
  for (const fault how : {fault::delay, fault::double_reply, fault::cut}) {
    hiredis_client client(
        {.port = network.port(), .connections = 2, .timeout = 20ms, .longest_pause = 10ms});
    std::atomic<int> right = 0;
    std::atomic<bool> done = false;
    support::threads faults(1, [&](std::size_t) {
      while (!done) {
        network.set(how, "GET", 1, 30ms);
        std::this_thread::yield();
      }
    });
    support::threads users(4, [&](std::size_t user) {
      for (int i = static_cast<int>(user); right < 200 || network.met() == 0; i = (i + 7) % keys) {
        const redis_reply reply = client.execute({"GET", std::to_string(i)});
        if (reply.what == kind::none) {
          network.clear();
          support::await([&] { return client.up(); }, "the server");
          continue;
        }
        EXPECT_EQ(reply.text, "value of " + std::to_string(i));
        ++right;
      }
    });
    users.join();
    done = true;
    faults.join();
    network.clear();
  }
}

TEST(HiredisClient, LetsOneCallerPayForAServerThatHangs) {
  redis_server server;
  changes heard;
  hiredis_client client(
      {.port = server.port(), .timeout = 500ms, .longest_pause = 50ms, .on_change = heard.hook()});
  await_up(client);
  EXPECT_EQ(client.execute({"GET", "k"}).what, kind::null);
  server.stop();
  EXPECT_EQ(client.execute({"GET", "k"}).text, "no reply in time");
  EXPECT_FALSE(client.up());
  for (int i = 0; i < 1000; ++i) {
    EXPECT_EQ(client.execute({"GET", "k"}).text, "the server is away");
    EXPECT_EQ(client.execute_blocking(std::vector<std::string_view>{"GET", "k"}, 100ms)->text,
              "the server is away");
  }
  server.go_on();
  await_up(client);
  EXPECT_EQ(client.execute({"GET", "k"}).what, kind::null);
  support::await([&] { return heard.said().size() == 2; }, "both changes to be said");
  EXPECT_EQ(heard.said(), (std::vector<std::string>{"no reply in time", "up"}));
}

TEST(HiredisClient, ReplacesConnectionsThatTheServerHasClosed) {
  redis_server server;
  changes heard;
  auto options = server.options();
  options.on_change = heard.hook();
  hiredis_client client(options);
  for (int i = 0; i < 5; ++i) {
    EXPECT_EQ(client.execute({"GET", "k"}).what, kind::null);
    (void)server.reply({"CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes"});
    support::await(
        [&] {
          return server.text({"CLIENT", "LIST"}).find("cmd=get") == std::string::npos;
        },
        "the connection to be closed");
  }
  EXPECT_TRUE(heard.said().empty());
}

TEST(HiredisClient, FindsOutThatANetworkHasForgottenItsConnections) {
  redis_server server;
  fault_proxy network(server.port());
  hiredis_client client({.port = network.port(), .timeout = 500ms, .longest_pause = 10ms});
  await_up(client);
  EXPECT_EQ(client.execute({"GET", "k"}).what, kind::null);
  network.forget_connections();
  EXPECT_EQ(client.execute({"GET", "k"}).what, kind::none);  // one caller pays
  await_up(client);
  support::await([&] { return client.execute({"GET", "k"}).what == kind::null; }, "a new one");
}

TEST(HiredisClient, DoesNotAskAServerThatComesAndGoesAtTheRateOfItsFailures) {
  redis_server server;
  fault_proxy network(server.port());
  network.set(fault::reset, "GET");  // PING is answered, commands are not
  changes heard;
  hiredis_client client(
      {.port = network.port(), .timeout = 1s, .longest_pause = 200ms, .on_change = heard.hook()});
  const auto begin = std::chrono::steady_clock::now();
  support::await(
      [&] {
        (void)client.execute({"GET", "k"});
        return heard.said().size() >= 40;  // 20 times down and up
      },
      "the server to come and go");
  // The pauses between are half of these, or more: 0, 10, 20, 40, 80, 160, then 200 ms.
  EXPECT_GT(std::chrono::steady_clock::now() - begin, 1s);
}

TEST(HiredisClient, KeepsNobodyWaitingForThoseWhoBlock) {
  redis_server server;
  auto options = server.options();
  options.connections = 1;
  options.wait_connections = 2;
  hiredis_client client(options);
  support::threads blocked(2, [&](std::size_t) {
    const std::vector<std::string_view> command{"BLPOP", "list", "60"};
    EXPECT_TRUE(client.execute_blocking(command, 60'000ms).has_value());
  });
  support::await([&] { return server.info("blocked_clients") == 2; }, "both to block");
  const std::vector<std::string_view> command{"BLPOP", "list", "60"};
  EXPECT_FALSE(client.execute_blocking(command, 60'000ms).has_value());
  EXPECT_EQ(client.execute({"GET", "k"}).what, kind::null);
  (void)client.execute({"RPUSH", "list", "a", "b"});
  blocked.join();
}

TEST(HiredisClient, GivesUpWhenEveryConnectionIsInUse) {
  redis_server server;
  fault_proxy network(server.port());
  hiredis_client client({.port = network.port(), .connections = 1, .timeout = 300ms});
  await_up(client);
  network.set(fault::keep_reply, "slow", 1);
  support::threads slow(1, [&](std::size_t) { (void)client.execute({"GET", "slow"}); });
  support::await([&] { return network.met() == 1; }, "the connection to be in use");
  support::threads crowd(4, [&](std::size_t) { (void)client.execute({"GET", "k"}); });
  crowd.join();
  slow.join();
  EXPECT_EQ(client.stats().in_use, 0U);
  EXPECT_EQ(client.stats().waiting, 0U);
}

// A server whose timeouts are late by up to 100 ms is well: nobody is to tear its connections down.
TEST(HiredisClient, AllowsAServerToEndABlockLate) {
  redis_server server;
  changes heard;
  auto options = server.options();
  options.on_change = heard.hook();
  hiredis_client client(options);
  for (int i = 0; i < 20; ++i) {
    const std::vector<std::string_view> command{"XREAD", "BLOCK", "10", "STREAMS", "s", "0"};
    const auto reply = client.execute_blocking(command, 10ms);
    ASSERT_TRUE(reply.has_value());
    EXPECT_EQ(reply->what, kind::null);
  }
  EXPECT_EQ(client.stats().opened, 2U);
  EXPECT_TRUE(heard.said().empty());
}

TEST(HiredisClient, AllowsABlockItsTimeTheTimeoutAndAHundredMilliseconds) {
  redis_server server;
  (void)server.reply({"XADD", "s", "1-1", "r", "v"});
  fault_proxy network(server.port());
  hiredis_client client({.port = network.port(), .timeout = 500ms, .longest_pause = 10ms});
  network.set(fault::delay, "XREAD", 1'000'000, 560ms);
  bool came = false;
  for (int attempt = 0; attempt < 5 && !came;
       ++attempt) {  // on a busy machine some may be too late
    await_up(client);
    const std::vector<std::string_view> command{"XREAD", "BLOCK", "10", "STREAMS", "s", "0"};
    const auto reply = client.execute_blocking(command, 10ms);
    came = reply && reply->what == kind::list;
  }
  EXPECT_TRUE(came);
}

// A demoted master answers, and refuses to write. It is looked for again, but not by every command.
TEST(HiredisClient, LooksForTheMasterAgainButNotAtTheRateOfTheRefusals) {
  redis_server server;
  auto options = server.options();
  options.longest_pause = 300ms;
  changes heard;
  options.on_change = heard.hook();
  hiredis_client client(options);
  EXPECT_EQ(client.execute({"SET", "k", "v"}).text, "OK");
  (void)server.reply({"REPLICAOF", "127.0.0.1", "1"});
  const auto opened = client.stats().opened;
  const auto begin = std::chrono::steady_clock::now();
  for (int i = 0; i < 5'000; ++i) {
    ASSERT_TRUE(client.execute({"SET", "k", "v"}).text.starts_with("READONLY"));
  }
  // In 300 ms one for the prober, and one in place of the other; however long it took.
  const auto times = (std::chrono::steady_clock::now() - begin) / options.longest_pause + 2;
  EXPECT_LE(client.stats().opened, opened + 2 * static_cast<std::uint64_t>(times));
  support::await(
      [&] {
        EXPECT_TRUE(client.execute({"SET", "k", "v"}).text.starts_with("READONLY"));
        return client.stats().opened >= opened + 4;
      },
      "the connections to be replaced");
  EXPECT_TRUE(client.up());
  EXPECT_TRUE(heard.said().empty());
  (void)server.reply({"REPLICAOF", "NO", "ONE"});
  support::await([&] { return client.execute({"SET", "k", "v"}).text == "OK"; }, "the master");
}

/// Gives whatever the bytes are a reply of.
struct client_of_bytes {
  redis_reply execute(std::span<const std::string_view>) {
    const std::unique_ptr<redisReader, void (*)(redisReader*)> reader(redisReaderCreate(),
                                                                      redisReaderFree);
    redisReaderFeed(reader.get(), bytes.data(), bytes.size());
    void* got = nullptr;
    if (redisReaderGetReply(reader.get(), &got) != REDIS_OK || got == nullptr) return {};
    const std::unique_ptr<void, void (*)(void*)> reply(got, freeReplyObject);
    return singleflight::to_redis_reply(*static_cast<redisReply*>(got));
  }
  std::optional<redis_reply> execute_blocking(std::span<const std::string_view> command,
                                              std::chrono::milliseconds) {
    return execute(command);
  }
  std::string bytes;
};

// Replies that were damaged in every way: nothing crashes, and no value is of another token.
TEST(HiredisClient, ReadsDamagedRepliesWithoutHarm) {
  const std::vector<std::string> whole{
      "*3\r\n$3\r\nhit\r\n$5\r\ntoken\r\n$5\r\nvalue\r\n",
      "*2\r\n$4\r\nlead\r\n$5\r\ntoken\r\n",
      "*4\r\n$4\r\nwait\r\n$5\r\ntoken\r\n$5\r\nother\r\n:1234\r\n",
      "*2\r\n$4\r\nheld\r\n$5\r\ntoken\r\n",
      "*1\r\n*2\r\n$13\r\nsf1:{k}:token\r\n*1\r\n*2\r\n$3\r\n1-1\r\n*4\r\n$1\r\nr\r\n$5\r\nvalue"
      "\r\n$1\r\nv\r\n$5\r\nbytes\r\n",
      "$-1\r\n",
      "*-1\r\n",
      "-OOM command not allowed\r\n",
      "+OK\r\n"};
  const unsigned seed = std::random_device{}();
  SCOPED_TRACE(seed);
  std::mt19937 random(seed);
  client_of_bytes client;
  singleflight::redis_leases leases(client);
  for (int i = 0; i < 30'000; ++i) {
    std::string bytes = whole[random() % whole.size()];
    for (auto damages = random() % 4; damages > 0 && !bytes.empty(); --damages) {
      const std::size_t at = random() % bytes.size();
      switch (random() % 5) {
        case 0:
          bytes[at] = static_cast<char>(random());
          break;
        case 1:
          bytes[at] = "*$:+-\r\n019"[random() % 10];
          break;
        case 2:
          bytes.erase(at, random() % 8);
          break;
        case 3:
          bytes.insert(at, bytes.substr(random() % bytes.size(), random() % 12));
          break;
        default:
          bytes.resize(at);
      }
    }
    client.bytes = bytes;
    const auto entry = leases.enter("k", "token", 2000ms);
    if (entry.what == singleflight::lease_entry::kind::hit) {
      EXPECT_NE(bytes.find("token"), std::string::npos) << bytes;
      EXPECT_NE(bytes.find(entry.value), std::string::npos) << bytes;
    }
    (void)leases.fill("k", "token", "v", 1000ms, 1000ms);
    (void)leases.release("k", "token", 1000ms);
    (void)leases.invalidate("k");
    // Errors are left out: they make it sleep.
    if (!bytes.starts_with("-")) (void)leases.wait("k", "token", 1ms, 0);
  }
}

#if !defined(SINGLEFLIGHT_TESTS_TSAN)  // it lets a child of a fork start no threads
TEST(HiredisClient, WorksInAChildOfAFork) {
  redis_server server;
  hiredis_client client(server.options());
  EXPECT_EQ(client.execute({"SET", "k", "v"}).text, "OK");
  const auto of_parent = client.execute({"CLIENT", "ID"}).number;
  std::array<int, 2> has_asked{};
  ASSERT_EQ(pipe(has_asked.data()), 0);
  const pid_t child = fork();
  ASSERT_GE(child, 0);
  if (child == 0) {
    std::atomic<int> right = 0;
    const auto mine = client.execute({"CLIENT", "ID"});
    const bool is_its_own = mine.what == kind::number && mine.number != of_parent;
    close(has_asked[0]);
    close(has_asked[1]);
    {
      support::threads both(2, [&](std::size_t) {
        for (int i = 0; i < 50; ++i) {
          if (client.execute({"INCR", "child"}).what == kind::number) ++right;
        }
      });
    }
    if (__gcov_dump != nullptr) __gcov_dump();  // what ran here counts, too
    _exit(right == 100 && is_its_own ? 0 : 1);
  }
  close(has_asked[1]);
  char nothing = 0;
  EXPECT_EQ(read(has_asked[0], &nothing, 1), 0);  // from here on both use the client
  close(has_asked[0]);
  for (int i = 0; i < 100; ++i) EXPECT_EQ(client.execute({"GET", "k"}).text, "v");
  int status = 0;
  ASSERT_EQ(waitpid(child, &status, 0), child);
  EXPECT_EQ(status, 0);
  EXPECT_EQ(client.execute({"GET", "child"}).text, "100");
}
#endif

TEST(HiredisClient, RefusesOptionsThatMakeNoSense) {
  const auto refused = [](const hiredis_options& options) -> std::string {
    try {
      const hiredis_client client(options);
      return "accepted";
    } catch (const std::invalid_argument& error) {
      return error.what();
    }
  };
  EXPECT_EQ(refused({.port = 0}), "singleflight: hiredis_options::port must be 1 to 65535");
  EXPECT_EQ(refused({.port = 65'536}), "singleflight: hiredis_options::port must be 1 to 65535");
  EXPECT_EQ(refused({.user = "ann"}), "singleflight: hiredis_options::user needs a password");
  EXPECT_EQ(refused({.connections = 0}),
            "singleflight: hiredis_options::connections must be at least 1");
  EXPECT_EQ(refused({.timeout = 0ms}),
            "singleflight: hiredis_options::timeout must be 1 ms to 1 minute");
  EXPECT_EQ(refused({.longest_pause = 1ms}),
            "singleflight: hiredis_options::longest_pause must be 10 ms to 1 minute");
}

}  // namespace
