# SPDX-License-Identifier: BSD-3-Clause
"""The function with one fault more (controls.py), each time another one: does the check fail that is
for it? A fault that does not apply any more is a failure, as one that is not noticed, and as a check
that has no fault of its own. A few of them in the short form. Called with the top of the sources, the
top of the build tree, and, to have only these, names of faults.
"""

import datetime
import os
import shlex
import subprocess
import sys
import tempfile
import unittest

from controls import CONTROLS

TOP, BUILD, NAMES = sys.argv[1], sys.argv[2], sys.argv[3:]
PROGRAM = "test/conformance/conformance"
FEW = 4                 # of them in the short form, other ones each day


def chosen():
    if NAMES:
        return [c for c in CONTROLS if c.name in NAMES]
    if "VFN_NIGHTLY" in os.environ:
        return CONTROLS
    day = datetime.date.today().toordinal()
    return [CONTROLS[(day * FEW + i) % len(CONTROLS)] for i in range(FEW)]


def run(command, **more):
    return subprocess.run(command, cwd=BUILD, check=False, capture_output=True, text=True, **more)


class Controls(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        done = run(["ninja", "-t", "commands", PROGRAM])
        assert done.returncode == 0, done.stderr
        cls.commands = done.stdout.splitlines()

    def faulty(self, control, directory):
        """The program with another object in front of the library that has the right one."""
        with open(os.path.join(TOP, control.file), encoding="utf-8") as file:
            text = control.apply(file.read())
        place, made = os.path.join(directory, "faulty.c"), os.path.join(directory, "faulty.o")
        with open(place, "w", encoding="utf-8") as file:
            file.write(text)
        name = os.path.basename(control.file)
        line = next(c for c in self.commands if c.rstrip().endswith("/" + control.file) and
                    f"{name}.o " in c)
        words = shlex.split(line)
        objects = os.path.dirname(words[words.index("-o") + 1])
        for option, value in (("-o", made), ("-c", place), ("-MF", made + ".d")):
            words[words.index(option) + 1] = value
        words = [w for w in words if w != "-Werror"]
        done = run([*words, "-iquote", os.path.dirname(os.path.join(TOP, control.file))])
        self.assertEqual(done.returncode, 0, done.stderr)
        words = shlex.split(self.commands[-1])
        at = words.index("-o")
        program = os.path.join(directory, "conformance")
        words[at + 1:at + 2] = [program, made]
        if "vring" in objects:      # the library does not show what its files have for each other
            at = words.index("lib/vring/libvring.a")
            words[at:at + 1] = [os.path.join(objects, o) for o in os.listdir(os.path.join(BUILD, objects))
                                if o.endswith(".o") and o != f"{name}.o"]
        done = run(words)
        self.assertEqual(done.returncode, 0, done.stderr)
        return program

    def test_faults_are_noticed(self):
        for control in chosen():
            with self.subTest(control.name), tempfile.TemporaryDirectory(prefix="vfn-controls-") as directory:
                program = self.faulty(control, directory)
                for check in control.checks:
                    done = run([program, "local", check], timeout=120,
                               env={**os.environ, "CMOCKA_MESSAGE_OUTPUT": "TAP"})
                    self.assertRegex(done.stdout, f"not ok .* {check}", f"{control.name} is not noticed")

    def test_faults_apply(self):
        for control in CONTROLS:
            with self.subTest(control.name):
                with open(os.path.join(TOP, control.file), encoding="utf-8") as file:
                    control.apply(file.read())

    def test_each_check_has_a_fault(self):
        done = run([os.path.join(BUILD, PROGRAM), "--list"])
        checks = {line.split()[1] for line in done.stdout.splitlines()}
        have = {check for control in CONTROLS for check in control.checks}
        self.assertEqual(checks, have)


if __name__ == "__main__":
    unittest.main(argv=sys.argv[:1])
