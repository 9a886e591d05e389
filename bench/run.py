#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Runs the benchmarks and reports what they measured.

Every round runs every program once, the programs in random order and each with its rows in random
order, so that what disturbs the machine for a while disturbs all rows alike. report.py then takes
medians over the rounds. A program is a process of its own: some rows are only true where no thread
has ever been started.
"""

import argparse
import datetime
import json
import os
import pathlib
import platform
import random
import subprocess
import sys
import time

import report

ROOT = pathlib.Path(__file__).resolve().parent.parent
PROGRAMS = ROOT / "build/release/bench"
OUT = ROOT / "build/bench"


def arguments():
    parser = argparse.ArgumentParser(prog="./dev bench", description=__doc__.split("\n\n")[0])
    how = parser.add_mutually_exclusive_group()
    how.add_argument("--quick", action="store_true", help="two short rounds, less than two minutes in all")
    how.add_argument("--once", action="store_true", help="run every row through once, measure nothing")
    how.add_argument("--docs", action="store_true",
                     help="the full run, then write its figures into docs/benchmarks.md")
    parser.add_argument("--filter", default=".", metavar="REGEX",
                        help="only rows whose name matches, e.g. 'wake|cost/.*string'")
    args = parser.parse_args()
    if args.docs and args.filter != ".":
        parser.error("--docs wants all figures, without --filter")
    args.rounds, args.seconds = (1, 0) if args.once else (2, 0.01) if args.quick else (10, 0.05)
    return args


def machine():
    with open("/proc/cpuinfo", encoding="utf-8") as cpuinfo:
        models = [line.split(":", 1)[1].strip() for line in cpuinfo if line.startswith("model name")]
    return {
        "processor": f"{models[0] if models else platform.machine()}, {os.cpu_count()} cores",
        "system": f"{platform.system()} {platform.release()}, {' '.join(platform.libc_ver())}",
        "date": datetime.date.today().isoformat(),
        "load": os.getloadavg()[0],
    }


def measure(program, args, out):
    """Runs one program. Returns its errors."""
    flags = [f"--benchmark_filter={args.filter}", f"--benchmark_out={out}"]
    flags.append("--once" if args.once else f"--seconds={args.seconds}")
    done = subprocess.run([program, *flags], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
                          check=False)
    if done.returncode != 0:
        return [f"{program.name} ended with {done.returncode}: {done.stderr[-2000:]}"]
    if out.stat().st_size == 0:  # no row matches the filter
        out.unlink()
        return []
    rows = json.loads(out.read_text())["benchmarks"]
    return [f"{row['name']}: {row['error_message']}" for row in rows if row.get("error_occurred")]


def clock(seconds):
    return f"{int(seconds) // 60}:{int(seconds) % 60:02}"


def main():
    args = arguments()
    # A build directory may still have programs whose sources are gone.
    programs = sorted(program for program in PROGRAMS.glob("*_bench")
                      if program.name == "go_bench" or (ROOT / f"bench/{program.name}.cpp").exists())
    if not any(program.name == "go_bench" for program in programs):
        print("bench: no Go here, so its rows are left out")
    runs = OUT / "runs"
    runs.mkdir(parents=True, exist_ok=True)
    for old in runs.glob("*.json"):
        old.unlink()
    about = machine() | {"rounds": args.rounds, "seconds": args.seconds,
                         "command": " ".join(["./dev bench", *sys.argv[1:]])}
    (OUT / "machine.json").write_text(json.dumps(about, indent=1))

    errors = []
    began = time.monotonic()
    for step in range(args.rounds * len(programs)):
        number, nth = divmod(step, len(programs))
        if nth == 0:
            random.shuffle(programs)
        spent = time.monotonic() - began
        left = f", about {clock(spent / step * (args.rounds * len(programs) - step))} left" if number else ""
        print(f"round {number + 1}/{args.rounds}  {clock(spent)}{left}  {programs[nth].name}", flush=True)
        errors += measure(programs[nth], args, runs / f"{programs[nth].name}.{number:02}.json")
    for error in errors:
        print("bench:", error, file=sys.stderr)
    if errors:
        sys.exit(1)
    if not args.once:
        report.write(OUT, ROOT / "docs" if args.docs else None)


if __name__ == "__main__":
    main()
