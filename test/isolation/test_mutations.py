# SPDX-License-Identifier: BSD-3-Clause
"""The gate with one check less (mutations.py), each time another one: does the suite notice? One that does
not apply any more is a failure, as one that nobody notices. A few of them in the short form.
"""

import os
import shlex
import shutil
import subprocess

import pytest

import attacks_memory       # noqa: F401  pylint: disable=unused-import
import attacks_messages     # noqa: F401  pylint: disable=unused-import
import attacks_room         # noqa: F401  pylint: disable=unused-import
import attack
from arena import Arena
from harness import NIGHTLY, build_dir, remarks
from mutations import MUTATIONS
from oracle import try_all
from pmd import ROOT, PmdError
from table import rows

GATE = os.path.join(ROOT, "lib", "gate")
FEW = 3                 # of them in the short form, other ones each day of the week
OBJECTS = "lib/gate/libgate.a.p/"


def commands(target):
    """How ninja would build it, and what goes into it."""
    return subprocess.run(["ninja", "-C", build_dir(), "-t", "commands", target], check=True,
                          capture_output=True, text=True).stdout.splitlines()


def run(command):
    done = subprocess.run(command, cwd=build_dir(), check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


class Mutant:
    """A build directory with another gate: the server, and the judge's unit tests."""

    UNITS = ("test/unit/test_gate_judge", "test/unit/test_gate_rings")
    TARGETS = ("app/vfn-vhost", *UNITS)

    def __init__(self, mutation, directory):
        self.mutation, self.directory = mutation, directory
        self.compile()
        for target in self.TARGETS:
            self.link(target)
        for name in ("drivers", "test/isolation"):
            place = os.path.join(directory, name)
            os.makedirs(os.path.dirname(place), exist_ok=True)
            os.symlink(os.path.join(build_dir(), name), place)

    def compile(self):
        """The file that is another one, among copies of those beside it."""
        sources = os.path.join(self.directory, "gate")
        shutil.copytree(GATE, sources)
        place = os.path.join(sources, self.mutation.file)
        with open(place, encoding="utf-8") as source:
            text = source.read()
        with open(place, "w", encoding="utf-8") as source:
            source.write(self.mutation.apply(text))
        name = f"{OBJECTS}{self.mutation.file}.o"
        line = next(c for c in commands(self.TARGETS[0]) if f"-o {name} " in c)
        words = shlex.split(line)
        self.object = os.path.join(self.directory, "mutant.o")
        for option, value in (("-o", self.object), ("-c", place), ("-MF", self.object + ".d")):
            words[words.index(option) + 1] = value
        run([*(w for w in words if w != "-Werror"), f"-I{sources}"])

    def link(self, target):
        words = shlex.split(commands(target)[-1])
        objects = [os.path.join(OBJECTS, n) for n in os.listdir(os.path.join(build_dir(), OBJECTS))
                   if n.endswith(".o")]
        same = f"{OBJECTS}{self.mutation.file}.o"
        at = words.index("lib/gate/libgate.a")
        words[at:at + 1] = [self.object if o == same else o for o in objects]
        place = words[words.index("-o") + 1] = os.path.join(self.directory, target)
        os.makedirs(os.path.dirname(place), exist_ok=True)
        run(words)

    def unit_notices(self):
        return any(subprocess.run([os.path.join(self.directory, unit)], check=False,
                                  capture_output=True, timeout=120).returncode
                   for unit in self.UNITS)

    def suite_notices(self, zoo):
        """What is taken that is wrong, or what an attack does; None if nothing is."""
        by_name = {row.name: request for request, row in rows().items()}
        setting = attack.SPLIT
        a = Arena(setting, os.path.join(self.directory, "run"), zoo)
        try:
            taken, _ = try_all(a, zoo, [by_name[name] for name in self.mutation.requests])
            if taken:
                return taken[0]
            if left := a.left_to_the_library():
                return f"{left} messages left to the library"
            for name in self.mutation.attacks:
                attack.named(name)(a)
                a.check()
                a.stack.close()
                a.settled()
            a.check()
            return None
        except (AssertionError, PmdError, OSError) as error:
            lines = [n for n in str(error).splitlines() if n.strip()]
            return lines[0] if lines else type(error).__name__
        finally:
            a.kill()


def chosen():
    if NIGHTLY:
        return MUTATIONS
    day = int(os.environ.get("VFN_MUTATION", "0"))
    return [MUTATIONS[(day + n * (len(MUTATIONS) // FEW)) % len(MUTATIONS)] for n in range(FEW)]


def test_mutations_apply():
    """All of them, each to one place."""
    for mutation in MUTATIONS:
        with open(os.path.join(GATE, mutation.file), encoding="utf-8") as source:
            mutation.apply(source.read())
        for name in mutation.attacks:
            assert callable(attack.named(name))


@pytest.mark.parametrize("mutation", chosen(), ids=str)
def test_mutation_is_noticed(workdir, zoo, monkeypatch, mutation):
    mutant = Mutant(mutation, os.path.join(workdir, "m"))
    os.makedirs(os.path.join(mutant.directory, "run"))
    unit = mutant.unit_notices()
    monkeypatch.setenv("VFN_BUILD", mutant.directory)
    noticed = mutant.suite_notices(zoo)
    remarks.append(f"mutation, {mutation}: suite: {noticed or 'nothing'}; unit tests of the judge: "
                   f"{'fail' if unit else 'pass'}")
    assert noticed or unit, f"{mutation}: nobody notices"
