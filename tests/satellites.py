#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Checks, in seconds, what the compiler and the other tests do not see when something is renamed or added:
whatever quotes the headers, and every list that must be complete.

    tests/satellites.py [--do-not-compile]

To add a check, add an entry to one of the tables below. An entry of LISTS says what must be named (a
function that returns names) and where: a file, and the part of it, as a regular expression.
"""
import concurrent.futures
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

sys.dont_write_bytecode = True
ROOT = Path(__file__).resolve().parents[1]
HEADERS = "include/singleflight"
faults = []


def text(path):
    file = ROOT / path
    if not file.exists():
        faults.append(f"there is no {path}, which tests/satellites.py reads")
        return ""
    return file.read_text()


def found(pattern, path, what):
    """All that a pattern captures in a file. A pattern that finds nothing is out of date."""
    names = list(dict.fromkeys(re.findall(pattern, text(path), re.M | re.S)))
    if not names:
        faults.append(f"tests/satellites.py finds no {what} in {path}: change it there")
    return names


def body(path, struct):
    """The text of a struct or class, without comments."""
    whole = re.sub(r"//[^\n]*", "", text(path))
    match = re.search(rf"^(?:struct|class)[^;{{]*\b{struct}\b[^;{{]*{{(.*?)^}};", whole, re.M | re.S)
    if not match:
        faults.append(f"tests/satellites.py finds no {struct} in {path}: change it there")
    return match[1] if match else ""


def members(path, struct, kind=r"[\w:<>,& ]+"):
    """The names of the data members whose type matches."""
    lines = re.sub(r"\bSINGLEFLIGHT_\w+\([^)]*\)", "", body(path, struct))
    return re.findall(rf"^  (?!return|using|friend|enum|struct|class|static ){kind} (\w+)(?: = [^;]*| ?{{[^;]*}})?; *$", lines, re.M)


def functions(path, struct):
    """The names of the public member functions."""
    parts = re.split(r"^ (public|protected|private):", body(path, struct), flags=re.M)
    public = "".join(part for access, part in zip(parts[1::2], parts[2::2]) if access == "public")
    declared = re.findall(r"^  (?=\S)(?!static_assert|explicit|template|friend|using)[\w:<>&,\[\] ]* (\w+)\(", public, re.M)
    return list(dict.fromkeys(declared))


def enumerators(path, enum):
    """The names of the values of an enumeration."""
    match = re.search(rf"\benum (?:class )?{enum}\b[^{{]*{{(.*?)}}", re.sub(r"//[^\n]*", "", text(path)), re.S)
    return re.findall(r"(\w+)\s*(?:=[^,]*)?(?:,|$)", match[1].strip()) if match else []


def sources(*patterns):
    """All files that match, as one text."""
    return "\n".join(file.read_text() for pattern in patterns for file in sorted(ROOT.glob(pattern)))


# --- What is listed somewhere ------------------------------------------------------------------------

PRINTER = "packaging/debug/singleflight_gdb.py"
STATS, OPTIONS, GROUP = f"{HEADERS}/stats.hpp", f"{HEADERS}/options.hpp", f"{HEADERS}/group.hpp"


def presets():
    return json.loads(text("CMakePresets.json"))["configurePresets"]


def compilers():
    """Those that a preset names with a version."""
    named = {preset.get("cacheVariables", {}).get("CMAKE_CXX_COMPILER", "") for preset in presets()}
    return sorted(name for name in named if re.search(r"-\d+$", name))


def row(start):
    """The row of a table in Markdown that starts like this."""
    return rf"^\| `{re.escape(start)}[^\n]*"


INTERFACE = r"^\| `singleflight::group.*?\n\n"
SAMPLE = r"^\$1 = singleflight::group.*?= \{"
GDB = r"EXPECTED = \{.*?\}"

# (what it is, where it comes from, its names, [(where it must be named, in which part)])
LISTS = [
    ("counter", STATS, lambda: members(STATS, "group_stats", r"std::uint64_t"), [
        ("README.md", row("stats()")),
        ("docs/debugging.md", SAMPLE),
        ("tests/debug/gdb_test.py", GDB),
        ("include/singleflight/prometheus.hpp", r"void add_group.*?^  }"),
        ("tests/mutation/mutants.py", r'"group_stats": \[.*?\]'),
        (STATS, r"operator\+=.*?^  }"),
    ]),
    ("gauge", STATS, lambda: members(STATS, "group_stats", r"std::size_t"), [
        ("README.md", row("stats()")),
        ("docs/debugging.md", SAMPLE),
        ("tests/debug/gdb_test.py", GDB),
        ("include/singleflight/prometheus.hpp", r"void add_group.*?^  }"),
        (STATS, r"operator\+=.*?^  }"),
    ]),
    ("member of call_info", STATS, lambda: members(STATS, "call_info"), [
        ("README.md", row("in_flight()")),
    ]),
    ("option of a group", OPTIONS, lambda: members(OPTIONS, "group_options"), [
        ("README.md", row("group(group_options)")),
        ("docs/guide.md", r".*"),
        ("tests/{stress,faults,schedules}/", r".*"),
    ]),
    ("option of a call", OPTIONS, lambda: members(OPTIONS, "call_options"), [
        ("README.md", row("do_call(key, call_options, fn)")),
        ("docs/guide.md", r".*"),
        ("tests/{stress,faults,schedules}/", r".*"),
    ]),
    ("policy", OPTIONS, lambda: enumerators(OPTIONS, "full_policy"), [
        ("tests/mutation/mutants.py", r'"group_options": \[.*?\]'),
    ]),
    ("public member of group", GROUP, lambda: functions(GROUP, "group"), [
        ("README.md", INTERFACE),
        ("tests/{stress,faults,schedules}/", r".*"),
    ]),
    ("error", "include/", lambda: sorted(set(re.findall(r"\berrc::(\w+)", sources(f"{HEADERS}/**/*.hpp")))), [
        ("README.md", r".*"),
        (f"{HEADERS}/call_error.hpp", r".*"),
        ("tests/mutation/mutants.py", r'"errc": \[.*?\]'),
    ]),
    ("alternative", "bench/alternatives/",
     lambda: re.findall(r'"(\w+)"', "".join(re.findall(r"const char\* name\s*=[^;]*;", sources("bench/alternatives/*.hpp")))), [
        ("bench/alternatives.hpp", r"using all_alternatives.*?;"),
        ("bench/report.py", r"^NAMES = \{.*?^\}"),
    ]),
    ("row of a benchmark", "bench/*.hpp",
     lambda: re.findall(r'const char\* name = "(\w+)";', sources("bench/followed.hpp")), [
        ("bench/report.py", r"^NAMES = \{.*?^\}"),
    ]),
    ("compiler", "CMakePresets.json", compilers, [
        ("dev", r"^legs=\(.*?^\)|^libcxx=[^\n]*"),
    ]),
    ("version of a compiler", "CMakePresets.json", lambda: [name.partition("-")[2] for name in compilers()], [
        ("docs/quality.md", r"^[^\n]*clang\+\+[^\n]*libc\+\+[^\n]*"),
        ("docs/install.md", r"^[^\n]*clang\+\+[^\n]*libc\+\+[^\n]*"),
    ]),
    ("preset", "CMakePresets.json", lambda: [preset["name"] for preset in presets() if "hidden" not in preset], [
        ("dev, tests/*/run, ci.yml", r".*"),
    ]),
    ("page", "docs/", lambda: [f"{page.stem}.md" for page in sorted((ROOT / "docs").glob("*.md"))], [
        ("README.md", r"^\| \[[^\n]*"),
    ]),
    ("page", "docs/", lambda: [page.stem for page in sorted((ROOT / "docs").glob("*.md"))], [
        ("docs/site/build", r"^ORDER = [^\n]*"),
    ]),
    ("entry", "tests/", lambda: sorted(
        entry.name for entry in (ROOT / "tests").iterdir() if entry.name not in ("README.md", "__pycache__")), [
        ("tests/README.md", r".*"),
    ]),
    ("flag of the demo", "examples/stampede/flags.hpp",
     lambda: found(r'^    \{"(--\w+)", &settings', "examples/stampede/flags.hpp", "flag"), [("dev", r"^  demo [^\n]*")]),
    ("flag of the benchmarks", "bench/run.py",
     lambda: found(r'add_argument\("(--\w+)"', "bench/run.py", "flag"), [("dev", r"^  bench [^\n]*")]),
    ("flag of the outage", "examples/template_service/outage/outage.py",
     lambda: [flag for flag, rest in re.findall(r'add_argument\("(--\w+)"(.*?)\)\n', text(
         "examples/template_service/outage/outage.py"), re.S) if "SUPPRESS" not in rest], [("dev", r"^  outage [^\n]*")]),
    ("member", PRINTER, lambda: sorted(set(re.findall(
        r"""(?:\[|\.pop\(|field\.name == )["']([a-z]\w+)["']""", text(PRINTER)))), [
        ("include/", r".*"),
    ]),
]

# What need not be named in one of those places, and why.
LEFT_OUT = {
    ("docs/guide.md", "shards"),  # a question of memory, which options.hpp answers
}

# Places that are more than one file.
PLACES = {
    "include/": [f"{HEADERS}/**/*.hpp"],
    "tests/{stress,faults,schedules}/": ["tests/stress/*.[ch]pp", "tests/faults/*.[ch]pp", "tests/schedules/*.[ch]pp"],
    "dev, tests/*/run, ci.yml": ["dev", "tests/*/run", ".github/workflows/ci.yml"],
}


def check_lists():
    for what, source, names, places in LISTS:
        names = names()
        if not names:
            faults.append(f"tests/satellites.py finds no {what} in {source}: change it there")
        for place, part in places:
            whole = sources(*PLACES[place]) if place in PLACES else text(place)
            matches = list(re.finditer(part, whole, re.M | re.S))
            parts = [match.group() for match in matches]
            if not parts:
                faults.append(f"{place} has nothing like {part!r}, where each {what} is to be named; "
                              "write it, or change tests/satellites.py")
                continue
            at = f":{whole.count(chr(10), 0, matches[0].start()) + 1}" if place not in PLACES and part != ".*" else ""
            for name in names:
                # gdb's printer and metrics have "in flight" and "in_flight_total" for in_flight.
                word = re.escape(name).replace("_", "[_ ]")
                if (place, name) not in LEFT_OUT and not any(re.search(rf"(?<![\w-]){word}(?![\w-])", p) for p in parts):
                    faults.append(f"{place}{at} does not name the {what} {name}, which {source} has; "
                                  "add it in the first, or take it out of the second")


# --- What quotes the headers -------------------------------------------------------------------------

# Each checks by `run --check` what it alone can read: keys of mutants, patches, scripts, names.
PARTS = ["mutation", "schedules", "differential", "model"]

# What uses the headers and is built by ./dev verify alone.
COMPILED = ["tests/schedules/world.cpp", "tests/schedules/scenarios.cpp", "tests/schedules/rows.cpp", "tests/schedules/explorer.cpp",
            "tests/stress/stress.cpp", "tests/differential/replay.cpp", "tests/fuzz/fuzz.cpp",
            "tests/fuzz/fleet_fuzz.cpp"]


def check_part(name):
    done = subprocess.run([ROOT / "tests" / name / "run", "--check"], stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                          text=True, check=False)
    if done.returncode != 0:
        return done.stdout.strip().splitlines() or [f"tests/{name}/run --check ended with {done.returncode}"]
    return []


def check_compiles(name):
    done = subprocess.run(["g++", "-std=c++20", "-fsyntax-only", "-w", "-Iinclude", "-Itests/schedules", name], cwd=ROOT,
                          capture_output=True, text=True, check=False)
    errors = [line for line in done.stderr.splitlines() if "error:" in line]
    return [f"{name} does not compile with the headers: {error}" for error in errors[:1]]


def check_code_in_pages():
    sys.path.append(str(ROOT / "examples/template_service/outage"))
    import report
    if report.code() not in text("docs/outage.md"):
        faults.append("docs/outage.md does not show the code of examples/template_service/template_reader.hpp; run "
                      "python3 examples/template_service/outage/report.py")


def check_twins():
    """asio.hpp is boost_asio.hpp with other names."""
    def bare(name, *names):
        code = re.sub(r"//[^\n]*", "", text(f"{HEADERS}/{name}")).partition("associated_allocator.hpp>")[2]
        for old, new in names:
            code = code.replace(old, new)
        return re.sub(r"\s+", "", code)
    if bare("asio.hpp", ("::asio::", "asio::")) != bare(
            "boost_asio.hpp", ("boost/asio/", "asio/"), ("boost::asio::", "asio::"),
            ("BOOST_ASIO_", "ASIO_"), ("boost_asio", "standalone_asio")):
        faults.append(f"{HEADERS}/asio.hpp and boost_asio.hpp differ in more than names; change both")


# --- What names tests --------------------------------------------------------------------------------


def check_names_of_tests():
    for name in re.findall(r"`([^`/]+)`", "".join(re.findall(r"^\| (`[^|]*)", text("tests/README.md"), re.M))):
        if not (ROOT / "tests" / name).exists():
            faults.append(f"tests/README.md names {name}, which is not there; take it out")
    full_names = set(re.findall(r"^(?:TYPED_)?TEST\w*\((\w+),\s*(\w+)\)", sources("tests/**/*_test.cpp"), re.M))
    suites, tests = ({name[part] for name in full_names} for part in (0, 1))
    for page in ("docs/quality.md", "docs/design.md"):
        for suite, test in re.findall(r"`([A-Z]\w+)\.([A-Z]\w+)`", text(page)):
            if suite not in suites or test not in tests:
                faults.append(f"{page} names the test {suite}.{test}, which is not there; write its name of today")
    for left_out in found(r'r"([^"]+)":', "tests/portability/run", "tests that are left out"):
        if not any(re.match(left_out, ".".join(name)) for name in full_names):
            faults.append(f"tests/portability/run leaves out {left_out}, which is no test; write its name of today")


def main():
    check_lists()
    check_code_in_pages()
    check_twins()
    check_names_of_tests()
    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        jobs = [pool.submit(check_part, name) for name in PARTS]
        if "--do-not-compile" not in sys.argv[1:] and shutil.which("g++"):
            jobs += [pool.submit(check_compiles, name) for name in COMPILED]
        for job in jobs:
            faults.extend(job.result())
    for fault in faults:
        print(f"satellites: {fault}")
    sys.exit(1 if faults else 0)


if __name__ == "__main__":
    main()
