# SPDX-License-Identifier: MIT
import os
import re

from conan import ConanFile
from conan.tools.build import check_min_cppstd
from conan.tools.files import copy, load

required_conan_version = ">=2.3"


class SingleflightConan(ConanFile):
    name = "singleflight"
    description = "Coalesces identical requests that are made at the same time"
    license = "MIT"
    topics = ("singleflight", "request-coalescing", "cache-stampede", "concurrency", "header-only")
    package_type = "header-library"
    settings = "os", "arch", "compiler", "build_type"  # for the checks only, see package_id
    exports_sources = "include/*", "LICENSE"
    no_copy_source = True
    test_package_folder = "tests/package/conan"

    def set_version(self):
        header = load(self, os.path.join(self.recipe_folder, "include/singleflight/version.hpp"))
        number = int(re.search(r"^#define SINGLEFLIGHT_VERSION (\d+)$", header, re.MULTILINE)[1])
        self.version = f"{number // 10000}.{number // 100 % 100}.{number % 100}"

    def validate(self):
        if self.settings.get_safe("compiler.cppstd"):
            check_min_cppstd(self, 20)

    def package(self):
        copy(self, "*", os.path.join(self.source_folder, "include"),
             os.path.join(self.package_folder, "include"))
        copy(self, "LICENSE", self.source_folder, os.path.join(self.package_folder, "licenses"))

    def package_id(self):
        self.info.clear()

    def package_info(self):
        self.cpp_info.bindirs = []
        self.cpp_info.libdirs = []
        if self.settings.os in ("Linux", "FreeBSD"):
            self.cpp_info.system_libs = ["pthread"]
