#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Branches of the headers that the tests took, from gcov's own report.

usage: branches.py BUILD_DIRECTORY HEADERS

gcov reports a line of a template once for each instantiation, with its branches in the order of the
code. gcovr merges those lists by position, across translation units that instantiate in another
order, so what it says of a template's branches is of no branch in particular. Here a branch is one
position of a line's list, and instantiations are merged only if their lists have the same shape: the
same compile-time choices were made. A shape that no test ran through counts as not taken.

The compiler writes a branch behind every call that may throw, one way to what follows and one to the
clean-up. Those pairs are no decision of the code and are left out; how the code behaves there is
what tests/faults shows.
"""
import collections
import json
import os
import subprocess
import sys


def line_reports(build, headers):
    """Yields (header, line number, [gcov's branches]) for each instantiation of each line."""
    for directory, _, files in os.walk(build):
        data = [name for name in files if name.endswith(".gcda")]
        for name in data:
            report = subprocess.run(
                ["gcov", "--branch-probabilities", "--branch-counts", "--json-format", "--stdout", name],
                cwd=directory, check=True, capture_output=True)
            report = json.loads(report.stdout)
            for file in report["files"]:
                path = os.path.normpath(os.path.join(report["current_working_directory"], file["file"]))
                if path.startswith(headers + os.sep):
                    for line in file["lines"]:
                        yield os.path.relpath(path, headers), line["line_number"], line["branches"]


def decisions(branches):
    """Returns the counts of the branches that are no way to a clean-up, nor its alternative."""
    counts, i = [], 0
    while i < len(branches):
        if i + 1 < len(branches) and branches[i + 1]["throw"]:
            i += 2
        else:
            counts.append(branches[i]["count"])
            i += 1
    return counts


def main():
    build, headers = (os.path.realpath(path) for path in sys.argv[1:])
    taken = collections.defaultdict(list)
    for header, line, branches in line_reports(build, headers):
        counts = decisions(branches)
        key = header, line, len(counts)
        before = taken[key] or [0] * len(counts)
        taken[key] = [a + b for a, b in zip(before, counts)]
    everything = [count for counts in taken.values() for count in counts]
    for (header, line, shape), counts in sorted(taken.items()):
        missed = [str(i + 1) for i, count in enumerate(counts) if count == 0]
        if missed:
            print(f"  {header}:{line}: not taken: {', '.join(missed)} of {shape}")
    hit = sum(count > 0 for count in everything)
    share = 100 * hit / len(everything)
    print(f"branches: {share:.1f}% ({hit} out of {len(everything)})")
    sys.exit(0 if share >= 80 else 1)


if __name__ == "__main__":
    main()
