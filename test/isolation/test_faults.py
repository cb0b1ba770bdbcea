# SPDX-License-Identifier: BSD-3-Clause
"""Each fault that was found once, and its like (attacks_*.py), by the honest tenant's side: it goes on, its
memory is as it was, nothing is left when the hostile one is gone, and SIGTERM ends the server.
"""

import pytest

# what they register is in ATTACKS
import attacks_memory       # noqa: F401  pylint: disable=unused-import
import attacks_messages     # noqa: F401  pylint: disable=unused-import
import attacks_room         # noqa: F401  pylint: disable=unused-import
from arena import Arena
from attack import ATTACKS, FEW
from harness import Scratch

ATTACKS = sorted(ATTACKS, key=lambda pair: pair[0].name)


class Shared:
    """The arena that attacks with the same setting share, as long as it is whole."""

    def __init__(self, zoo):
        self.zoo = zoo
        self.arena = self.scratch = None
        self.attacks = 0

    def get(self, setting):
        if self.arena is not None and self.arena.setting is not setting:
            self.finish()
        if self.arena is None:
            wrapper = ("prlimit", "--nofile=1024") if setting is FEW else ()
            self.scratch = Scratch()
            self.arena, self.attacks = Arena(setting, self.scratch.path, self.zoo, wrapper), 0
        self.attacks += 1
        return self.arena

    def finish(self):
        """Whole to the end."""
        try:
            if self.arena is not None:
                self.arena.finish("faults", {"attacks": self.attacks})
        finally:
            self.drop()

    def drop(self):
        if self.arena is not None:
            self.arena.kill()
            self.scratch.remove()
        self.arena = None


@pytest.fixture(scope="module")
def shared(zoo):
    made = Shared(zoo)
    yield made
    made.finish()


@pytest.mark.parametrize("setting,attack", ATTACKS, ids=lambda x: getattr(x, "__name__", None) or str(x))
def test_fault(shared, setting, attack):
    a = shared.get(setting)
    try:
        a.whatever(lambda: attack(a), attack.__name__)
        a.check()
        a.stack.close()
        a.settled()
        a.check()
    except BaseException:
        shared.drop()
        raise


def test_that_all_ended_well(shared):
    """The last of the arenas."""
    shared.finish()
