#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""The version is written in version.hpp. Whatever else names one must agree: the newest entry of the
changelog, the pages and packages, and the tag of this commit if it has one.
"""
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
HEADER = "include/singleflight/version.hpp"
CHANGELOG = "docs/changelog.md"
NUMBER = r"(\d+\.\d+(?:\.\d+)?)\b"
MENTIONS = [
    r"(?<![\w/.-])singleflight(?:/|@|-|_| v?| >=? )" + NUMBER,
    r"find_package\(singleflight " + NUMBER,
    r"singleflight_(\d+\.\d+\.\d+)_",  # the .deb
    r'bazel_dep\(name = "singleflight", version = "' + NUMBER,
    r"CPMAddPackage[^)]*VERSION " + NUMBER,
    r"GIT_TAG v?" + NUMBER,
    r"GIT_REPOSITORY [^\n]*singleflight[^\n]*#v?" + NUMBER,
]
MANIFESTS = [
    r"""^\s*"?version(?:-semver|-string)?"?\s*[:=]\s*["']""" + NUMBER,  # vcpkg, Conan, Meson, Bazel
    r"^Version: " + NUMBER,  # pkg-config
]
PAGES = ["README.md", "docs/*.md", "examples/*", ".github/*"]
PACKAGES = ["packaging/*", "conanfile.py", "vcpkg.json", "meson.build", "MODULE.bazel", "*.pc.in"]


def git(*arguments):
    return subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True, check=True).stdout.split()


def the_version():
    number = int(re.search(r"^#define SINGLEFLIGHT_VERSION (\d+)$", (ROOT / HEADER).read_text(), re.M)[1])
    return f"{number // 10000}.{number // 100 % 100}.{number % 100}"


def mentions(patterns, files):
    """Where the files name a version of this project, and which."""
    for file in files:
        text = (ROOT / file).read_text(errors="replace")
        for match in (match for pattern in patterns for match in re.finditer(pattern, text, re.M)):
            yield f"{file}:{text.count(chr(10), 0, match.start()) + 1}", match[1]


def main():
    version = the_version()
    entry = re.search(r"^## (\d+\.\d+\.\d+), (.+)$", (ROOT / CHANGELOG).read_text(), re.M)
    if entry is None:
        sys.exit(f"{CHANGELOG} has no entry `## X.Y.Z, date`")
    pages = [file for file in git("ls-files", *PAGES) if file != CHANGELOG]
    named = [(CHANGELOG, entry[1]), *mentions(MENTIONS, pages), *mentions(MENTIONS + MANIFESTS, git("ls-files", *PACKAGES))]
    named += [(f"tag {tag}", tag[1:]) for tag in git("tag", "--points-at", "HEAD", "v*")]
    faults = [f"{where} says {other}" for where, other in named if not f"{version}.".startswith(f"{other}.")]
    if any(where.startswith("tag") for where, _ in named) and not re.fullmatch(r"\d{4}-\d\d-\d\d", entry[2]):
        faults.append(f"{CHANGELOG}: the newest entry is tagged and has no date")
    for fault in faults:
        print(f"{HEADER} says {version}, but {fault}", file=sys.stderr)
    print(f"version {version}; places compared: {len(named)}")
    sys.exit(1 if faults else 0)


if __name__ == "__main__":
    main()
