#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Compiles each expression of the natvis file against the headers: natvis_test.py COMPILER ...

No Visual Studio is needed: the members of Microsoft's standard library that it names become what they
hold in any.
"""
import re
import subprocess
import sys
import xml.etree.ElementTree as xml
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
SPACE = "{http://schemas.microsoft.com/vstudio/debugger/natvis/2010}"
PORTABLE = {
    "._Mypair._Myval2": ".get()",  # of unique_ptr
    "._Has_value": ".has_value()",  # of optional
    "._Value": ".value()",
    "._Id": "",  # of thread::id
}


def expressions(visualised):
    """The C++ of one visualised type, in its order, and the variables that it declares."""
    for element in visualised.iter():
        tag, text = element.tag.removeprefix(SPACE), element.text or ""
        in_braces = re.findall(r"\{([^}]*)\}", element.attrib.get("Name", "") if tag == "Item" else text)
        if tag == "Variable":
            yield element.attrib["Name"], element.attrib["InitialValue"]
            continue
        if "Condition" in element.attrib:
            yield None, element.attrib["Condition"]
        if tag in ("DisplayString", "Item"):
            yield from ((None, expression) for expression in in_braces)
        if tag != "DisplayString" and not len(element) and text.strip():
            yield None, text


def function(number, visualised):
    """A function that evaluates all of them on an object of the type."""
    of = visualised.attrib["Name"].replace("<*,*,*,*>", "<int,int>").replace("*", "int")
    lines, variables = [], {"nullptr"}
    for name, expression in expressions(visualised):
        for microsoft, portable in PORTABLE.items():
            expression = expression.replace(microsoft, portable)
        expression = re.sub(
            r"(?<![\w.>])[A-Za-z_]\w*", lambda word: word[0] if word[0] in variables else f"self.{word[0]}", expression)
        lines.append(f"auto {name} = {expression};" if name else f"(void)({expression});")
        variables.add(name)
    return f"void look_{number}({of}& self) {{\n  (void)self;\n  " + "\n  ".join(lines) + "\n}\n"


def main():
    types = list(xml.parse(ROOT / "packaging/debug/singleflight.natvis").getroot().iter(SPACE + "Type"))
    code = "#include <singleflight/group.hpp>\n" + "".join(map(function, range(len(types)), types))
    if code.count(";") < 20:
        sys.exit(f"that is too little to be all of it:\n{code}")
    compiled = subprocess.run(
        [*sys.argv[1:], "-w", "-std=c++20", "-fsyntax-only", "-fno-access-control", "-I", ROOT / "include", "-x", "c++", "-"],
        input=code, text=True)
    if compiled.returncode != 0:
        sys.exit("packaging/debug/singleflight.natvis does not fit the headers")


if __name__ == "__main__":
    main()
