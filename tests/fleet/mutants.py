# SPDX-License-Identifier: MIT
"""Breaks the headers of the fleet on purpose, one change at a time, and expects the tests to fail.

    tests/fleet/mutants.py BUILD-DIRECTORY [PART]

The build directory is made for it, and gets a copy of the headers. Each change names the text and what it
becomes; each part the file and the programs that must notice."""

import hashlib
import pathlib
import re
import shutil
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parents[2]
UNIT = ("fleet_test", "fleet_failure_test")

FLEET = [
    ("entries omit a counter", "return hits + led +", "return led +"),
    ("a hit after a wait counts as a hit", "count(waited ? followed_ : hits_)", "count(hits_)"),
    ("a hit counts as followed", "count(waited ? followed_ : hits_)", "count(followed_)"),
    ("bad bytes are mended without end", "if (std::exchange(mended, true)) return", "if (false) return"),
    ("bad bytes are not invalidated", "          invalidate(key);\n          continue;", "          continue;"),
    ("a take-over counts as led", "count(waited ? taken_over_ : led_)", "count(led_)"),
    ("a refusal is waited for", "case entered::refused:\n          return run_alone(refused_, fn);",
     "case entered::refused:\n          break;"),
    ("an orphan lease is not filled", "return lead(key, token, lifetime, fn, nullptr);",
     "return run(fn, lifetime).value;"),
    ("max_wait is not kept", "if (left <= left.zero()) return run_alone(alone_, fn);", ""),
    ("what is handed over is not used",
     "count(handed_over_);\n            return *std::move(value);", "break;"),
    ("failed leaders are not counted", "if (++failures >= options_.attempts)", "if (false)"),
    ("one failed leader is enough", "++failures >= options_.attempts", "++failures >= 1"),
    ("a broken wait is enough", "if (++bad_waits > 1)", "if (++bad_waits > 0)"),
    ("broken waits go on without end", "if (++bad_waits > 1)", "if (false)"),
    ("invalidate always succeeds", "[&] { return store_.invalidate(key); }) ==\n           lease_answer::held",
     "[&] { return store_.invalidate(key); }) !=\n           lease_answer::lost"),
    ("the lease is never released", "if (ended_) return;", "return;"),
    ("the lease is released after a fill", "        ended_ = true;\n", ""),
    ("options are not checked: lease", "options.lease < 1ms ||", ""),
    ("options are not checked: max_wait", "|| options.max_wait > 1h", ""),
    ("options are not checked: attempts", "options.attempts < 1", "false"),
    ("options are not checked: handover", "options.handover < 1ms ||", ""),
    ("options are not checked: jitter", "!(options.jitter >= 0 && options.jitter < 1)",
     "(options.jitter < 0 || options.jitter >= 1)"),
    ("a store that throws is heard", "catch (const std::exception&) {\n      return if_it_throws;",
     "catch (const std::overflow_error&) {\n      return if_it_throws;"),
    ("slices are long", "slice{100}", "slice{1000}"),
    ("a wait goes beyond the lease", "std::min({slice, lease_left, left})", "std::min(slice, left)"),
    ("a wait goes beyond max_wait", "std::min({slice, lease_left, left})", "std::min(slice, lease_left)"),
    ("waiting is not shown", "++waiting_;", ""),
    ("waiting is not taken back", "~counted_wait() { --waiting_; }", "~counted_wait() {}"),
    ("no memory is taken for bad bytes", "catch (const std::bad_alloc&) {\n      throw;\n    } ", ""),
    ("lost fills are not counted", "if (answer != lease_answer::held && kept_for.count() > 0 && lost != nullptr)",
     "if (false)"),
    ("kept fills count as lost", "answer != lease_answer::held && kept_for", "kept_for"),
    ("results that are not kept count as lost", "&& kept_for.count() > 0 ", ""),
    ("what the loader says of the lifetime is ignored", "jittered(result.lifetime)", "jittered(lifetime)"),
    ("a negative lifetime is jittered", "asked <= milliseconds::zero()", "asked == milliseconds::zero()"),
    ("lifetimes are not cut", "(std::min)(std::chrono::floor<milliseconds>(asked), longest)",
     "std::chrono::floor<milliseconds>(asked)"),
    ("no jitter", "random_between(1 - options_.jitter, 1 + options_.jitter)", "random_between(1, 1)"),
    ("jitter only upwards", "random_between(1 - options_.jitter, 1 + options_.jitter)", "random_between(1, 1 + options_.jitter)"),
    ("jitter rounds down to nothing", "(std::max)(milliseconds(changed), milliseconds(1))", "milliseconds(changed)"),
    ("a fork keeps its tokens", "static_cast<long long>(::getpid())", "0LL"),
    ("tokens do not differ by number", "+ '-' + std::to_string(number)", ""),
    ("tokens do not differ by fleet", "return identity_ + '-'", "return std::string(1, '-')"),
    ("the fleet ignores the store's clock", "std::as_const(store_).now()", "std::chrono::steady_clock::now()"),
]

LUA = [
    ("an entry ignores the value", "if value then return {'hit', ARGV[1], value} end", ""),
    ("an entry takes the lease of another", "ARGV[1], 'NX', 'PX', ARGV[2])", "ARGV[1], 'PX', ARGV[2])"),
    ("a lease never ends", "ARGV[1], 'NX', 'PX', ARGV[2])", "ARGV[1], 'NX')"),
    ("an entry that is repeated waits for itself", "if leader == ARGV[1] then return {'lead', ARGV[1]} end", ""),
    ("a fill needs no lease", "local mine = redis.call('GET', KEYS[2]) == ARGV[1]", "local mine = true"),
    ("a fill under any lease", "local mine = redis.call('GET', KEYS[2]) == ARGV[1]",
     "local mine = redis.call('GET', KEYS[2])"),
    ("a fill leaves the lease", "if mine then redis.call('DEL', KEYS[2]) end\n", ""),
    ("a fill always ends the lease", "if mine then redis.call('DEL', KEYS[2]) end\n", "redis.call('DEL', KEYS[2])\n"),
    ("the lease ends after the value is set", None, None),
    ("a fill replaces a value", "ARGV[2], 'NX', 'PX', ARGV[3])", "ARGV[2], 'PX', ARGV[3])"),
    ("a value has no expiry", "ARGV[2], 'NX', 'PX', ARGV[3])", "ARGV[2], 'NX')"),
    ("a value that is not kept is kept", "tonumber(ARGV[3]) > 0 and", "tonumber(ARGV[3]) >= 0 and"),
    ("nobody hears that a value was kept", "redis.call('XADD', KEYS[3], '*', 'r', 'kept')", ""),
    ("nobody gets what was not kept", "redis.call('XADD', KEYS[3], '*', 'r', 'value', 'v', ARGV[2])", ""),
    ("a result has no expiry", "redis.call('PEXPIRE', KEYS[3], ARGV[4])", ""),
    ("a release needs no lease", "if redis.call('GET', KEYS[1]) ~= ARGV[1] then return {'lost', ARGV[1]} end", ""),
    ("a release leaves the lease", "redis.call('DEL', KEYS[1])\n", ""),
    ("nobody hears of a failure", "redis.call('XADD', KEYS[2], '*', 'r', 'failed')", ""),
    ("the news of a failure has no expiry", "redis.call('PEXPIRE', KEYS[2], ARGV[2])", ""),
    ("a lost fill is said to be held", "{mine and 'held' or 'lost', ARGV[1]}", "{'held', ARGV[1]}"),
]

REDIS = [
    ("the result is named by the key", 'result.append(":").append(token)', 'result.append(":")'),
    ("the lease has no hash tag", 'lease.append("{").append(key).append("}")', "lease.append(key)"),
    ("a key's own hash tag is ignored", "close != key.npos && close > open + 1", "false"),
    ("an empty hash tag is one", "close > open + 1", "close > open"),
    ("braces are no matter", "key.find('}') == key.npos && !key.empty()", "!key.empty()"),
    ("an empty key is no matter", "key.find('}') == key.npos && !key.empty()", "key.find('}') == key.npos"),
    ("a lease may be a key", 'key.starts_with("sf1:")', "false"),
    ("the script is not sent again", '!reply.text.starts_with("NOSCRIPT")', "true"),
    ("the reply's token is not looked at", "reply.list[1].text == token;", "true;"),
    ("the stream's name is not looked at", "text_is(pair.list[0], stream) &&", ""),
    ("a lease without an end is asked for at once", "left < 0 ? 100 : left", "left"),
    ("a block without an end", "std::max(at_most, milliseconds(1)).count()", "at_most.count()"),
    ("a failover is counted as refused", 'reply->text.starts_with("UNBLOCKED")', "false"),
    ("an invalidation leaves the lease", "if (named) command.emplace_back(named->lease);", ""),
    ("an invalidation that failed is done", "if (reply.what == redis_reply::kind::none) return lease_answer::unreachable;",
     "if (reply.what == redis_reply::kind::none) return lease_answer::held;"),
    ("each refusal is said", "if (++refusals_[name] > 1 || !on_first_refusal_) return;", "++refusals_[name];"),
    ("names have no end", "refusals_.size() >= most_names", "false"),
    ("any name is one", 'if (!sound) name = "OTHER";', ""),
    ("a permission in a script has no name", 'name = "NOPERM";', ""),
    ("a wait without streams ends", "return {.what = lease_end::kind::pending};  // `enter`",
     "return {.what = lease_end::kind::refused};  // `enter`"),
    ("a busy wait fails", "if (reply) refuse(reply->text);", "if (!reply) return {}; refuse(reply->text);"),
]

# Not among them: that a connection whose reply was late is marked as used up, which the change of epoch
# repeats; and the first look at whether the server is up, which the second one repeats, only later; and how long a command that blocks waits for a connection.
CLIENT = [
    ("a second reply is left for the next command",
     "used_up_ = context_->reader->pos != context_->reader->len;", "used_up_ = false;"),
    ("a closed connection is used", "place.connection == nullptr || !place.connection->quiet()",
     "place.connection == nullptr"),
    ("a failure changes nothing", "      why_ = why;\n      ++period_;", "      return;"),
    ("pauses do not grow", "pause = std::clamp(pause * 2, milliseconds(10), options_.longest_pause);",
     "pause = milliseconds(0);"),
    ("nobody hears that it is down", "tell(lock, false);", ""),
    ("nobody hears that it is up", "tell(lock, true);", ""),
    ("it is said at each attempt", "probed_ && !std::exchange(said, true)", "probed_"),
    ("a demoted master is kept", "reply.what == redis_reply::kind::error && is_of_a_replica", "false && is_of_a_replica"),
    ("a demoted master is left at each refusal", "const auto earliest = looked + options_.longest_pause;",
     "const auto earliest = looked;"),
    ("blocks are cut off when they are due", "late(100)", "late(0)"),
    ("blocks use the others' connections", "execute(waits_, ", "execute(commands_, "),
    ("each read has the whole time", "if (!ready(POLLIN, until))", "if (!ready(POLLIN, redis_clock::now() + std::chrono::milliseconds(100)))"),
    ("the child of a fork uses the parent's connections", "if (now->process == process) return *now;", "return *now;"),
    ("the password is not sent", "if (!options.password.empty())", "if (false)"),
    ("the database is not chosen", "if (options.database == 0) return true;", "return true;"),
    ("the user is not sent", "if (!options.user.empty()) auth.insert", "if (false) auth.insert"),
    ("options are not checked: port", "options.port > 65'535", "false"),
    ("options are not checked: user", "!options.user.empty() && options.password.empty()", "false"),
    ("options are not checked: connections", "options.connections < 1", "false"),
    ("options are not checked: timeout", "options.timeout < 1ms ||", ""),
    ("options are not checked: longest_pause", "options.longest_pause < 10ms ||", ""),
]

PARTS = {
    "fleet": ("fleet.hpp", UNIT, FLEET),
    "lua": ("redis_leases.hpp", ("lease_store_test",), LUA),
    "redis": ("redis_leases.hpp", ("redis_leases_test", "lease_store_test"), REDIS),
    "client": ("hiredis_client.hpp", ("hiredis_client_test",), CLIENT),
}


def with_sha1(text):
    """The scripts, with the names that Redis gives them now."""
    return re.sub(r'(script \w+\{")[0-9a-f]*(", R"\()(.*?)(\)"\})', lambda found: found[1] + hashlib.sha1(
        found[3].encode()).hexdigest() + found[2] + found[3] + found[4], text, flags=re.S)


def broken(header, old, new):
    text = header.read_text()
    if new is None:  # the first line of what is found goes to its end
        found = re.search(re.escape("if mine then redis.call('DEL', KEYS[2]) end\n") + "(.*?end\n)", text, re.S)
        old, new = found[0], found[1] + "if mine then redis.call('DEL', KEYS[2]) end\n"
    if text.count(old) != 1:
        sys.exit(f"{header.name} is no longer what this would break: {old!r}, {text.count(old)} times")
    return text, with_sha1(text.replace(old, new))


def survives(build, header, programs, old, new):
    text, changed = broken(header, old, new)
    header.write_text(changed)
    try:
        made = subprocess.run(["cmake", "--build", build, "-j1", "--target", *programs],
                              capture_output=True, text=True)
        if made.returncode != 0:
            return "does not compile:\n" + made.stdout[-2000:]
        for program in programs:
            try:
                run = subprocess.run([f"{build}/tests/fleet/{program}", "--gtest_brief=1"],
                                     capture_output=True, timeout=90)
            except subprocess.TimeoutExpired:
                return None
            if run.returncode != 0:
                return None
        return "survives"
    finally:
        header.write_text(text)


def configure(build):
    include = pathlib.Path(build).resolve() / "include"
    shutil.rmtree(include, ignore_errors=True)
    shutil.copytree(ROOT / "include", include)
    subprocess.run(["cmake", "-S", ROOT, "-B", build, "-G", "Ninja", "-DCMAKE_BUILD_TYPE=Debug",
                    "-DCMAKE_CXX_FLAGS=-O0 -g0", "-DCMAKE_CXX_FLAGS_DEBUG=", "-DSINGLEFLIGHT_BUILD_BENCHMARKS=OFF",
                    "-DSINGLEFLIGHT_BUILD_EXAMPLES=OFF", f"-DSINGLEFLIGHT_INCLUDE_DIR={include}"],
                   check=True, capture_output=True)
    return include / "singleflight"


def main(build, only=None):
    made = killed = 0
    include = configure(build)
    for part, (file, programs, mutants) in PARTS.items():
        if only not in (None, part):
            continue
        for what, old, new in mutants:
            result = survives(build, include / file, programs, old, new)
            print(f"{'killed' if result is None else result}: {part}: {what}", flush=True)
            made += 1
            killed += result is None
    print(f"{killed} of {made} mutants of the fleet killed")
    sys.exit(killed < made)


main(*sys.argv[1:])
