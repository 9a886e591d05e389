#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Takes the library in as a user's project would, builds that project and runs it.

usage: consume.py WAY SOURCE_DIR BUILD_DIR SCRATCH_DIR

What the project contains is what docs/install.md shows for that way. BUILD_DIR is where singleflight
is configured. The environment says CMAKE, CXX and CXXFLAGS. Exits with 77 where a tool is missing.
"""
import functools
import json
import os
import pathlib
import py_compile
import re
import shutil
import subprocess
import sys

WAY = sys.argv[1]
SOURCE, BUILD, SCRATCH = (pathlib.Path(argument).resolve() for argument in sys.argv[2:5])
HERE = SOURCE / "tests/package"
CMAKE = os.environ["CMAKE"]
PREFIX = SCRATCH / "a prefix"  # with a space, to see it quoted
RAN = "8 callers, 1 call"


class Skip(Exception):
    pass


def run(*command, cwd=SCRATCH, **environment):
    """Runs it and returns what it printed; a command that is one string goes to the shell."""
    print("$", *command, flush=True)
    shell = len(command) == 1 and isinstance(command[0], str)
    done = subprocess.run(command[0] if shell else command, cwd=cwd, shell=shell, text=True,
                          env={**os.environ, **{k: str(v) for k, v in environment.items()}},
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    print(done.stdout, flush=True)
    if done.returncode != 0:
        sys.exit(f"exit code {done.returncode}")
    return done.stdout


def expect(true, otherwise):
    if not true:
        sys.exit(otherwise)


def tool(*names):
    for name in names:
        if shutil.which(name):
            return name
    raise Skip(f"{names[0]} is not there")


@functools.lru_cache
def version():
    text = (SOURCE / "include/singleflight/version.hpp").read_text()
    number = int(re.search(r"^#define SINGLEFLIGHT_VERSION (\d+)$", text, re.MULTILINE)[1])
    return number // 10000, number // 100 % 100, number % 100


def dotted():
    return "{}.{}.{}".format(*version())


def shown(heading, language, nth=0):
    """The code that docs/install.md shows in that language below that heading."""
    page = (SOURCE / "docs/install.md").read_text()
    section = re.search(rf"^## {re.escape(heading)}\n(.*?)(?=^## |\Z)", page, re.M | re.S)
    return re.findall(rf"^```{language}\n(.*?)^```", section[1], re.M | re.S)[nth]


def write(name, text):
    file = SCRATCH / name
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)


def sources(include="#include <singleflight/group.hpp>"):
    """Two translation units that use the library."""
    for name in ("main.cpp", "other_unit.cpp"):
        text = (HERE / name).read_text()
        if include.startswith("import"):  # behind all that is included
            text = text.replace("#include <singleflight/group.hpp>\n", "")
            text = text.replace("\nstd::string ask(", f"\n{include}\n\nstd::string ask(", 1)
        write(name, text.replace("#include <singleflight/group.hpp>", include))


def run_program(directory=SCRATCH):
    expect(run(directory / "your_program") == RAN + "\n", f"the program did not say: {RAN}")


def by_hand(commands):
    """Runs the commands of the page, with both translation units."""
    run(commands.replace(" main.cpp", " main.cpp other_unit.cpp"))
    run_program()


def cmake_project(snippet, *arguments, include="#include <singleflight/group.hpp>"):
    """Configures, builds and runs a project that contains the snippet."""
    sources(include)
    write("CMakeLists.txt", "cmake_minimum_required(VERSION 3.25...3.28)\n"
                            "project(your_program LANGUAGES CXX)\n"
                            "add_executable(your_program main.cpp other_unit.cpp)\n" + snippet)
    build = SCRATCH / "build"
    run(CMAKE, "-S", SCRATCH, "-B", build, "-G", "Ninja", "-D", "CMAKE_BUILD_TYPE=Debug", *arguments)
    run(CMAKE, "--build", build)
    run_program(build)


def without_side_effects(snippet, *arguments):
    cmake_project(snippet, "-D", f"CMAKE_PROJECT_TOP_LEVEL_INCLUDES={HERE / 'nothing_else.cmake'}",
                  *arguments)
    run(CMAKE, "--install", SCRATCH / "build", "--prefix", PREFIX)
    expect(not PREFIX.exists(), "singleflight installs itself together with its user")


def install():
    run(CMAKE, "--install", BUILD, "--prefix", SCRATCH / "first")
    shutil.move(SCRATCH / "first", PREFIX)  # the tree can be moved


# --- The ways ---------------------------------------------------------------------------------------


def subdirectory():
    copy = SCRATCH / "singleflight"
    for part in ("CMakeLists.txt", "packaging", "include"):  # nothing else is needed
        run(CMAKE, "-E", "copy" if (SOURCE / part).is_file() else "copy_directory", SOURCE / part,
            copy / part)
    without_side_effects(shown("CMake subdirectory", "cmake"))


def fetch_content():
    without_side_effects(shown("CMake FetchContent", "cmake"),
                         "-D", f"FETCHCONTENT_SOURCE_DIR_SINGLEFLIGHT={SOURCE}")


def cpm():
    if not os.environ.get("CPM_FILE"):
        raise Skip("CPM_FILE does not name CPM.cmake")
    shutil.copy(os.environ["CPM_FILE"], SCRATCH / "CPM.cmake")
    cmake_project(shown("CPM", "cmake"), "-D", f"CPM_singleflight_SOURCE={SOURCE}")


def cmake_package():
    install()
    cmake_project(shown("CMake package", "cmake"), "-D", f"CMAKE_PREFIX_PATH={PREFIX}")


def versions_accepted_and_refused():
    install()
    major, minor, patch = version()
    ours, next_minor = f"{major}.{minor}", f"{major}.{minor + 1}"
    accepted = [f"{major}", ours, f"{dotted()} EXACT", f"{ours}...<{next_minor}"]
    refused = [f"{major + 1}", next_minor, f"{ours}.{patch + 1}", f"{ours} EXACT" if patch else None,
               f"{next_minor}...<{major}.{minor + 2}", f"{major + 1}...<{major + 2}",
               f"{ours}...{major + 2}"]
    lines = ["cmake_minimum_required(VERSION 3.25)", "project(wants LANGUAGES CXX)",
             "set(CMAKE_SIZEOF_VOID_P 2)  # the package is for every architecture"]
    for wanted, found in [(w, True) for w in accepted] + [(w, False) for w in refused if w]:
        lines += [f"find_package(singleflight {wanted} QUIET)",
                  f"if({'NOT ' if found else ''}singleflight_FOUND)",
                  f'  message(SEND_ERROR "{wanted} is {"refused" if found else "accepted"}")',
                  "endif()",
                  'if(NOT singleflight_CONSIDERED_VERSIONS MATCHES "^[0-9.;]+$")',
                  '  message(SEND_ERROR "the package was not looked at")',
                  "endif()", "unset(singleflight_DIR CACHE)"]
    write("CMakeLists.txt", "\n".join(lines))
    run(CMAKE, "-S", SCRATCH, "-B", SCRATCH / "build", "-D", f"CMAKE_PREFIX_PATH={PREFIX}")


def pkg_config():
    tool("pkg-config")
    install()
    sources()
    os.environ["PKG_CONFIG_PATH"] = str(PREFIX / "share/pkgconfig")
    expect(run("pkg-config", "--modversion", "singleflight") == dotted() + "\n", "wrong version")
    # The shell splits what pkg-config says at spaces, so no prefix of that command may have one.
    (SCRATCH / "prefix").symlink_to(PREFIX)
    os.environ["PKG_CONFIG_PATH"] = str(SCRATCH / "prefix/share/pkgconfig")
    by_hand(shown("pkg-config", "sh"))


def debian_package():
    tool("dpkg-deb")
    packages = SCRATCH / "packages"
    run("cpack", "--config", BUILD / "CPackConfig.cmake", "-G", "DEB", "-B", packages)
    name = re.search(r"build/package/(\S+)", shown("Debian package", "sh"))[1]
    shutil.copy(packages / name, BUILD / name)
    expect("Architecture: all" in run("dpkg-deb", "-f", BUILD / name), "not for every architecture")
    run("dpkg-deb", "-x", BUILD / name, PREFIX)

    def below(directory):
        return {file.relative_to(directory) for file in directory.rglob("*") if file.is_file()}

    expect(below(PREFIX / "usr/include") == below(SOURCE / "include"), "headers are missing")
    for page in ("README.md", "copyright", "docs/install.md"):
        expect((PREFIX / "usr/share/doc/singleflight" / page).exists(), f"{page} is missing")
    snippet = shown("CMake package", "cmake")
    cmake_project(snippet, "-D", f"CMAKE_PREFIX_PATH={PREFIX / 'usr'}")
    if os.environ.get("INSTALL_DEB"):
        as_root = [] if os.geteuid() == 0 else ["sudo"]
        run(*as_root, "dpkg", "-i", BUILD / name)
        try:
            shutil.rmtree(SCRATCH / "build")
            cmake_project(snippet)
            by_hand(shown("pkg-config", "sh"))
        finally:
            run(*as_root, "dpkg", "-r", "singleflight")


def one_file():
    run(sys.executable, SOURCE / "packaging/amalgamate", SCRATCH / "singleflight.hpp")
    text = (SCRATCH / "singleflight.hpp").read_text()
    expect(not re.search(r'^#\s*include\s*"', text, re.M), "the single header needs another one")
    expect(dotted() in text.splitlines()[1], "the single header does not begin with its version")
    expect("Permission is hereby granted" in text, "the single header does not bring its licence")
    sources('#include "singleflight.hpp"')
    by_hand(shown("One file", "sh"))


def one_file_beside_the_others():
    """A program may get the single header from one of its libraries, the others from another."""
    run(sys.executable, SOURCE / "packaging/amalgamate", SCRATCH / "singleflight.hpp")
    both = '#include "singleflight.hpp"\n#include <singleflight/group.hpp>'
    sources("\n".join([both, *both.splitlines()[::-1]]))
    by_hand(shown("One file", "sh").replace("c++", f"c++ -I{SOURCE}/include", 1))


def module_by_hand():
    compiler = tool("clang++-19", "clang++-20", "clang++-18")
    commands = shown("C++20 module", "sh").replace("clang++", compiler)
    (SCRATCH / "singleflight").symlink_to(SOURCE / "include/singleflight")
    sources("import singleflight;")
    by_hand(commands)
    if "libc++" in run(f"echo '#include <version>' | {compiler} -stdlib=libc++ -x c++ -E - "
                       "2>&1 || true"):
        by_hand(commands.replace("-std=c++20", "-std=c++20 -stdlib=libc++"))


def module_by_cmake():
    install()
    snippet = shown("C++20 module", "cmake")
    prefix = ("-D", f"CMAKE_PREFIX_PATH={PREFIX}")
    current = re.search(r"version (\d+)\.(\d+)", run(CMAKE, "--version"))
    if (int(current[1]), int(current[2])) < (3, 28):
        write("CMakeLists.txt", "cmake_minimum_required(VERSION 3.25)\nproject(p LANGUAGES CXX)\n"
                                "add_executable(your_program main.cpp)\n" + snippet)
        sources()
        said = run(f'"{CMAKE}" -S . -B old "-DCMAKE_PREFIX_PATH={PREFIX}" || echo refused')
        expect("the C++20 module needs CMake 3.28" in " ".join(said.split()) and "refused" in said,
               "an old CMake is not told why it cannot build the module")
        raise Skip("this CMake is older than 3.28, and is told so")
    compiler = tool("clang++-19", "clang++-20", "clang++-18")
    tool(compiler.replace("clang++", "clang-scan-deps"))
    cmake_project(snippet, "-D", f"CMAKE_CXX_COMPILER={compiler}", *prefix,
                  include="import singleflight;")
    shutil.rmtree(SCRATCH / "build")
    cmake_project(f"set(SINGLEFLIGHT_MODULE ON)\nadd_subdirectory({SOURCE} singleflight)\n"
                  + snippet.splitlines()[-1], "-D", f"CMAKE_CXX_COMPILER={compiler}",
                  include="import singleflight;")


def meson():
    tool("meson")
    sources()
    snippet = shown("Meson", "meson").replace("'main.cpp'", "'main.cpp', 'other_unit.cpp'")
    write("meson.build", "project('your_program', 'cpp', default_options: ['cpp_std=c++20'])\n"
          + snippet)
    (SCRATCH / "subprojects").mkdir()
    (SCRATCH / "subprojects/singleflight").symlink_to(SOURCE)
    run("meson", "setup", "build")
    run("meson", "compile", "-C", "build")
    run_program(SCRATCH / "build")
    # Installed by Meson itself, and found by the same snippet.
    prefix = SCRATCH / "prefix"
    run("meson", "setup", f"--prefix={prefix}", "own", SOURCE)
    run("meson", "install", "-C", "own")
    shutil.rmtree(SCRATCH / "subprojects")
    run("meson", "setup", "installed", PKG_CONFIG_PATH=prefix / "share/pkgconfig")
    run("meson", "compile", "-C", "installed")
    run_program(SCRATCH / "installed")


def bazel():
    tool("bazel")
    sources()
    (SCRATCH / "third_party").mkdir()
    (SCRATCH / "third_party/singleflight").mkdir()
    for part in ("include", "BUILD.bazel", "MODULE.bazel"):
        (SCRATCH / "third_party/singleflight" / part).symlink_to(SOURCE / part)
    program = shown("Bazel", "starlark", 1)
    write("BUILD.bazel", program.replace('"main.cpp"', '"main.cpp", "other_unit.cpp"'))
    start = ("bazel", f"--output_user_root={SCRATCH / 'cache'}")
    debian = "no_version" in run("bazel", "--version")  # before modules; builds only with a network
    if debian:
        write("rules_cc/WORKSPACE", "")
        write("rules_cc/cc/BUILD", "")
        write("rules_cc/cc/defs.bzl",
              "cc_binary = native.cc_binary\ncc_library = native.cc_library\n")
        write("WORKSPACE", 'local_repository(name = "rules_cc", path = "rules_cc")\n'
              'new_local_repository(name = "singleflight", path = "third_party/singleflight",\n'
              '    build_file = "third_party/singleflight/BUILD.bazel")\n')
    else:
        write("MODULE.bazel", shown("Bazel", "starlark")
              + 'bazel_dep(name = "rules_cc", version = "0.1.1")\n')
    write(".bazelignore", "third_party\nrules_cc\n")
    try:
        if debian:
            needed = run(*start, "query", "labels(hdrs, labels(deps, //:your_program))")
            expect("@singleflight//:include/singleflight/group.hpp" in needed, "no header is found")
            raise Skip("this is Debian's Bazel; it has loaded the rules and could build nothing")
        run(*start, "build", "--cxxopt=-std=c++20", "//:your_program")
        run_program(SCRATCH / "bazel-bin")
    finally:
        run(*start, "shutdown")
        run("chmod", "-R", "u+w", SCRATCH / "cache")  # Bazel's files are read-only, else kept


def vcpkg():
    root = os.environ.get("VCPKG_INSTALLATION_ROOT")
    if not root:
        raise Skip("VCPKG_INSTALLATION_ROOT does not say where vcpkg is")
    installed = SCRATCH / "installed"
    command = shown("vcpkg", "sh").split()[1:]
    run(pathlib.Path(root) / "vcpkg", *command, "--no-binarycaching",
        f"--x-install-root={installed}", cwd=SOURCE)
    toolchain = pathlib.Path(root) / "scripts/buildsystems/vcpkg.cmake"
    cmake_project(shown("CMake package", "cmake"), "-D", f"CMAKE_TOOLCHAIN_FILE={toolchain}",
                  "-D", f"VCPKG_INSTALLED_DIR={installed}")


def vcpkg_dry_run():
    json.loads((SOURCE / "packaging/vcpkg/singleflight/vcpkg.json").read_text())
    run(CMAKE, "-D", f"SOURCE_DIR={SOURCE}", "-D", f"PREFIX={PREFIX}",
        "-D", f"BUILD_DIR={SCRATCH / 'port'}", "-P", HERE / "vcpkg_dry_run.cmake")
    expect((PREFIX / "share/singleflight-copyright").exists(), "the port installs no licence")
    cmake_project(shown("CMake package", "cmake"), "-D", f"CMAKE_PREFIX_PATH={PREFIX}")


def conan():
    for recipe in (SOURCE / "conanfile.py", HERE / "conan/conanfile.py"):
        py_compile.compile(str(recipe), cfile=str(SCRATCH / "compiled"), doraise=True)
    tool("conan")
    os.environ["CONAN_HOME"] = str(SCRATCH / "home")
    run("conan", "profile", "detect")
    for part in ("include", "tests/package"):  # a copy: the test package is built in its own folder
        shutil.copytree(SOURCE / part, SCRATCH / "recipe" / part)
    for part in ("conanfile.py", "LICENSE"):
        shutil.copy(SOURCE / part, SCRATCH / "recipe")
    said = run(shown("Conan", "sh"), cwd=SCRATCH / "recipe")
    expect(RAN in said, f"the test package did not say: {RAN}")
    expect(f"singleflight/{dotted()}" in said, "wrong version")


try:
    shutil.rmtree(SCRATCH, ignore_errors=True)
    SCRATCH.mkdir(parents=True)
    globals()[WAY]()
    shutil.rmtree(SCRATCH)  # after a failure it stays, to be looked at
except Skip as missing:
    shutil.rmtree(SCRATCH)
    print(f"skipped: {missing}")
    sys.exit(77)
