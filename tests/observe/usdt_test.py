# SPDX-License-Identifier: MIT
"""The probes of a program: in the notes of its file, and, by gdb, in the program as it runs."""

import os
import re
import subprocess
import tempfile
import unittest

PROGRAM = os.environ["PROBES"]
ARGUMENTS = {"call_began": 4, "call_ended": 4, "joined": 4, "wait_ended": 3, "left": 4,
             "superseded": 4, "rejected": 4}
WITH_KEY = ("call_began", "joined", "superseded", "rejected")


class Probes(unittest.TestCase):
    def test_are_in_the_notes_of_the_program(self):
        notes = subprocess.run(["readelf", "--notes", PROGRAM], capture_output=True, text=True, check=True).stdout
        found = {}
        for name, arguments in re.findall(r"Provider: singleflight\n\s+Name: (\w+)\n.*\n\s+Arguments: (.*)", notes):
            found[name] = len(arguments.split())
        self.assertEqual(found, ARGUMENTS)

    def test_tell_a_debugger_what_happens_while_the_program_runs(self):
        commands = ["set pagination off", "set debuginfod enabled off"]
        for name in ARGUMENTS:
            shown = '%s", (char*)$_probe_arg1' if name in WITH_KEY else '%d", (int)$_probe_arg2'
            commands += [f"break -probe-stap singleflight:{name}", "commands", "silent",
                         f'printf "probe {name} {shown}', 'printf "\\n"', "continue", "end"]
        commands.append("run")
        script = os.path.join(self.enterContext(tempfile.TemporaryDirectory()), "commands")
        with open(script, "w", encoding="utf-8") as file:
            file.write("\n".join(commands) + "\n")
        ran = subprocess.run(["gdb", "-batch", "-nx", "-x", script, PROGRAM], capture_output=True, text=True,
                             timeout=120)
        if "ptrace: Operation not permitted" in ran.stdout + ran.stderr:
            self.skipTest("this machine lets no program be traced")
        passed = re.findall(r"^probe (\w+) (.*)$", ran.stdout, re.M)
        names = [name for name, _ in passed]
        # The first group: a leader, one who leaves, one too late, a follower. The second: two leaders.
        self.assertEqual({name: names.count(name) for name in ARGUMENTS},
                         {"call_began": 3, "call_ended": 3, "joined": 2, "wait_ended": 1, "left": 1,
                          "superseded": 1, "rejected": 1}, ran.stdout + ran.stderr)
        for name, shown in passed:
            if name in WITH_KEY:
                self.assertEqual(shown, "template 7", name)
            elif name in ("call_ended", "wait_ended"):
                self.assertEqual(shown, "1", name)  # with a value
            else:
                self.assertEqual(shown, "0", name)  # leaving::deadline


if __name__ == "__main__":
    unittest.main()
