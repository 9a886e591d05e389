#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""compare.py GO CPP: what replay.go and replay.cpp have printed must be equal, line by line, but for
the intended differences, each of which must occur."""
import re
import sys

# The intended differences: the output of Go, the output of C++ in its place, and the reason.
INTENDED = [
    (r"(caller \d+: error \d+) (?:shared|alone)", r"\1",
     "Go returns an error beside the shared flag; an exception comes alone"),
    (r"(caller \d+ \(chan\): (?:value|error) \d+) (?:shared|alone)", r"\1",
     "Go's channel carries a shared flag; a std::shared_future has none"),
    (r"(caller \d+): exits", r"\1: owner_dead",
     "Go ends every goroutine that follows a loader that exits; here followers get a call_error"),
    (r"(caller \d+ \(chan\)): is never answered", r"\1: owner_dead",
     "Go leaves the channels of a loader that exits without an answer; here their futures fail"),
    (r"(caller \d+) waits for itself", r"\1 is refused",
     "Go hangs where a loader asks for its own key; here it is refused"),
    (r"(caller \d+): is never answered", r"\1: value 5 alone",
     "and so its own call goes on"),
]
# Not in the scripts: a panic in a call that has channels ends a Go program. Go's x/sync has no
# ForgetUnshared, and its Forget does not say whether there was a call.


def main():
    go, cpp = (open(name).read().splitlines() for name in sys.argv[1:3])
    occurred = [0] * len(INTENDED)
    trace = ""
    for number, (in_go, in_cpp) in enumerate(zip(go, cpp)):
        if in_go.startswith("trace "):
            trace = in_go
        if in_go == in_cpp:
            continue
        for i, (pattern, template, _) in enumerate(INTENDED):
            match = re.fullmatch(pattern, in_go)
            if match and match.expand(template) == in_cpp:
                occurred[i] += 1
                break
        else:
            sys.exit(f"{trace}, line {number + 1}:\n  Go:  {in_go}\n  C++: {in_cpp}")
    if len(go) != len(cpp):
        sys.exit(f"{trace}: Go printed {len(go)} lines, C++ {len(cpp)}")
    for count, (_, _, reason) in zip(occurred, INTENDED):
        print(f"{count:8}  {reason}")
        if count == 0:
            sys.exit("an intended difference did not occur")
    races = [line for line in cpp if line.startswith("race ")]
    if len(races) != 7:
        sys.exit(f"7 outcomes of races are possible, {len(races)} were seen")
    equal = len(go) - sum(occurred)
    print(f"{equal:8}  lines equal, {len(races)} of them the outcomes that unordered steps can have")


main()
