# SPDX-License-Identifier: BSD-3-Clause
"""devtools/lint.sh finds what it is for, and the hook refuses a commit with it: each check with a
fault of its kind, in a copy, and without one."""

import json
import os
import shutil
import subprocess
import sys
import tempfile
import unittest

TOP = os.path.abspath(os.path.join(os.path.dirname(__file__), "..", ".."))
SPDX = "SPDX-License-Identifier: BSD-3-Clause"
GOOD_C = f"/* {SPDX} */\nint\nmain(void)\n{{\n\treturn 0;\n}}\n"

# by check: a file that it likes, one that it does not, and what it says of that
FAULTS = {
    "format": ("app/a.c", GOOD_C, GOOD_C.replace("\treturn", "    return"), "app/a.c:"),
    "tidy": ("app/a.c", GOOD_C,
             GOOD_C.replace("\treturn 0;", "\tint n = 1000;\n\tunsigned char i;\n\n"
                            "\tfor (i = 0; i < n; i++)\n\t\t;\n\treturn 0;"),
             "too-small-loop-variable"),
    "shell": ("devtools/a.sh", f"#!/usr/bin/env bash\n# {SPDX}\necho \"$1\"\n",
              f"#!/usr/bin/env bash\n# {SPDX}\necho $1\n", "SC2086"),
    "python": ("test/a.py", f"# {SPDX}\n", f"# {SPDX}\nimport os\n", "F401"),
    "spelling": ("doc/a.md", "The receiver.\n", "The " + "recie" + "ver.\n", "receiver"),
    "licence": ("app/a.c", GOOD_C, GOOD_C.replace(SPDX, "mine"), "no SPDX line"),
    "length": ("test/a.py", f"# {SPDX}\n", f"# {SPDX}\n" + "#\n" * 600, "more than 600"),
    "names": ("doc/a.md", "In a folder.\n", "In /home" + "/somebody.\n", "doc/a.md:1"),
}


def run(top, *args, **more):
    return subprocess.run(args, cwd=top, capture_output=True, text=True, check=False,
                          stdin=subprocess.DEVNULL, **more)


class Lint(unittest.TestCase):
    def setUp(self):
        self.top = tempfile.mkdtemp(prefix="vfn-lint-")
        self.addCleanup(shutil.rmtree, self.top)
        shutil.copytree(os.path.join(TOP, "devtools"), os.path.join(self.top, "devtools"),
                        ignore=shutil.ignore_patterns("__pycache__"))
        for name in (".clang-format", ".clang-tidy", ".flake8"):
            shutil.copy(os.path.join(TOP, name), self.top)
        os.mkdir(os.path.join(self.top, "build"))
        with open(os.path.join(self.top, "build", "compile_commands.json"), "w",
                  encoding="utf-8") as file:
            json.dump([{"directory": self.top, "file": "app/a.c", "command": "cc -c app/a.c"}], file)
        for args in (("init", "-q"), ("config", "user.name", "nobody"),
                     ("config", "user.email", "nobody@localhost"),
                     ("commit", "-q", "--allow-empty", "-m", "nothing"),
                     ("config", "core.hooksPath", "devtools/hooks")):
            self.assertEqual(run(self.top, "git", *args).returncode, 0)
        self.env = {**os.environ, "VFN_BUILD": os.path.join(self.top, "build")}

    def write(self, path, text):
        path = os.path.join(self.top, path)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "w", encoding="utf-8") as file:
            file.write(text)

    def lint(self, *args):
        return run(self.top, "devtools/lint.sh", *args, env=self.env)

    def test_each_check_finds_its_fault(self):
        listed = self.lint("--list").stdout.split()
        self.assertEqual(sorted(listed), sorted(FAULTS))
        for check, (path, good, bad, said) in FAULTS.items():
            with self.subTest(check):
                self.write(path, good)
                done = self.lint("--only", check, path)
                self.assertEqual((done.returncode, done.stdout), (0, ""), done.stderr)
                self.write(path, bad)
                done = self.lint("--only", check, path)
                self.assertEqual(done.returncode, 1)
                self.assertIn(said, done.stdout + done.stderr)
                self.assertIn(f"failed: {check}", done.stderr)

    def test_files_that_changed_are_found(self):
        self.write("doc/a.md", FAULTS["spelling"][2])
        self.assertEqual(self.lint("--only", "spelling").returncode, 1)

    def test_format_is_mended(self):
        path, good, bad, _ = FAULTS["format"]
        self.write(path, bad)
        self.assertEqual(self.lint("--only", "format", "--fix", path).returncode, 0)
        with open(os.path.join(self.top, path), encoding="utf-8") as file:
            self.assertEqual(file.read(), good)

    def test_wrong_usage(self):
        for args in (("--nonsense",), ("no-such-file",), ("--only",), ("--only", "nonsense")):
            self.assertEqual(self.lint(*args).returncode, 2)
        self.assertIn("usage:", self.lint("--help").stdout)

    def test_hook_refuses_what_lint_does(self):
        self.write("doc/a.md", FAULTS["spelling"][2])
        run(self.top, "git", "add", "doc/a.md")
        done = run(self.top, "git", "commit", "-qm", "a")
        self.assertNotEqual(done.returncode, 0)
        self.assertIn("failed: spelling", done.stderr)
        self.write("doc/a.md", FAULTS["spelling"][1])
        run(self.top, "git", "add", "doc/a.md")
        self.assertEqual(run(self.top, "git", "commit", "-qm", "a").returncode, 0)


class Rooms(unittest.TestCase):
    """MAINTAINERS names who looks after what: everything that is there, and nothing else."""

    def test_every_room_has_somebody(self):
        with open(os.path.join(TOP, "MAINTAINERS"), encoding="utf-8") as file:
            named = [line[2:].strip() for line in file if line.startswith("F:")]
        for path in named:
            self.assertTrue(os.path.exists(os.path.join(TOP, path)), f"{path} is not there")
        rooms = [os.path.join(top, name) for top in ("app", "drivers", "lib", "test")
                 for name in os.listdir(os.path.join(TOP, top))
                 if os.path.isdir(os.path.join(TOP, top, name)) and not name.startswith("_")]
        for room in [*rooms, "devtools", "doc", "examples"]:
            self.assertTrue(any(f"{room}/".startswith(path) or path.startswith(f"{room}/")
                                for path in named), f"nobody looks after {room}")


class Version(unittest.TestCase):
    """One place says which version this is."""

    def test_programs_and_documents_agree(self):
        if "VFN_BUILD" not in os.environ:
            self.skipTest("VFN_BUILD does not name a build")
        build = os.environ["VFN_BUILD"]
        with open(os.path.join(build, "meson-info", "intro-projectinfo.json"),
                  encoding="utf-8") as file:
            version = json.load(file)["version"]
        done = run(build, "app/vfn-vhost", "--version")
        self.assertTrue(done.stdout.startswith(f"vfn-vhost {version}, "), done.stdout)
        with open(os.path.join(TOP, "CHANGELOG.md"), encoding="utf-8") as file:
            newest = next(line for line in file if line.startswith("## "))
        self.assertEqual(newest.split()[1], version)


if __name__ == "__main__":
    unittest.main(argv=[sys.argv[0], "-v"])
