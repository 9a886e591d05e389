# SPDX-License-Identifier: MIT
"""The probes of a program: in the notes of its file, and, by gdb, in the program as it runs."""

import os
import re
import subprocess
import tempfile
import unittest

PROGRAM = os.environ["PROBES"]
# Behind the observer, which is the first.
ARGUMENTS = {
    "call_began": ["key", "size", "alone"], "call_ended": ["ns", "value", "followers"],
    "joined": ["key", "size", "followers"], "wait_ended": ["ns", "value"], "left": ["ns", "leaving", "began"],
    "superseded": ["key", "size", "ns"], "rejected": ["key", "size", "refusal"],
}
DEADLINE = 0  # of singleflight::leaving and singleflight::refusal


class Probes(unittest.TestCase):
    def test_are_in_the_notes_of_the_program(self):
        notes = subprocess.run(["readelf", "--notes", PROGRAM], capture_output=True, text=True, check=True).stdout
        found = {}
        for name, arguments in re.findall(r"Provider: singleflight\n\s+Name: (\w+)\n.*\n\s+Arguments: (.*)", notes):
            found[name] = len(arguments.split())
        self.assertEqual(found, {name: 1 + len(words) for name, words in ARGUMENTS.items()})

    def test_tell_a_debugger_what_happens_while_the_program_runs(self):
        commands = ["set pagination off", "set debuginfod enabled off"]
        for name, arguments in ARGUMENTS.items():
            commands += [f"break -probe-stap singleflight:{name}", "commands", "silent", f'printf "probe {name}"']
            for number, argument in enumerate(arguments, 1):
                shown = f'printf " %ld", (long)$_probe_arg{number}'
                commands += ["if $_probe_arg2 > 0", f'printf " %s", (char*)$_probe_arg{number}', "else", shown, "end"] \
                    if argument == "key" else [shown]
            commands += [r'printf "\n"', "continue", "end"]
        commands.append("run")
        script = os.path.join(self.enterContext(tempfile.TemporaryDirectory()), "commands")
        with open(script, "w", encoding="utf-8") as file:
            file.write("\n".join(commands) + "\n")
        ran = subprocess.run(["gdb", "-batch", "-nx", "-x", script, PROGRAM], capture_output=True, text=True,
                             timeout=120)
        if "ptrace: Operation not permitted" in ran.stdout + ran.stderr:
            self.skipTest("this machine lets no program be traced")
        passed = {name: [] for name in ARGUMENTS}
        for name, shown in re.findall(r"^probe (\w+) (.*)$", ran.stdout, re.M):
            words = shown.split()
            place = ARGUMENTS[name].index("ns") if "ns" in ARGUMENTS[name] else None
            if place is not None:
                self.assertGreater(int(words[place]), 0, name)
                words[place] = "ns"
            passed[name].append(" ".join(words))
        # The groups in order: of strings, the first with one who leaves, one too late and one follower, the
        # second with a call that is too old; of integers, with one who is alone; of what no probe can show.
        self.assertEqual({name: sorted(lines) for name, lines in passed.items()}, {
            "call_began": ["0 0 0", "7 0 0", "7 0 1", "template-7 10 0", "template-7 10 0", "template-7 10 0"],
            "call_ended": ["ns 1 0"] * 5 + ["ns 1 1"],
            "joined": ["template-7 10 1"] * 2,
            "wait_ended": ["ns 1"],
            "left": [f"ns {DEADLINE} 0"],
            "superseded": ["template-7 10 ns"],
            "rejected": [f"template-7 10 {DEADLINE}"],
        }, ran.stdout + ran.stderr)


if __name__ == "__main__":
    unittest.main()
