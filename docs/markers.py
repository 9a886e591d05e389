# SPDX-License-Identifier: MIT
"""Writes figures into a page, between <!-- NAME:SECTION --> and <!-- /NAME:SECTION -->, and changes
nothing else of it."""
import sys


def fill(page, name, sections):
    """Puts each section between its markers."""
    text = page.read_text()
    for section, content in sections.items():
        begin, end = f"<!-- {name}:{section} -->\n", f"<!-- /{name}:{section} -->"
        before, found, rest = text.partition(begin)
        if not found or end not in rest:
            sys.exit(f"{page} has no markers {begin.strip()} and {end}")
        text = before + begin + "\n" + content.strip() + "\n\n" + end + rest.partition(end)[2]
    page.write_text(text)
