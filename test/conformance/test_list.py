# SPDX-License-Identifier: BSD-3-Clause
"""doc/conformance.md names exactly the checks that there are: conformance --list and the page are
compared, both ways. Called with the program and the page."""

import re
import subprocess
import sys
import unittest

PROGRAM, PAGE = sys.argv[1:3]


def rows(page):
    """(section, name) of each check that a row of the page's tables names, and sections with one."""
    for line in page.splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if not line.startswith("|") or len(cells) != 3 or cells[0] in ("section", "---"):
            continue
        names = re.findall(r"`(\w+)`", cells[2])
        if not names and len(cells[2]) < 10:
            raise ValueError(f"neither a check nor a reason: {line}")
        for name in names:
            yield cells[0], name


def differences(checks, page):
    told = set(rows(page))
    names = {name for _, name in told}
    for section, name in checks:
        if name not in names:
            yield f"{name} is on no row of the page"
        elif (section, name) not in told:
            yield f"{name} is a check of {section}, and on no row of that"
    for name in sorted(names - {name for _, name in checks}):
        yield f"there is no check {name}"


class List(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        out = subprocess.run([PROGRAM, "--list"], check=True, capture_output=True, text=True).stdout
        cls.checks = [tuple(line.split()) for line in out.splitlines()]
        with open(PAGE, encoding="utf-8") as file:
            cls.page = file.read()

    def test_page_and_program_agree(self):
        self.assertEqual(list(differences(self.checks, self.page)), [])

    def test_names_are_unique(self):
        names = [name for _, name in self.checks]
        self.assertEqual(sorted(set(names)), sorted(names))

    def test_a_check_that_is_not_there_is_noticed(self):
        page = self.page + "\n| 2.1 | what | `no_such_check` |\n"
        self.assertEqual(list(differences(self.checks, page)), ["there is no check no_such_check"])

    def test_a_check_that_is_not_told_is_noticed(self):
        for section, name in self.checks:
            page = self.page.replace(f"`{name}`", "as this is a reason")
            self.assertEqual(list(differences(self.checks, page)), [f"{name} is on no row of the page"])
            self.assertEqual(list(differences(self.checks + [("9.9", name)], self.page)),
                             [f"{name} is a check of 9.9, and on no row of that"], section)

    def test_a_row_without_a_reason_is_noticed(self):
        with self.assertRaises(ValueError):
            list(rows(self.page + "\n| 2.1 | what | |\n"))


if __name__ == "__main__":
    unittest.main(argv=sys.argv[:1])
