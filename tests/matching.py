#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Finds the tests of a build that match a regular expression, for ./dev test REGEX.

    tests/matching.py BUILD --targets REGEX   prints what has to be built for them
    tests/matching.py BUILD REGEX             prints their numbers, for ctest -I, once that is built

A test matches by its own name, or by that of its program. CTest knows the tests of a program of
GoogleTest only when that is built, so until then its source is read.
"""
import json
import re
import subprocess
import sys
from pathlib import Path

TESTS = Path(__file__).resolve().parent


def fail(sentence):
    sys.exit(f"dev: {sentence}")


def outputs(build):
    """Whatever can be built, by its path in the build directory."""
    listed = subprocess.run(["ninja", "-C", build, "-t", "targets", "all"], capture_output=True, text=True,
                            check=True).stdout
    return set(re.findall(r"^([^:\n]+): \w+_EXECUTABLE_LINKER", listed, re.M))


def plain_tests(build):
    """(name, the programs it needs) of each test that CMake itself names."""
    needs = {}
    programs = outputs(build)
    for file in build.rglob("CTestTestfile.cmake"):
        for line in file.read_text().splitlines():
            name = re.match(r"(?:add_test|set_tests_properties)\(\[=\[(.+?)\]=\]", line)
            if name:
                paths = re.findall(rf"{re.escape(str(build))}/([^\";]+)", line)
                needs.setdefault(name[1], set()).update(programs.intersection(paths))
    return needs


def google_tests(build, program):
    """The names of a program's tests, by its source and by what it said when it was last built, and
    whether there may be others: those with parameters get their names at run time."""
    names, others = set(), False
    for source in TESTS.rglob(f"{Path(program).name}.cpp"):
        for kind, suite, name in re.findall(r"^(TEST\w*|TYPED_TEST\w*)\((\w+),\s*(\w+)\)", source.read_text(), re.M):
            names.add(f"{suite}.{name}")
            others = others or kind not in ("TEST", "TEST_F")
    for listed in (build / program).parent.glob(f"{Path(program).name}[[]1[]]_tests.cmake"):
        names |= set(re.findall(r"add_test\(\[=\[(.+?)\]=\]", listed.read_text()))
        others = False
    return names, others


def targets(build, wanted):
    found, maybe = set(), set()
    for name, programs in plain_tests(build).items():
        if wanted.search(name):
            found |= programs or {None}
    for program in (p for p in outputs(build) if p.endswith("_test")):
        names, others = google_tests(build, program)
        if wanted.search(Path(program).name) or any(map(wanted.search, names)):
            found.add(program)
        elif others:
            maybe.add(program)
    return sorted(filter(None, found or maybe))


def numbers(build, wanted):
    listed = subprocess.run(["ctest", "--test-dir", build, "--show-only=json-v1"], capture_output=True, text=True,
                            check=True).stdout
    for number, test in enumerate(json.loads(listed[listed.index("{"):])["tests"], 1):
        program = Path(test.get("command", [""])[0]).name
        if wanted.search(test["name"]) and not test["name"].endswith("_NOT_BUILT") or \
                program.endswith("_test") and wanted.search(program):
            yield number


def main(arguments):
    build, regex = Path(arguments[0]).resolve(), arguments[-1]
    try:
        wanted = re.compile(regex)
    except re.error as error:
        fail(f"'{regex}' is no regular expression: {error}")
    if "--targets" in arguments:
        print(*targets(build, wanted))
        return
    found = list(numbers(build, wanted))
    if not found:
        fail(f"no test and no test program has a name that matches '{regex}'; "
             f"ctest --test-dir {arguments[0]} -N lists the tests that are built")
    print(f"{found[0]},{found[0]},1,{','.join(map(str, found))}")


if __name__ == "__main__":
    main(sys.argv[1:])
