#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Stops a program in gdb and looks at its groups: gdb_test.py PROGRAM [without-text]

without-text: the standard library's strings are not shown by this gdb (libc++'s).
Exit status 77: there is no gdb, or it may not trace.
"""
import re
import shutil
import subprocess
import sys
from pathlib import Path

SKIPPED = 77
PRINTER = Path(__file__).resolve().parents[2] / "packaging/debug/singleflight_gdb.py"

LEADER = r"led by thread \d+"
EXPECTED = {
    "by_number": r"singleflight::group, 1 call listed, 1 in flight, 2 waiting; led 3, joined 2, failed 1,"
                 r" timed_out 0, cancelled 0, rejected 0, superseded 0, batches 0 = \{\[1234\] = 2 waiters, " + LEADER + r"\}",
    "by_text": r"singleflight::group, 1 call listed, 1 in flight, 1 waiting; led 1, joined 1, failed 0,"
               r" timed_out 0, cancelled 0, rejected 0, superseded 0, batches 0 = \{\[(.*)\] = 1 waiter, " + LEADER + r"\}",
    "led": r"singleflight::result, led, not shared = \{value = .*41.*\}",
}


def skip(why):
    print(f"skipped: {why}")
    sys.exit(SKIPPED)


def main():
    program, with_text = sys.argv[1], "without-text" not in sys.argv[2:]
    if shutil.which("gdb") is None:
        skip("there is no gdb")
    commands = [f"source {PRINTER}", "set print frame-arguments none", "break all_callers_wait", "run",
                *(f"print {name}" for name in EXPECTED), "kill"]
    gdb = subprocess.run(["gdb", "-nx", "-batch", *(word for c in commands for word in ("-ex", c)), program],
                         capture_output=True, text=True, timeout=120)
    print(gdb.stdout, gdb.stderr)
    if re.search(r"ptrace: Operation not permitted|Could not trace the inferior|trace.*not permitted",
                 gdb.stdout + gdb.stderr):
        skip("gdb may not trace here")
    shown = re.findall(r"^\$\d+ = (.*)$", gdb.stdout, re.M)
    if len(shown) != len(EXPECTED):
        sys.exit(f"gdb shows {len(shown)} of {len(EXPECTED)} values")
    for (name, expected), line in zip(EXPECTED.items(), shown):
        match = re.fullmatch(expected, line)
        if match is None:
            sys.exit(f"{name} should look like\n  {expected}\nand looks like\n  {line}")
        if name == "by_text" and with_text and match[1] != '"welcome"':
            sys.exit(f"the key of {name} is shown as {match[1]}")


if __name__ == "__main__":
    main()
