# SPDX-License-Identifier: MIT
"""Breaks the headers of the fleet on purpose, one change at a time, and expects the tests to fail.

    tests/fleet/mutants.py <build directory> [part]

The build directory is made for it, and gets a copy of the headers. Each change names the text and what it
becomes; each part the file and the programs that must notice."""

import pathlib
import shutil
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parents[2]
UNIT = ("fleet_test", "fleet_failure_test")

FLEET = [
    ("entries omit a counter", "return hits + led +", "return led +"),
    ("a hit after a wait counts as a hit", "count(waited ? followed_ : hits_)", "count(hits_)"),
    ("a hit counts as followed", "count(waited ? followed_ : hits_)", "count(followed_)"),
    ("bad bytes are mended for ever", "if (std::exchange(mended, true)) return", "if (false) return"),
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
    ("broken waits go on for ever", "if (++bad_waits > 1)", "if (false)"),
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
    ("a negative lifetime is jittered", "lifetime <= milliseconds::zero()", "lifetime == milliseconds::zero()"),
    ("lifetimes are not cut", "lifetime = std::min(lifetime, longest);", ""),
    ("no jitter", "random_between(1 - options_.jitter, 1 + options_.jitter)", "random_between(1, 1)"),
    ("jitter only upwards", "random_between(1 - options_.jitter, 1 + options_.jitter)", "random_between(1, 1 + options_.jitter)"),
    ("jitter rounds down to nothing", "std::max(milliseconds(changed), milliseconds(1))", "milliseconds(changed)"),
    ("a fork keeps its tokens", "static_cast<long long>(::getpid())", "0LL"),
    ("tokens do not differ by number", "+ '-' + std::to_string(number)", ""),
    ("tokens do not differ by fleet", "return identity_ + '-'", "return std::string(1, '-')"),
    ("the fleet ignores the store's clock", "std::as_const(store_).now()", "std::chrono::steady_clock::now()"),
]

PARTS = {"fleet": ("fleet.hpp", UNIT, FLEET)}


def survives(build, header, programs, old, new):
    text = header.read_text()
    if text.count(old) != 1:
        sys.exit(f"{header.name} is no longer what this would break: {old!r}, {text.count(old)} times")
    header.write_text(text.replace(old, new))
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
    bad = 0
    include = configure(build)
    for part, (file, programs, mutants) in PARTS.items():
        if only not in (None, part):
            continue
        for what, old, new in mutants:
            result = survives(build, include / file, programs, old, new)
            print(f"{'killed' if result is None else result}: {part}: {what}", flush=True)
            bad += result is not None
    sys.exit(1 if bad else 0)


main(*sys.argv[1:])
